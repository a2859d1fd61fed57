//! The broker that a plan tells everything.

use super::{Running, StartError};
use crate::{net::Dialer, panics, plan::Plan, proto::mqtt::publisher::Publisher, site::Site, tls, topic::Topic};
use std::sync::Arc;

/// Puts the publisher into the site, if there is to be one.
///
/// # Errors
/// When the certificates to trust cannot be read.
pub fn set_up(site: &mut Site, plan: &Plan, topic: &Arc<Topic>) -> Result<(), StartError> {
    let Some(url) = plan.mqtt.publish.clone() else { return Ok(()) };
    let tls = tls::client_config(plan.consuming.ca.as_deref(), None)?;
    let dialer = Dialer { tls, timeout: plan.rules.handshake_timeout, at: None };
    site.mqtt.publisher = Some(Arc::new(Publisher::new(url, dialer, plan.consuming.retry_max, topic.clone())));
    Ok(())
}

impl Running<'_> {
    /// Lets it run.
    pub(super) fn start_telling(&self) {
        if let Some(publisher) = &self.site.mqtt.publisher {
            tokio::spawn(panics::vital("an MQTT publisher", publisher.clone().run(self.site.clone())));
        }
    }
}
