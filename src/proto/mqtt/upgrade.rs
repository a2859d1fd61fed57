//! MQTT over WebSocket: at `/` and `/mqtt`, for who offers the subprotocol `mqtt` (MQTT 5 §6).

use super::{channel::Carrier, handshake::max_packet};
use crate::{
    inbound::Stream,
    proto::{
        auth,
        listen::Opened,
        origin,
        subscribe::{self, Refusal, is_upgrade},
    },
    site::Site,
};
use hyper::{HeaderMap, Method, header, http::request::Parts};
use std::{any::Any, sync::Arc};

/// The subprotocol.
pub const SUBPROTOCOL: &str = "mqtt";

/// Whether a request wants to speak MQTT. In front of back ends every path is theirs.
pub fn is_asked(site: &Site, parts: &Parts) -> bool {
    let offers = || subscribe::has_token(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let here = site.balancer.is_none() && matches!(parts.uri.path(), "/" | "/mqtt");
    here && parts.method == Method::GET && is_upgrade(&parts.headers) && offers()
}

/// The headers of the answer that lets MQTT in.
///
/// # Errors
/// The refusal to answer with.
pub fn open(site: &Site, parts: &Parts) -> Result<HeaderMap, Refusal> {
    origin::check_origin(&site.rules, &parts.headers)?;
    let mut headers = HeaderMap::new();
    subscribe::shake_hands(parts, &mut headers)?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(SUBPROTOCOL));
    Ok(headers)
}

/// The token that a request brings.
pub fn bearer(site: &Site, parts: &Parts) -> Option<String> {
    auth::token_of(&site.rules, &parts.headers).map(String::from)
}

/// Serves MQTT on a WebSocket that was opened so; its request may have brought a token.
pub async fn serve(
    site: Arc<Site>,
    stream: Stream,
    bearer: Option<String>,
    Opened { head, early, .. }: Opened,
    permit: Box<dyn Any + Send>,
) {
    let carrier = Carrier::WebSocket(max_packet(&site).saturating_mul(2), head);
    super::connection::serve(site, stream, carrier, &early, bearer, permit).await;
}
