//! From what is listed to who is there: each address of a name is a back end, and names are looked up again and again.
//! A name that has no answer stands for what it stood for before, at first for itself.

use super::{member::Member, pool::Pool};
use crate::net;
use futures_util::future;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tracing::warn;
use url::Url;

/// One look-up at most: the system may have nobody to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// What names stand for.
pub struct Names {
    /// How often they are looked up; without it, at each connection.
    every: Option<Duration>,
    known: HashMap<Url, Vec<IpAddr>>,
    /// Those without an answer, which was told.
    silent: Vec<Url>,
}

impl Names {
    /// Nothing is known yet.
    pub fn new(every: Option<Duration>) -> Self {
        Names { every, known: HashMap::new(), silent: Vec::new() }
    }

    /// Whom these members are, by address.
    pub async fn expand(&mut self, listed: &[Member]) -> Vec<Member> {
        if self.every.is_none() {
            return listed.to_vec();
        }
        let names: Vec<&Url> = listed.iter().map(|member| &member.url).filter(|url| is_name(url)).collect();
        let answers = future::join_all(names.iter().map(|url| look_up(url))).await;
        self.known.retain(|url, _| names.contains(&url));
        self.silent.retain(|url| names.contains(&url));
        for (url, answer) in names.into_iter().zip(answers) {
            self.learn(url, answer);
        }
        listed.iter().flat_map(|member| self.at_addresses(member)).collect()
    }

    fn learn(&mut self, url: &Url, answer: Result<Vec<IpAddr>, String>) {
        match answer {
            Ok(addresses) => {
                self.silent.retain(|silent| silent != url);
                self.known.insert(url.clone(), addresses);
            }
            Err(why) if !self.silent.contains(url) => {
                warn!(%why, "back ends stay as they are");
                self.silent.push(url.clone());
            }
            Err(_) => {}
        }
    }

    fn at_addresses(&self, member: &Member) -> Vec<Member> {
        match self.known.get(&member.url) {
            Some(addresses) => addresses.iter().map(|ip| Member { at: Some(*ip), ..member.clone() }).collect(),
            None => vec![member.clone()],
        }
    }

    fn has_names(&self, listed: &[Member]) -> bool {
        self.every.is_some() && listed.iter().any(|member| is_name(&member.url))
    }
}

fn is_name(url: &Url) -> bool {
    url.host().is_some_and(|host| net::is_name(&host))
}

/// In an order of their own, whatever the order of the answer: that often changes to spread load.
async fn look_up(url: &Url) -> Result<Vec<IpAddr>, String> {
    let host = url.host_str().unwrap_or_default();
    let found = timeout(PATIENCE, net::resolve(host, 0)).await;
    let found = found.map_err(|_| format!("resolve {host}: no answer"))?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.into_iter().map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Keeps the pool's members up to what is `listed`, for ever. They are so already.
pub async fn run(mut names: Names, mut listed: watch::Receiver<Vec<Member>>, pool: Arc<Pool>) {
    loop {
        let now = listed.borrow_and_update().clone();
        let due = async {
            match names.every.filter(|_| names.has_names(&now)) {
                Some(every) => tokio::time::sleep(every).await,
                None => future::pending().await,
            }
        };
        let told = async {
            // Who listed them may have said all there is to say.
            if listed.changed().await.is_err() {
                future::pending().await
            }
        };
        tokio::select! {
            () = told => {}
            () = due => {}
        }
        let now = listed.borrow_and_update().clone();
        pool.set_members(&names.expand(&now).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(texts: &[&str]) -> Vec<Member> {
        texts.iter().map(|text| text.parse().expect("a member")).collect()
    }

    fn shown(members: &[Member]) -> Vec<String> {
        members.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn each_address_is_one_and_no_answer_changes_nothing() {
        let listed = members(&["localhost:1", "127.0.0.1:2", "web.invalid:3 weight=2"]);
        let mut names = Names::new(Some(Duration::from_secs(30)));
        let unknown = ["http://localhost:1", "http://127.0.0.1:2", "http://web.invalid:3"];
        assert_eq!(shown(&names.expand(&listed).await), unknown);
        assert!(names.has_names(&listed) && !names.has_names(&listed[..2]));
        names.learn(&listed[2].url, Ok(vec!["10.0.0.1".parse().expect("an address"), "::1".parse().expect("another")]));
        let known = names.expand(&listed).await;
        assert_eq!(shown(&known)[2..], ["http://web.invalid:3 (10.0.0.1)", "http://web.invalid:3 (::1)"]);
        assert!(known[2..].iter().all(|member| member.weight == 2.0));
        assert_eq!(shown(&Names::new(None).expand(&listed).await), unknown);
    }
}
