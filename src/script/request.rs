//! A request as a handler sees it.

use super::forms;
use crate::graphql::Call;
use hyper::{HeaderMap, Method, http::request::Parts};
use serde_json::{Map, Value, json};

/// The argument of a handler's call, as JSON.
///
/// # Errors
/// What is wrong with a form.
pub fn call(parts: &Parts, body: &[u8], script: &str, handler: &str) -> Result<String, &'static str> {
    let mut request = json!({
        "path": parts.uri.path(),
        "method": parts.method.as_str(),
        "headers": headers(&parts.headers),
        "query": forms::pairs(parts.uri.query().unwrap_or_default().as_bytes()),
        "form": forms::fields(&parts.headers, body)?,
    });
    if !body.is_empty() {
        request["body"] = String::from_utf8_lossy(body).into();
    }
    let call = json!({
        "kind": "httpRoute",
        "scriptUri": script,
        "handlerName": handler,
        "request": request,
    });
    Ok(call.to_string())
}

/// The argument of a resolver's call, as JSON.
pub fn subscription_call(asked: &Call, script: &str, resolver: &str) -> String {
    let call = json!({
        "kind": "graphqlSubscription",
        "scriptUri": script,
        "handlerName": resolver,
        "args": asked.args,
        "request": {
            "path": asked.path,
            "method": asked.method.as_str(),
            "headers": headers(&asked.headers),
            "query": asked.query,
            "form": {},
        },
    });
    call.to_string()
}

/// Whether a request with this method has a body that a handler wants.
pub fn has_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// By their names in lower case; repeated ones as one list.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let values = |name| headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let list = |name| values(name).collect::<Vec<_>>().join(", ");
    headers.keys().map(|name| (name.as_str().to_owned(), list(name).into())).collect()
}
