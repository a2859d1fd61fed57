//! What clients say: where it may be said, and what becomes of a will.

use super::{
    naming::{Naming, path_of_name},
    packet::{Publish, reason},
    seats::Sitter,
};
use crate::{
    event::{Attrs, Event},
    proto::auth,
    site::Site,
    token::Grant,
    topic::Topic,
    units::now_ms,
};
use std::{sync::Arc, time::Duration};

/// Something that may be said.
pub struct Speech {
    /// Where.
    pub topic: Arc<Topic>,
    /// What.
    pub event: Event,
    /// To be acknowledged with.
    pub id: Option<u16>,
}

/// What a client's message becomes.
///
/// # Errors
/// The reason why it may not be said, with the identifier to tell it with.
pub fn of(site: &Site, grant: Option<&Grant>, publish: Publish) -> Result<Speech, (u8, Option<u16>)> {
    let id = publish.id;
    let topic = topic(site, grant, &publish.topic).map_err(|code| (code, id))?;
    if publish.payload.len() > site.rules.max_message {
        return Err((reason::QUOTA, id));
    }
    let kind = publish.properties.user.into_iter().find(|(name, _)| name == "type").map(|(_, kind)| kind);
    let kind = kind.filter(|kind| !kind.is_empty() && !kind.contains(char::is_control));
    let attrs = kind.map(|kind| Arc::new(Attrs { kind: Some(kind), ..Attrs::default() }));
    Ok(Speech { topic, event: Event { attrs, ..Event::new(publish.payload) }, id })
}

/// The topic of this name, where this client may publish to it. Nobody says what a registry says.
fn topic(site: &Site, grant: Option<&Grant>, name: &str) -> Result<Arc<Topic>, u8> {
    let is_below = |base: &str| name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if site.registry.is_some() && is_below(&site.mqtt.base) {
        return Err(reason::NOT_AUTHORIZED);
    }
    let Some(topic) =
        site.topic(&path_of_name(name)).filter(|topic| matches!(Naming::of(site, topic), Naming::Path(_)))
    else {
        return Err(reason::BAD_TOPIC);
    };
    if auth::publishes(site, grant, &topic.path) { Ok(topic) } else { Err(reason::NOT_AUTHORIZED) }
}

/// Says a client's will after a delay, unless it is back by then. A will that may not be said is dropped: it may well be
/// there because a library puts one in.
pub fn leave_will(site: &Arc<Site>, grant: Option<Grant>, will: Publish, delay: Duration, sitter: Sitter) {
    let Ok(Speech { topic, event, .. }) = of(site, grant.as_ref(), will) else { return };
    let site = site.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        if delay.is_zero() || site.mqtt.seats.is_empty_since(&sitter) {
            // Whoever left it waits for nothing: a disk that is full for long must not fill the memory.
            if let Err(error) = topic.publish_patiently_noted(vec![event], now_ms(), |_, _| None).await {
                tracing::warn!(topic = %topic.path, %error, "a will is lost");
            }
        }
    });
}
