//! What somebody wants to know of our status.

use crate::{
    id::Id,
    link::PATH_HEADER,
    proto::subscribe::{Refusal, query_pairs},
    units,
};
use hyper::{StatusCode, http::request::Parts};
use std::time::Duration;

/// How long a whole chain is waited for, unless asked otherwise, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(3);
const MAX_WAIT: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug)]
pub struct Asked {
    /// Also the hops up to the origin.
    pub chain: bool,
    /// How long these may take.
    pub wait: Duration,
    /// Instances that this question has passed, the first asked first.
    pub path: Vec<String>,
    /// When this event of that topic arrived here.
    pub arrival: Option<(String, Id)>,
}

impl Asked {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 with the parameter's name.
    pub fn read(parts: &Parts) -> Result<Self, Refusal> {
        let invalid = |name: &str| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid {name}"));
        let path = parts.headers.get(PATH_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("");
        let path = path.split(',').filter(|hop| !hop.is_empty()).map(String::from).collect();
        let mut asked = Asked { chain: false, wait: DEFAULT_WAIT, path, arrival: None };
        let (mut topic, mut at) = (None, None);
        for (name, value) in query_pairs(parts) {
            match name.as_str() {
                "chain" => asked.chain = matches!(value.as_str(), "1" | "true"),
                "wait" => asked.wait = units::duration(&value).map_err(|_| invalid("wait"))?.min(MAX_WAIT),
                "topic" => topic = Some(value),
                "at" => at = Some(Id::parse(&value).ok_or_else(|| invalid("at"))?),
                _ => {}
            }
        }
        asked.arrival = topic.zip(at);
        Ok(asked)
    }
}
