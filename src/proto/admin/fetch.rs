//! Another instance asked over HTTP: one small question, one bounded answer. Of a status also how long both were on
//! their way.

use crate::{net::Dialer, source::http::plain, units::now_us};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{fmt, time::Duration};
use tokio::task::JoinHandle;
use url::{Position, Url};

/// What an answer may have, in bytes: a long chain has many hops.
const MAX_ANSWER: usize = 4 << 20;

/// Why there is no status.
#[derive(Clone, Debug, PartialEq)]
pub enum Silence {
    /// Nobody answers there.
    Unreachable(String),
    /// 401 or 403.
    Refused(String),
    /// What answers is no instance of ours, or keeps its status to itself.
    NoStatus(String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Unreachable(why) | Silence::Refused(why) | Silence::NoStatus(why) => f.write_str(why),
        }
    }
}

/// An instance's status as it arrived.
#[derive(Debug)]
pub struct Told {
    /// The status, of whatever form: it is somebody else's.
    pub status: Value,
    /// By our clock, in Unix microseconds.
    pub sent: u64,
    /// The same.
    pub got: u64,
}

/// How far apart two instances are, from the four times of one exchange (RFC 5905 §8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// There and back, without the time that the other side took, in microseconds.
    pub round_trip: u64,
    /// The other clock less ours, in microseconds; off by half the round trip at most.
    pub clock: i64,
}

impl Told {
    /// `None` when the answer does not say its times.
    pub fn distance(&self) -> Option<Distance> {
        let time = |name: &str| self.status.get("clock")?.get(name)?.as_u64();
        Some(distance(self.sent, time("received")?, time("answered")?, self.got))
    }
}

fn distance(sent: u64, received: u64, answered: u64, got: u64) -> Distance {
    let there = received.wrapping_sub(sent).cast_signed();
    let back = answered.wrapping_sub(got).cast_signed();
    // Clocks may be stepped meanwhile.
    let round_trip = got.saturating_sub(sent).saturating_sub(answered.saturating_sub(received));
    Distance { round_trip, clock: there.midpoint(back) }
}

/// Where the instance behind a topic's URL tells its status.
pub fn status_url(topic: &Url, query: &[(&str, &str)]) -> Option<Url> {
    let topic = plain(topic);
    let scheme = if matches!(topic.scheme(), "wss" | "https") { "https" } else { "http" };
    let authority = &topic[Position::BeforeHost..Position::AfterPort];
    let mut url = Url::parse(&format!("{scheme}://{authority}/-/status")).ok()?;
    url.query_pairs_mut().extend_pairs(query);
    Some(url)
}

/// Asks for a status.
///
/// # Errors
/// Why there is none.
pub async fn ask(dialer: &Dialer, url: &Url, headers: &[(String, String)], wait: Duration) -> Result<Told, Silence> {
    let answer = tokio::time::timeout(wait, exchange(dialer, url, headers)).await;
    answer.unwrap_or_else(|_| Err(Silence::Unreachable(format!("no answer within {wait:.1?}"))))
}

async fn exchange(dialer: &Dialer, url: &Url, headers: &[(String, String)]) -> Result<Told, Silence> {
    let Exchange { response, sent, got, _driver } = send(dialer, url, headers).await?;
    Ok(Told { status: read(response).await?, sent, got })
}

/// A whole answer, whatever its status.
///
/// # Errors
/// Why there is none.
pub async fn get(dialer: &Dialer, url: &Url, headers: &[(String, String)]) -> Result<Response<Bytes>, Silence> {
    let Exchange { response, _driver, .. } = send(dialer, url, headers).await?;
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, whole(body).await?))
}

/// An answer's head, and when it came.
struct Exchange {
    response: Response<Incoming>,
    sent: u64,
    got: u64,
    _driver: Abort,
}

async fn send(dialer: &Dialer, url: &Url, headers: &[(String, String)]) -> Result<Exchange, Silence> {
    let unreachable = |error: &dyn fmt::Display| Silence::Unreachable(error.to_string());
    let io = dialer.dial(url).await.map_err(|error| unreachable(&error))?;
    let shake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = shake.map_err(|error| unreachable(&error))?;
    let _driver = Abort(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let request = request(url, headers)?;
    let sent = now_us();
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    Ok(Exchange { response, sent, got: now_us(), _driver })
}

/// Ends the connection's task with the question.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(url: &Url, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Silence> {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let mut request = Request::get(target).header(header::HOST, host).header(header::ACCEPT, "application/json");
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new()).map_err(|error| Silence::NoStatus(error.to_string()))
}

async fn read(response: Response<Incoming>) -> Result<Value, Silence> {
    let status = response.status();
    if !status.is_success() {
        let text = format!("the server answered {status} for its status");
        return Err(match status.as_u16() {
            401 | 403 => Silence::Refused(text),
            _ => Silence::NoStatus(text),
        });
    }
    let status: Option<Value> = serde_json::from_slice(&whole(response.into_body()).await?).ok();
    let ours = |status: &Value| status.get("instance").is_some_and(Value::is_string);
    status.filter(ours).ok_or_else(|| Silence::NoStatus("the answer is no status of ours".into()))
}

async fn whole(body: Incoming) -> Result<Bytes, Silence> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| Silence::NoStatus(error.to_string()))?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_tell_the_distance_whatever_the_clocks_say() {
        // 30 there, 100 of work, 20 back.
        for clock in [0, 5_000_000, -5_000_000] {
            let other = |us: u64| us.saturating_add_signed(clock);
            let distance = distance(10_000_000, other(10_000_030), other(10_000_130), 10_000_150);
            assert_eq!(distance.round_trip, 50);
            assert!((distance.clock - clock).abs() <= 25, "{distance:?}");
        }
    }

    #[test]
    fn the_status_is_beside_the_topic() {
        for (topic, status) in [
            ("ws://h/events", "http://h/-/status?chain=1"),
            ("wss://u:p@h:8443/a/b?x=1", "https://h:8443/-/status?chain=1"),
            ("sse+https://h/events", "https://h/-/status?chain=1"),
            ("http://[::1]:80/", "http://[::1]/-/status?chain=1"),
        ] {
            let url = Url::parse(topic).expect(topic);
            assert_eq!(status_url(&url, &[("chain", "1")]).expect(topic).as_str(), status);
        }
    }
}
