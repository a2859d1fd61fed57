//! The registry of a plan.

use super::StartError;
use crate::{
    files::{Check, Watched},
    net::Dialer,
    panics,
    plan::Plan,
    recorder::Notes,
    registry::{Registry, Settings, access::Access, users::Users},
    site::Site,
    tls,
    topic::Topic,
};
use std::sync::Arc;

/// Puts the registry into the site, if there is to be one, and lets it run.
///
/// # Errors
/// When the users, or the certificates to trust, cannot be read.
pub fn set_up(
    site: &mut Site,
    plan: &Plan,
    topic: &Arc<Topic>,
    kept: &Notes,
    watched: &mut Vec<Arc<dyn Check>>,
) -> Result<(), StartError> {
    let Some(settings) = &plan.registry else { return Ok(()) };
    let access = access(site, settings, watched)?;
    let tls = tls::client_config(plan.consuming.ca.as_deref(), None)?;
    let dialer = Dialer { tls, timeout: settings.proxy.connect_timeout, at: None };
    let registry = Arc::new(Registry::new(settings.clone(), topic.clone(), access, kept, dialer));
    tokio::spawn(panics::vital("the registry's clock", registry.clone().run()));
    site.registry = Some(registry);
    Ok(())
}

fn access(site: &Site, settings: &Settings, watched: &mut Vec<Arc<dyn Check>>) -> Result<Option<Access>, StartError> {
    let Some(keys) = &site.keys else { return Ok(None) };
    let mut access = Access::new(keys.clone(), settings.token_ttl, settings.auth_deadline);
    access.protect_writes = settings.protect_writes;
    if let Some(path) = settings.users.clone() {
        let users = Arc::new(Watched::open(vec![path.clone()], move || Users::load(&path))?);
        watched.push(users.clone());
        access.users = Some(users);
    }
    Ok(Some(access))
}
