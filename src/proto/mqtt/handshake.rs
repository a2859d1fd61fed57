//! CONNECT and CONNACK: who is let in, and what is agreed.

use super::{
    channel::Channel,
    packet::{Connect, Fault, Packet, Version, property, reason},
    read,
    session::Reader,
    write::{self, put_text},
};
use crate::{
    audience::Viewer,
    proto::{line::Moved, ws::frame},
    site::Site,
    token::Grant,
    units::now_ms,
};
use bytes::{BufMut, BytesMut};
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};

/// What a CONNECT may have, in bytes.
const MAX_CONNECT: usize = 128 << 10;
/// What a client identifier may have, in bytes.
const MAX_CLIENT_ID: usize = 1024;
/// What a packet may have beside its payload: the topic's name, properties.
const BESIDE_PAYLOAD: usize = 128 << 10;
/// Messages that may wait for an acknowledgement, at most.
const WINDOW: u32 = 256;
/// 3.1.1 does not say how long a session is kept.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(86_400);

/// Why there is no connection.
pub enum Refused {
    /// It broke, or was closed.
    Gone(io::Error),
    /// The peer broke a rule.
    Fault(Fault),
    /// It broke one of the WebSocket around it.
    Broken(frame::Fault),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Gone(error)
    }
}

/// Waits for the CONNECT.
///
/// # Errors
/// Why there was none.
pub async fn connect(channel: &mut Channel) -> Result<Connect, Refused> {
    loop {
        if !channel.unwrap().map_err(Refused::Broken)? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if channel.inbound.first().is_some_and(|first| *first != super::packet::kind::CONNECT << 4) {
            return Err(Refused::Fault(Fault::protocol("the first packet is no CONNECT")));
        }
        if let Some(frame) = read::frame(&mut channel.inbound, MAX_CONNECT).map_err(Refused::Fault)? {
            return match read::packet(frame, None).map_err(Refused::Fault)? {
                Packet::Connect(connect) => Ok(*connect),
                _ => Err(Refused::Fault(Fault::protocol("the first packet is no CONNECT"))),
            };
        }
        if let Moved::Read(0) = channel.go_on(true).await? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Who was let in.
#[derive(Default)]
pub struct Member {
    /// What its token says, where access is controlled.
    pub grant: Option<Grant>,
    /// Who it is by its token, if that says so: sessions are not taken over from others.
    pub name: String,
}

/// Judges who wants to be let in: the password is a token where access is controlled; over WebSocket the request may have
/// brought one instead.
///
/// # Errors
/// The reason code.
pub fn admit(site: &Site, connect: &Connect, bearer: Option<&str>) -> Result<Member, u8> {
    if connect.properties.text(property::AUTH_METHOD).is_some() {
        return Err(reason::BAD_METHOD);
    }
    let nameless = connect.client_id.is_empty() && connect.version == Version::V4 && !connect.clean;
    if nameless || connect.client_id.len() > MAX_CLIENT_ID {
        return Err(reason::BAD_CLIENT_ID);
    }
    let Some(keys) = &site.keys else { return Ok(Member::default()) };
    let password = connect.password.as_ref().map(|password| std::str::from_utf8(password).unwrap_or_default());
    let token = password.or(bearer).ok_or(reason::NOT_AUTHORIZED)?;
    let keys = keys.get();
    let known = keys.judge(token, now_ms()).and_then(|grant| Ok((grant, keys.describe(token, now_ms())?)));
    let (grant, claims) = known.map_err(|why| {
        tracing::debug!(why, "token refused");
        reason::BAD_PASSWORD
    })?;
    Ok(Member { grant: Some(grant), name: name_of(&claims) })
}

/// Who a token names: its `sub`, else its `username`. A number is a name, too: else everybody who has one would be nobody.
fn name_of(claims: &Value) -> String {
    let name = |claim: &str| match claims.get(claim)? {
        Value::String(name) => Some(name.clone()),
        Value::Number(name) => Some(name.to_string()),
        _ => None,
    };
    name("sub").or_else(|| name("username")).unwrap_or_default()
}

/// What the client can take.
pub fn reader(connect: &Connect, grant: Option<Grant>) -> Reader {
    let metadata = connect.properties.user.iter().cloned().collect();
    let window = connect.properties.number(property::RECEIVE_MAXIMUM).unwrap_or(WINDOW).min(WINDOW);
    let max_packet = connect.properties.number(property::MAXIMUM_PACKET).unwrap_or(u32::MAX);
    Reader {
        version: connect.version,
        viewer: Arc::new(Viewer { metadata, ..Viewer::default() }),
        grant,
        window: window as usize,
        max_packet: max_packet as usize,
    }
}

/// How long the session is kept when the client goes.
pub fn expiry(connect: &Connect) -> Duration {
    match connect.version {
        Version::V4 if connect.clean => Duration::ZERO,
        Version::V4 => DEFAULT_EXPIRY,
        Version::V5 => Duration::from_secs(connect.properties.number(property::SESSION_EXPIRY).unwrap_or(0).into()),
    }
}

/// What a packet of a client may have, in bytes.
pub fn max_packet(site: &Site) -> usize {
    site.rules.max_message.saturating_add(BESIDE_PAYLOAD)
}

/// The CONNACK that lets a client in; `assigned` is the name that it was given, `expiry` how long its session is kept at
/// most, where that is less than it wants.
pub fn welcome(
    site: &Site,
    version: Version,
    present: bool,
    assigned: Option<&str>,
    expiry: Option<Duration>,
) -> BytesMut {
    let mut said = Vec::new();
    for (switch, value) in [
        (property::MAXIMUM_QOS, 1),
        (property::RETAIN_AVAILABLE, 0),
        (property::SUBSCRIPTION_IDS_AVAILABLE, 0),
        (property::SHARING_AVAILABLE, 0),
    ] {
        said.put_slice(&[switch, value]);
    }
    said.put_u8(property::MAXIMUM_PACKET);
    said.put_u32(u32::try_from(max_packet(site)).unwrap_or(u32::MAX));
    if let Some(name) = assigned {
        said.put_u8(property::ASSIGNED_CLIENT_ID);
        put_text(&mut said, name.as_bytes());
    }
    if let Some(expiry) = expiry {
        said.put_u8(property::SESSION_EXPIRY);
        said.put_u32(expiry.as_secs() as u32);
    }
    let mut out = BytesMut::new();
    write::connack(&mut out, version, present, reason::SUCCESS, &said);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_belongs_to_whom_the_token_names() {
        for (claims, name) in [
            (json!({"sub": "ada", "username": "bob"}), "ada"),
            (json!({"username": "bob"}), "bob"),
            (json!({"sub": null, "username": "bob"}), "bob"),
            (json!({"sub": ["ada"], "username": "bob"}), "bob"),
            (json!({"sub": 5}), "5"),
            (json!({"sub": {}}), ""),
            (json!({}), ""),
        ] {
            assert_eq!(name_of(&claims), name, "{claims}");
        }
    }
}
