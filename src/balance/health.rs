//! Active checks: each back end is asked now and then whether it is well, and left out while it is not.

use super::{answer::Answer, backend::Backend, is_failure, pool::Pool, search::Hold};
use crate::net::{Dialer, plain_words};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{interval, timeout},
};
use url::{Position, Url};

/// How back ends are asked.
#[derive(Clone, Debug)]
pub struct Checks {
    /// What is asked for; an answer below 400 is a good one.
    pub path: String,
    /// How often, and how long one answer may take.
    pub interval: Duration,
    /// Bad answers in a row until one is left out.
    pub fall: u32,
    /// Good answers in a row until it is back.
    pub rise: u32,
}

/// Answers of one kind in a row.
#[derive(Clone, Copy, Default)]
struct Streak {
    good: bool,
    length: u32,
}

/// Checks for ever; each connection begins with `preface`.
pub async fn run(pool: Arc<Pool>, checks: Checks, dialer: Dialer, preface: Vec<u8>) {
    let mut streaks: HashMap<u64, Streak> = HashMap::new();
    let mut ticks = interval(checks.interval);
    loop {
        ticks.tick().await;
        let mut answers = JoinSet::new();
        for backend in pool.backends() {
            let (checks, dialer, preface) = (checks.clone(), dialer.clone(), preface.clone());
            answers.spawn(async move {
                let (url, dialer) = (&backend.member.url, dialer.at(backend.member.at));
                let asked = timeout(checks.interval, ask(url, &checks.path, &dialer, &preface)).await;
                (asked.unwrap_or_else(|_| Err("no answer to the check in time".into())), backend)
            });
        }
        let mut now = HashMap::new();
        while let Some(answered) = answers.join_next().await {
            let Ok((answer, backend)) = answered else { continue };
            let before = streaks.get(&backend.name()).copied().unwrap_or_default();
            now.insert(backend.name(), judge(&pool, &checks, &backend, answer.err(), before));
        }
        streaks = now;
    }
}

fn judge(pool: &Pool, checks: &Checks, backend: &Backend, fault: Option<String>, before: Streak) -> Streak {
    let good = fault.is_none();
    let length = if before.good == good { before.length.saturating_add(1) } else { 1 };
    if length >= if good { checks.rise } else { checks.fall } {
        pool.judge(backend, good, fault.as_deref().unwrap_or_default());
    }
    Streak { good, length }
}

/// Asks once whether it is well.
///
/// # Errors
/// Why it is not.
pub async fn ask(url: &Url, path: &str, dialer: &Dialer, preface: &[u8]) -> Result<(), String> {
    match status(url, path, dialer, preface).await? {
        200..=399 => Ok(()),
        status => Err(format!("it answered {status} to the check")),
    }
}

/// Finds out whether back ends of a topic are well again whose breakers let them be tried, for ever: who reads the topic
/// asks nobody while it has somebody.
pub async fn try_again(pool: Arc<Pool>, dialer: Dialer, patience: Duration) {
    loop {
        let lease = pool.take_to_try().await;
        let member = &lease.backend().member;
        let (path, dialer) = (member.topic().unwrap_or("/"), dialer.at(member.at));
        match timeout(patience, status(&member.url, path, &dialer, &[])).await {
            Ok(Ok(status)) if is_failure(status) => lease.failed(&format!("it answered {status}")),
            Ok(Ok(_)) => lease.succeeded(),
            Ok(Err(why)) => lease.failed(&why),
            Err(_) => lease.failed("no answer in time"),
        }
    }
}

/// What it answers.
async fn status(url: &Url, path: &str, dialer: &Dialer, preface: &[u8]) -> Result<u16, String> {
    let mut connection = dialer.connect(url, preface).await.map_err(|error| plain_words(&error))?;
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: wsevent\r\n\r\n");
    // What was said before a connection broke still counts: reading tells how it ended.
    let _ = connection.io().write_all(head.as_bytes()).await;
    Ok(Answer::read(connection.io(), false).await?.status)
}
