//! `/circuit-breaker/NODE`: how an instance's circuit stands, and what came of asking the instance.

use super::super::{
    Registry,
    http::{Answer, Asked},
    node::Node,
};
use crate::balance::breaker::State;
use hyper::StatusCode;
use serde_json::{Value, json};

/// An unknown instance has failed nobody.
pub fn view(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let name = &asked.path[1];
    registry.act(|state, _| {
        let unknown = || {
            json!({
                "nodeId": name, "state": "closed", "failureCount": 0, "failures": 0, "lastFailure": 0, "nextTry": 0,
            })
        };
        (Ok(Answer::ok(&state.nodes.get(name).map_or_else(unknown, shown))), None)
    })?
}

pub fn report(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let success = asked.body.get("success").and_then(Value::as_bool);
    let success = success.ok_or_else(|| Answer::bad("success must be true or false"))?;
    registry.act(|state, now| match state.nodes.report(&asked.path[1], success, now) {
        Some((node, fact)) => (Ok(Answer::ok(&shown(node))), fact),
        None => (Err(Answer::error(StatusCode::NOT_FOUND, "Node not found")), None),
    })?
}

fn shown(node: &Node) -> Value {
    let state = match node.breaker.state() {
        State::HalfOpen => "half-open",
        other => other.name(),
    };
    let failures = node.breaker.failures();
    json!({
        "nodeId": *node.instance.node, "state": state, "failureCount": failures, "failures": failures,
        "lastFailure": node.last_failure, "nextTry": node.next_try,
    })
}
