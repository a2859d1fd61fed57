//! The WebSocket at `/graphql`: many operations on one connection (subprotocol `graphql-transport-ws`, the PROTOCOL.md of
//! graphql-ws).

use super::{
    Asker, Subscriptions,
    document::Request,
    http::{Body, Door},
    operation::{Operation, Told},
    shared::MAX_OPERATIONS,
};
use crate::{
    audience,
    link::EXPIRED,
    proto::{
        auth,
        subscribe::{self, Refusal, query_pairs},
        wire::Wire,
        ws::frame::code,
    },
    site::Site,
};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

const SUBPROTOCOL: &str = "graphql-transport-ws";
/// How long a client may take to say `connection_init`.
const INIT_WAIT: Duration = Duration::from_secs(3);
/// Results that wait for the socket; then operations wait, each behind its cursor.
const WAITING: usize = 16;

/// How a connection is closed: the protocol's codes, and its words.
type Close = (u16, &'static str);

const BAD: Close = (4400, "Invalid message");
const UNAUTHORIZED: Close = (4401, "Unauthorized");
const LATE: Close = (4408, "Connection initialisation timeout");
const TAKEN: Close = (4409, "Subscriber already exists");
const TWICE: Close = (4429, "Too many initialisation requests");
const RESTART: Close = (code::RESTART, "restart");
const GONE: Close = (code::POLICY, EXPIRED);

/// Accepts the WebSocket; it lives in a task of its own.
///
/// # Errors
/// When this is no good handshake.
pub fn open(
    site: &Arc<Site>,
    graphql: &Arc<Subscriptions>,
    parts: &Parts,
    door: Door,
) -> Result<Response<Body>, Refusal> {
    if !subscribe::has_token(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the subprotocol here is {SUBPROTOCOL}")));
    }
    let mut headers = HeaderMap::new();
    subscribe::upgrade(parts, false, &mut headers)?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let asker = Asker { since: None, ..Asker::new(parts, &audience::from_query(query_pairs(parts)), Wire::Ws) };
    let (site, graphql, ends) = (site.clone(), graphql.clone(), auth::expiry(parts));
    tokio::spawn(async move {
        let Ok(upgraded) = door.upgrade.await else { return };
        let max = site.rules.max_message;
        let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
        let line = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let counted = site.tasks.enter();
        Session::new(line, graphql, asker).run(&site, ends).await;
        drop((door.permit, counted));
    });
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Resolves then; never without a time.
pub async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// What an operation has to say: its id, its number, and that.
type Said = (String, u64, Told);

struct Session {
    line: WebSocketStream<TokioIo<Upgraded>>,
    graphql: Arc<Subscriptions>,
    asker: Asker,
    /// By id; the number tells apart those that had the same one.
    operations: HashMap<String, (u64, AbortHandle)>,
    begun: u64,
    told: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
    is_acknowledged: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.operations.values().for_each(|(_, operation)| operation.abort());
    }
}

impl Session {
    fn new(line: WebSocketStream<TokioIo<Upgraded>>, graphql: Arc<Subscriptions>, asker: Asker) -> Self {
        let (told, said) = mpsc::channel(WAITING);
        let operations = HashMap::new();
        Session { line, graphql, asker, operations, begun: 0, told, said, is_acknowledged: false }
    }

    async fn run(mut self, site: &Arc<Site>, ends: Option<Instant>) {
        let patience = site.tasks.tuning().ping_interval;
        let mut pings = tokio::time::interval(patience);
        let (mut heard, late) = (Instant::now(), Instant::now() + INIT_WAIT);
        let leaves = site.turn_to_leave();
        tokio::pin!(leaves);
        loop {
            let next = tokio::select! {
                message = self.line.next() => match message {
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        self.hear(message)
                    }
                    Some(Err(_)) | None => return,
                },
                Some(said) = self.said.recv() => Ok(self.pass_on(said)),
                _ = pings.tick() => {
                    if heard.elapsed() > 3 * patience {
                        return;
                    }
                    Ok(Some(Message::Ping(Default::default())))
                }
                () = until(Some(late)), if !self.is_acknowledged => Err(LATE),
                () = until(ends) => Err(GONE),
                () = &mut leaves => Err(RESTART),
            };
            let sent = match next {
                Ok(None) => continue,
                Ok(Some(message)) => timeout(3 * patience, self.line.send(message)).await,
                Err(close) => return self.close(close).await,
            };
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn close(mut self, (code, reason): Close) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let goodbye = async {
            let _ = self.line.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = self.line.next().await {}
        };
        let _ = timeout(INIT_WAIT, goodbye).await;
    }

    /// What is answered, or how it must be closed.
    fn hear(&mut self, message: Message) -> Result<Option<Message>, Close> {
        let text = match &message {
            Message::Text(text) => text.as_str(),
            Message::Binary(_) => return Err(BAD),
            _ => return Ok(None),
        };
        let said: Value = serde_json::from_str(text).map_err(|_| BAD)?;
        match said.get("type").and_then(Value::as_str) {
            Some("connection_init") if self.is_acknowledged => Err(TWICE),
            Some("connection_init") => {
                self.is_acknowledged = true;
                Ok(Some(message_of(&json!({ "type": "connection_ack" }))))
            }
            Some("ping") => Ok(Some(message_of(&json!({ "type": "pong" })))),
            Some("pong") => Ok(None),
            Some("subscribe") if !self.is_acknowledged => Err(UNAUTHORIZED),
            Some("subscribe") => self.subscribe(id_of(&said)?, said.get("payload").unwrap_or(&Value::Null)),
            Some("complete") => {
                if let Some((_, operation)) = self.operations.remove(id_of(&said)?) {
                    operation.abort();
                }
                Ok(None)
            }
            _ => Err(BAD),
        }
    }

    fn subscribe(&mut self, id: &str, payload: &Value) -> Result<Option<Message>, Close> {
        if self.operations.contains_key(id) {
            return Err(TAKEN);
        }
        let request = Request::from_json(payload).map_err(|_| BAD)?;
        let begun = match self.operations.len() {
            MAX_OPERATIONS.. => Err(format!("there are {MAX_OPERATIONS} operations on this connection")),
            _ => self.graphql.begin(&self.asker, &request),
        };
        let (operation, _) = match begun {
            Ok(begun) => begun,
            Err(why) => return Ok(Some(error_of(id, &why))),
        };
        self.begun += 1;
        let running = tokio::spawn(pump(operation, self.told.clone(), id.to_owned(), self.begun));
        self.operations.insert(id.to_owned(), (self.begun, running.abort_handle()));
        Ok(None)
    }

    /// Nothing of an operation that was completed by its client.
    fn pass_on(&mut self, (id, number, told): Said) -> Option<Message> {
        self.operations.get(&id).filter(|(known, _)| *known == number)?;
        if !matches!(told, Told::Next(..)) {
            self.operations.remove(&id);
        }
        Some(match told {
            Told::Next(_, result) => {
                Message::text(format!(r#"{{"id":{},"type":"next","payload":{result}}}"#, Value::from(id)))
            }
            Told::Error(why) => error_of(&id, &why),
            Told::Slow => error_of(&id, "too slow: events were lost"),
            Told::Complete => message_of(&json!({ "id": id, "type": "complete" })),
        })
    }
}

async fn pump(mut operation: Operation, to: mpsc::Sender<Said>, id: String, number: u64) {
    loop {
        let told = operation.next().await;
        let goes_on = matches!(told, Told::Next(..));
        if to.send((id.clone(), number, told)).await.is_err() || !goes_on {
            return;
        }
    }
}

fn id_of(said: &Value) -> Result<&str, Close> {
    said.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).ok_or(BAD)
}

fn message_of(value: &Value) -> Message {
    Message::text(value.to_string())
}

fn error_of(id: &str, why: &str) -> Message {
    message_of(&json!({ "id": id, "type": "error", "payload": [{ "message": why }] }))
}
