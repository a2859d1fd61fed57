//! MQTT over WebSocket: at every path, for clients that offer the subprotocol `mqtt` (MQTT 5 §6).

use super::{channel::Carrier, handshake::max_packet};
use crate::{
    inbound::Stream,
    proto::{
        auth, cloudevents,
        listen::Opened,
        origin,
        subscribe::{self, Refusal, wants_websocket},
    },
    site::Site,
};
use hyper::{HeaderMap, StatusCode, header, http::request::Parts};
use std::{any::Any, sync::Arc};

/// The subprotocol.
pub const SUBPROTOCOL: &str = "mqtt";

/// Tells whether the request opens a WebSocket and offers MQTT on it, in whatever version: older clients offer `mqttv3.1`. A
/// client that offers CloudEvents beside it speaks these: a CONNECT packet is no CloudEvent and goes to nobody.
pub fn is_offered(parts: &Parts) -> bool {
    let clouds = || subscribe::has_token(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL, cloudevents::SUBPROTOCOL);
    let offers = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let names_mqtt = |name: &str| name.trim().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(SUBPROTOCOL));
    wants_websocket(parts) && offers.flat_map(|value| value.split(',')).any(names_mqtt) && !clouds()
}

/// The headers of the answer that lets MQTT in.
///
/// # Errors
/// The refusal to answer with.
pub fn open(site: &Site, parts: &Parts) -> Result<HeaderMap, Refusal> {
    origin::check_origin(&site.rules, &parts.headers)?;
    if !subscribe::has_token(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the subprotocol for MQTT 3.1.1 and 5 is mqtt"));
    }
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
