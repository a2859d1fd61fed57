//! The balancer of a plan.

use super::StartError;
use crate::{
    balance::{Balancer, NEWS, pool::Pool},
    files::Watched,
    id::Epoch,
    log::{Limits, Log, Numbering},
    net::Dialer,
    plan::Plan,
    site::Site,
    tls::{self, Identity},
    topic::{Policy, Topic},
    units::now_ms,
};
use std::sync::Arc;

/// What is told about back ends at most.
const NEWS_LIMITS: Limits = Limits { events: 1000, bytes: 1 << 20, age: None };

/// Puts the balancer into the site, if there is to be one.
pub fn set_up(site: &mut Site, plan: &Plan, identity: Option<Arc<Watched<Identity>>>) -> Result<(), StartError> {
    let (Some(settings), Some(serve)) = (&plan.balance, &plan.serve) else { return Ok(()) };
    let log = Log::new(Numbering::Own(Epoch::new(now_ms(), rand::random())), NEWS_LIMITS);
    let news = Arc::new(Topic::new(NEWS.into(), log, Vec::new(), "", Policy::Disconnect));
    site.add(news.clone());
    let dialer =
        Dialer { tls: tls::client_config(plan.consuming.ca.as_deref(), identity)?, timeout: settings.connect_timeout };
    let pool = Pool::new(settings.habits.clone(), settings.members.clone(), news);
    site.balancer = Some(Arc::new(Balancer::new(settings.clone(), Arc::new(pool), dialer, &serve.path)));
    Ok(())
}
