//! The registry of a plan.

use crate::{plan::Plan, registry::Registry, site::Site, topic::Topic};
use std::sync::Arc;

/// Puts the registry into the site, if there is to be one, and lets it run.
pub fn set_up(site: &mut Site, plan: &Plan, topic: &Arc<Topic>) {
    let Some(settings) = plan.registry else { return };
    let registry = Arc::new(Registry::new(settings, topic.clone()));
    tokio::spawn(registry.clone().run());
    site.registry = Some(registry);
}
