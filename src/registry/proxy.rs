//! `/proxy/SERVICE/…`: a request is passed on to an instance of a service, and what comes of it counts for its circuit.

use super::{
    Registry,
    http::Answer,
    node::{Node, Passing},
    pick::{Ask, pick},
};
use crate::{
    balance::{
        http::{self, Relayed},
        search::{Deadlines, Hold, Search},
    },
    net::{Connection, plain_words},
    proto::subscribe::Refusal,
    site::Site,
};
use hyper::{Response, StatusCode, body::Incoming, header::HeaderValue, http::request::Parts, upgrade::OnUpgrade};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::debug;
use url::Url;

/// Where services are.
const PREFIX: &str = "/proxy/";

/// How requests are passed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// For a connection to an instance.
    pub connect_timeout: Duration,
    /// For what is said on it.
    pub deadlines: Deadlines,
}

/// Tells whether requests for this path are passed on to an instance of a service.
pub fn is_service_path(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Service and path there of a request for a [service path](is_service_path).
fn split(parts: &Parts) -> (&str, &str) {
    let rest = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

/// Passes the request on, and the answer back.
///
/// # Errors
/// 404 when no instance is there that may be asked, 500 when none answers.
pub async fn answer(
    site: &Arc<Site>,
    registry: &Arc<Registry>,
    parts: &Parts,
    body: Incoming,
    upgrade: OnUpgrade,
) -> Result<Response<Relayed>, Answer> {
    let mut round = Round::new(registry, split(parts).0);
    let answered = if round.first.is_some() {
        let passed = http::forward(site, &mut round, parts, body, upgrade).await;
        passed.map_err(|refusal| match refusal.status.is_server_error() {
            true => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "Proxy error"),
            false => refusal.into(),
        })
    } else {
        Err(Answer::missing("Service unavailable"))
    };
    registry.count(answered.as_ref().is_err_and(|refusal| refusal.status.is_client_error()));
    answered
}

/// One request's way through the instances of a service.
struct Round<'a> {
    registry: &'a Arc<Registry>,
    service: &'a str,
    first: Option<Instance>,
    tried: Vec<Arc<str>>,
}

impl<'a> Round<'a> {
    fn new(registry: &'a Arc<Registry>, service: &'a str) -> Self {
        let mut round = Round { registry, service, first: None, tried: Vec::new() };
        round.first = round.take();
        round
    }

    /// The one whose turn it is, of those that were not tried yet.
    fn take(&mut self) -> Option<Instance> {
        let ask = Ask { service: self.service, ..Ask::default() };
        let taken = self.registry.act(|state, _| {
            let may_be = |node: &Node| node.is_free() && !self.tried.contains(&node.instance.node);
            let found = pick(&mut state.nodes, &ask, may_be, rand::random);
            let found = found.map(|node| (node.instance.node.clone(), node.address.clone()));
            (found.and_then(|(id, address)| Some((state.nodes.hold(&id)?, id, address))), None)
        });
        let (passing, id, address) = taken.ok()??;
        self.tried.push(id.clone());
        Some(Instance { registry: self.registry.clone(), id, address, asked: Instant::now(), _passing: passing })
    }
}

impl Search for Round<'_> {
    type Hold = Instance;

    async fn next(&mut self) -> Result<(Instance, Connection), Refusal> {
        loop {
            let nobody = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no instance answers");
            let instance = self.first.take().or_else(|| self.take()).ok_or_else(nobody)?;
            match instance.connect().await {
                Ok(connection) => return Ok((instance, connection)),
                Err(error) => instance.failed(&plain_words(&error)),
            }
        }
    }

    fn target(&self, _: &Instance, parts: &Parts) -> String {
        let path = Some(split(parts).1).filter(|path| !path.is_empty()).unwrap_or("/");
        match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    fn has_more(&self) -> bool {
        let state = self.registry.state();
        let mut all = state.nodes.of(self.service).into_iter().flatten();
        all.any(|node| node.is_free() && !self.tried.contains(&node.instance.node))
    }

    fn deadlines(&self) -> Deadlines {
        self.registry.settings.proxy.deadlines
    }

    fn cookie(&self, _: &Instance, _: bool) -> Option<HeaderValue> {
        None
    }

    fn count_relay(&self) -> Arc<()> {
        self.registry.relayed.clone()
    }
}

/// A hold on an instance.
struct Instance {
    registry: Arc<Registry>,
    id: Arc<str>,
    address: String,
    asked: Instant,
    _passing: Passing,
}

impl Instance {
    async fn connect(&self) -> io::Result<Connection> {
        let url = url(&self.address).ok_or_else(|| io::Error::other("its address is none"))?;
        self.registry.dialer.connect(&url, &[]).await
    }

    fn report(&self, success: bool) {
        let _ = self.registry.act(|state, now| {
            let known = state.nodes.report(&self.id, success, now);
            ((), known.and_then(|(_, fact)| fact))
        });
    }
}

/// Of `host:port`, and nothing else.
pub fn url(address: &str) -> Option<Url> {
    let url = Url::parse(&format!("http://{address}")).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    Some(url).filter(|_| bare)
}

impl Hold for Instance {
    fn succeeded(&self) {
        let ms = self.asked.elapsed().as_secs_f64() * 1000.0;
        let _ = self.registry.act(|state, _| (state.nodes.note_response_time(&self.id, ms), None));
        self.report(true);
    }

    fn failed(&self, why: &str) {
        debug!(instance = &*self.id, why, "failed");
        self.report(false);
    }

    async fn has_aged(&self) {
        std::future::pending().await
    }
}
