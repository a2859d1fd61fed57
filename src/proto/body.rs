//! A request's body, read with bounds.

use super::subscribe::Refusal;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Incoming},
};
use std::{fmt::Display, time::Duration};
use tokio::time::timeout;

/// So much of a body that is too large is read all the same: who is still sending does not look for an answer.
const POLITE: usize = 16 << 20;

/// The whole body of at most `max` bytes; given up when nothing of it comes for `patience`.
///
/// # Errors
/// 408, 413, or 400 when it breaks off.
pub async fn read(mut body: Incoming, max: usize, patience: Duration) -> Result<Bytes, Refusal> {
    let (mut whole, mut size) = (BytesMut::new(), 0);
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"));
    let hopeless = max.saturating_add(POLITE);
    if body.size_hint().lower() > hopeless as u64 {
        return Err(too_large());
    }
    while size <= hopeless {
        let frame = timeout(patience, body.frame()).await;
        let Some(frame) = frame.map_err(|_| late())? else { break };
        let data = frame.map_err(|error| broken(&error))?.into_data().unwrap_or_default();
        size += data.len();
        if size <= max {
            whole.extend_from_slice(&data);
        }
    }
    if size > max { Err(too_large()) } else { Ok(whole.freeze()) }
}

/// The refusal of a body of which nothing more comes.
pub fn late() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
}

/// The refusal of a body that breaks off, or is malformed.
pub fn broken(why: &dyn Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {why}"))
}
