//! The balancer of a plan.

use super::{Running, StartError};
use crate::{
    balance::{Balancer, NEWS, members::Members, pool::Pool, stream::Reading},
    files::{Check, Watched},
    id::Epoch,
    log::{Limits, Log, Numbering},
    net::Dialer,
    plan::Plan,
    site::Site,
    source::{feed::Feed, place::Marks},
    tls::{self, Identity},
    topic::{Policy, Topic},
    units::now_ms,
};
use std::sync::Arc;
use tokio::sync::watch;

/// What is told about back ends at most.
const NEWS_LIMITS: Limits = Limits { events: 1000, bytes: 1 << 20, age: None };

/// Puts the balancer into the site, if there is to be one. Returns what follows its list of back ends.
pub fn set_up(
    site: &mut Site,
    plan: &mut Plan,
    identity: Option<Arc<Watched<Identity>>>,
) -> Result<Option<Arc<dyn Check>>, StartError> {
    let (Some(settings), Some(serve)) = (&mut plan.balance, &plan.serve) else { return Ok(None) };
    settings.settle()?;
    let log = Log::new(Numbering::Own(Epoch::new(now_ms(), rand::random())), NEWS_LIMITS);
    let news = Arc::new(Topic::new(NEWS.into(), log, Vec::new(), "", Policy::Disconnect));
    site.add(news.clone());
    let dialer =
        Dialer { tls: tls::client_config(plan.consuming.ca.as_deref(), identity)?, timeout: settings.connect_timeout };
    let pool = Arc::new(Pool::new(settings.habits.clone(), settings.members.clone(), news));
    let list = match (&settings.file, settings.members.first()) {
        (Some(file), Some(first)) => Some(Members::follow(file, first.clone(), pool.clone())?),
        _ => None,
    };
    site.balancer = Some(Arc::new(Balancer::new(settings.clone(), pool, dialer, &serve.path)));
    Ok(list.map(|list| Arc::new(list) as Arc<dyn Check>))
}

/// Reads the back ends, if their topic may be served from here. What is returned turns true when one was read.
pub fn start_reading(running: &Running, dialer: &Dialer) -> Option<watch::Receiver<bool>> {
    let (plan, site) = (running.plan, running.site);
    let balancer = site.balancer.clone().filter(|_| plan.streams())?;
    let url = &plan.balance.as_ref()?.members.first()?.url;
    // Its end is the topic's only where all of them say so.
    let feed = Feed::new(running.topic.clone(), plan.keeps_ids(), false, Marks::default(), running.start_of(None));
    let reading =
        Reading { balancer, site: site.clone(), upstream: running.upstream(0, url, dialer), feed, ended: false };
    let (connected, first) = watch::channel(false);
    tokio::spawn(reading.run(connected));
    Some(first)
}
