//! Instances: register, heartbeat, deregister, and who asks for them.

use super::super::{
    Registry, State,
    check::Checked,
    http::{Answer, Asked},
    node::{Moment, Node},
    pick::{self, Ask, pick},
    registration::Registration,
};
use crate::link::POSITION_HEADER;
use hyper::{
    StatusCode,
    header::{self, HeaderName},
};
use serde_json::{Value, json};

/// Where a list stands among the events: who watches from there misses nothing.
const POSITION: HeaderName = HeaderName::from_static(POSITION_HEADER);

pub fn register(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let registration = Registration::read(&asked.body).map_err(|wrong| {
        Answer::json(StatusCode::BAD_REQUEST, &json!({ "error": "Validation failed", "details": wrong }))
    })?;
    registry.act(|state, now| {
        let known = state.nodes.get(&registration.node_id()).is_some();
        if let Err(refusal) = if known { Ok(()) } else { registry.admit(state, asked, now) } {
            return (Err(refusal), None);
        }
        let (id, fact) = state.nodes.register(registration, now);
        (Ok(Answer::ok(&json!({ "nodeId": *id, "status": "registered" }))), fact)
    })?
}

impl Registry {
    /// `--register-rate`.
    fn admit(&self, state: &mut State, asked: &Asked, now: Moment) -> Result<(), Answer> {
        if self.settings.register_rate == 0 {
            return Ok(());
        }
        state.rates.take(asked.peer, self.settings.register_rate, now.at).map_err(|wait| {
            let refusal = Answer::error(StatusCode::TOO_MANY_REQUESTS, "Too many registrations");
            refusal.with(header::RETRY_AFTER, &wait.as_secs_f64().ceil().to_string())
        })
    }
}

pub fn heartbeat(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let name = node_id(asked)?;
    registry.act(|state, now| {
        let fact = state.nodes.beat(&name, now);
        (Ok(success(fact.is_some())), fact)
    })?
}

pub fn deregister(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let name = node_id(asked)?;
    registry.act(|state, _| {
        let fact = state.nodes.deregister(&name);
        (Ok(success(fact.is_some())), fact)
    })?
}

/// Keeps an instance, but sends nobody there, or ends that.
pub fn maintenance(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let name = node_id(asked)?;
    let on = asked.body.get("maintenance").and_then(Value::as_bool);
    let on = on.ok_or_else(|| Answer::bad("maintenance must be true or false"))?;
    registry.act(|state, _| (Ok(success(state.nodes.set_maintenance(&name, on))), None))?
}

pub fn record_response_time(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let name = node_id(asked)?;
    let ms = asked.body.get("responseTime").and_then(Value::as_f64).filter(|ms| *ms >= 0.0);
    let ms = ms.ok_or_else(|| Answer::bad("Missing responseTime"))?;
    registry.act(|state, _| (Ok(success(state.nodes.note_response_time(&name, ms))), None))?
}

/// `nodeId` in the body or the query string, else `serviceName` and `nodeName` (`host:port`, or the id).
fn node_id(asked: &Asked) -> Result<String, Answer> {
    let text = |name: &str| {
        let said = asked.body.get(name).and_then(Value::as_str);
        said.or_else(|| asked.param(name)).filter(|text| !text.is_empty())
    };
    let by_name = || {
        let (service, node) = text("serviceName").zip(text("nodeName"))?;
        let prefix = format!("{service}:");
        Some(if node.starts_with(&prefix) { node.to_owned() } else { prefix + node })
    };
    text("nodeId").map(String::from).or_else(by_name).ok_or_else(|| Answer::bad("Missing nodeId"))
}

fn success(success: bool) -> Answer {
    Answer::ok(&json!({ "success": success }))
}

pub fn discover(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let peer = asked.peer.to_string();
    let strategy = asked.param("loadBalancing").or_else(|| asked.param("strategy")).unwrap_or("");
    let client = if strategy == "ip-hash" { None } else { asked.param("clientId") };
    let ask = Ask {
        service: service_name(asked)?,
        version: asked.param("version"),
        tags: asked.param("tags").unwrap_or("").split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect(),
        strategy,
        client: client.unwrap_or(&peer),
    };
    registry.act(|state, _| {
        let answer = match pick(&mut state.nodes, &ask, Node::is_available, rand::random) {
            Some(node) => {
                let id = &*node.instance.node;
                Answer::ok(&json!({ "address": node.address, "nodeName": id, "nodeId": id, "healthy": true }))
            }
            None => Answer::missing("Service unavailable"),
        };
        (Ok(answer), None)
    })?
}

fn service_name(asked: &Asked) -> Result<&str, Answer> {
    asked.param("serviceName").ok_or_else(|| Answer::bad("Missing serviceName"))
}

/// The services' names.
pub fn servers(registry: &Registry, _: &Asked) -> Result<Answer, Answer> {
    registry.list(|state| {
        let names: Vec<&str> = state.nodes.services().keys().map(|name| &**name).collect();
        Ok(json!({ "services": names }))
    })
}

/// The services with all their instances.
pub fn services(registry: &Registry, _: &Asked) -> Result<Answer, Answer> {
    registry.list(|state| {
        let all: Vec<Value> = state.nodes.services().keys().filter_map(|name| with_instances(state, name)).collect();
        Ok(json!({ "services": all }))
    })
}

/// One service with its instances.
pub fn service(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let unknown = || Answer::error(StatusCode::NOT_FOUND, "Service not found");
    registry.list(|state| with_instances(state, &asked.path[1]).ok_or_else(unknown))
}

impl Registry {
    /// A list and its position are one look, also where there is nothing to list.
    fn list(&self, look: impl FnOnce(&State) -> Result<Value, Answer>) -> Result<Answer, Answer> {
        self.act(|state, _| {
            let position = self.topic.log.last().map(|id| id.to_string()).unwrap_or_default();
            let placed = |answer: Answer| answer.with(POSITION, &position);
            (look(state).map(|list| placed(Answer::ok(&list))).map_err(placed), None)
        })?
    }
}

fn with_instances(state: &State, service: &str) -> Option<Value> {
    let instances: Vec<Value> = state.nodes.of(service)?.map(shown).collect();
    Some(json!({ "serviceName": service, "instances": instances }))
}

fn shown(node: &Node) -> Value {
    let id = &*node.instance.node;
    let mut view = json!({
        "nodeId": id, "address": node.address, "nodeName": id, "metadata": node.metadata,
        "lastHeartbeat": node.heard.ms, "healthy": node.is_available(), "maintenance": node.maintenance,
    });
    if let Some(Checked { at, fault }) = &node.checked {
        view["check"] = json!({ "healthy": fault.is_none(), "at": at, "error": fault });
    }
    view
}

pub fn versions(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let service = service_name(asked)?;
    let versions = pick::versions(&registry.state().nodes, service);
    Ok(Answer::ok(&json!({ "serviceName": service, "versions": versions })))
}

/// One instance.
pub fn health(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    registry.act(|state, now| {
        let answer = state.nodes.get(&asked.path[1]).map(|node| {
            let mut view = shown(node);
            view["serviceName"] = (*node.instance.service).into();
            view["timeSinceLastHeartbeat"] = (now.at.duration_since(node.heard.at).as_millis() as u64).into();
            view["responseTime"] = node.response_time.into();
            Answer::ok(&view)
        });
        (answer.ok_or_else(|| Answer::error(StatusCode::NOT_FOUND, "Node not found")), None)
    })?
}
