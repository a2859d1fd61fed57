//! The balancer of a plan.

use super::{Running, StartError};
use crate::{
    balance::{
        Balancer, NEWS, Settings,
        member::Member,
        members::Members,
        names::{self, Names},
        pool::Pool,
        registered::Follower,
        stream::Reading,
    },
    files::{Check, Watched},
    id::Epoch,
    log::{Limits, Log, Numbering},
    net::Dialer,
    panics,
    plan::Plan,
    site::Site,
    source::{feed::Feed, place::Marks},
    tls::{self, Identity},
    token,
    topic::{Policy, Topic},
    units::now_ms,
};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;

/// What is told about back ends at most.
const NEWS_LIMITS: Limits = Limits { events: 1000, bytes: 1 << 20, age: None };

/// Puts the balancer into the site, if there is to be one. Returns what follows its list of back ends.
pub async fn set_up(
    site: &mut Site,
    plan: &mut Plan,
    identity: Option<Arc<Watched<Identity>>>,
) -> Result<Option<Arc<dyn Check>>, StartError> {
    let (Some(settings), Some(serve)) = (&mut plan.balance, &plan.serve) else { return Ok(None) };
    let dialer = Dialer {
        tls: tls::client_config(plan.consuming.ca.as_deref(), identity)?,
        timeout: settings.connect_timeout,
        at: None,
    };
    let listed = watch::Sender::default();
    let follower = first_list(settings, &dialer, &listed).await?;
    settings.settle()?;
    listed.send_replace(settings.members.clone());
    let changes = listed.subscribe();
    let mut names = Names::new(settings.lookups);
    let members = names.expand(&settings.members).await;
    let log = Log::new(Numbering::Own(Epoch::new(now_ms(), rand::random())), NEWS_LIMITS);
    let news = Arc::new(Topic::new(NEWS.into(), log, Vec::new(), "", Policy::Disconnect));
    site.add(news.clone());
    let pool = Arc::new(Pool::new(settings.habits.clone(), members, news));
    tokio::spawn(panics::vital("the back ends' names", names::run(names, changes, pool.clone())));
    let list = match (&settings.file, settings.members.first()) {
        (Some(file), Some(first)) => Some(Members::follow(file, first.clone(), listed)?),
        _ => None,
    };
    site.balancer = Some(Arc::new(Balancer::new(settings.clone(), pool, follower, dialer, &serve.path)));
    Ok(list.map(|list| Arc::new(list) as Arc<dyn Check>))
}

/// Asks the registry that lists the back ends, if one does. Without an answer there is nobody yet.
async fn first_list(
    settings: &mut Settings,
    dialer: &Dialer,
    listed: &watch::Sender<Vec<Member>>,
) -> Result<Option<Arc<Follower>>, StartError> {
    let Some(service) = settings.service.clone() else { return Ok(None) };
    if let Some(file) = &service.token_file {
        token::first_line(file)?;
    }
    let follower = Follower::new(service, dialer.clone(), settings.deadlines.answer, listed.clone());
    match follower.list().await {
        Ok(list) => settings.members = list.members,
        Err(why) => warn!(%why, "the registry lists no back ends yet"),
    }
    Ok(Some(Arc::new(follower)))
}

/// Follows the registry that lists the back ends, if one does. What is returned turns true when it has answered.
pub fn start_following(running: &Running, dialer: &Dialer) -> Option<watch::Receiver<bool>> {
    let follower = running.site.balancer.as_ref()?.follower.clone()?;
    let url = &running.plan.balance.as_ref()?.service.as_ref()?.registry;
    let (answered, first) = watch::channel(false);
    tokio::spawn(panics::vital("the registry's follower", follower.run(running.upstream(0, url, dialer), answered)));
    Some(first)
}

/// Reads the back ends, if their topic may be served from here. What is returned turns true when one was read.
pub fn start_reading(running: &Running, dialer: &Dialer) -> Option<watch::Receiver<bool>> {
    let (plan, site) = (running.plan, running.site);
    let balancer = site.balancer.clone().filter(|_| plan.streams())?;
    let settings = plan.balance.as_ref()?;
    // Which one is read turns out later, and who there is, too.
    let url = settings.members.first().map(|member| &member.url);
    let url = url.or(settings.service.as_ref().map(|service| &service.registry))?;
    // Its end is the topic's only where all of them say so.
    let feed = Feed::new(running.topic.clone(), plan.keeps_ids(), false, Marks::default(), running.start_of());
    let reading =
        Reading { balancer, site: site.clone(), upstream: running.upstream(0, url, dialer), feed, ended: false };
    let (connected, first) = watch::channel(false);
    tokio::spawn(panics::vital("the balanced stream", reading.run(connected)));
    Some(first)
}
