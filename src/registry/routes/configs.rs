//! `/config/…`: what services are configured with.

use super::super::{
    Registry,
    events::Fact,
    http::{Answer, Asked},
};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub fn set(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let (service, key) = named(asked)?;
    let value = asked.body.get("value").cloned().ok_or_else(|| Answer::bad("Missing value"))?;
    let metadata = match asked.body.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        Some(_) => return Err(Answer::bad("metadata must be an object")),
    };
    let (service, key): (Arc<str>, _) = (service.into(), key.to_owned());
    registry.act(|state, now| {
        let entry = state.configs.set(&service, key.clone(), value, metadata, now.ms);
        (Ok(Answer::ok(&entry.to_json())), Some(Fact::ConfigChanged(service, key, entry)))
    })?
}

pub fn get(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let (service, key) = named(asked)?;
    registry.state().configs.get(service, key).map(|entry| Answer::ok(&entry.to_json())).ok_or_else(unknown)
}

pub fn all(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let service = asked.param("serviceName").ok_or_else(|| Answer::bad("Missing serviceName"))?;
    let state = registry.state();
    let entries = state.configs.all(service).map(|(key, entry)| (key.clone(), entry.to_json()));
    Ok(Answer::ok(&Value::Object(entries.collect())))
}

pub fn delete(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let (service, key) = named(asked)?;
    registry.act(|state, _| match state.configs.delete(service, key) {
        true => {
            let fact = Fact::ConfigDeleted(service.into(), key.to_owned());
            (Ok(Answer::ok(&json!({ "success": true }))), Some(fact))
        }
        false => (Err(unknown()), None),
    })?
}

/// Service and key, from the query string or the body.
fn named(asked: &Asked) -> Result<(&str, &str), Answer> {
    let text = |name: &str| {
        let said = asked.body.get(name).and_then(Value::as_str);
        said.or_else(|| asked.param(name)).filter(|text| !text.is_empty())
    };
    text("serviceName").zip(text("key")).ok_or_else(|| Answer::bad("Missing serviceName or key"))
}

fn unknown() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "Config not found")
}
