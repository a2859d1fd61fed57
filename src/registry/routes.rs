//! What can be asked of the registry, by path and method.

mod circuits;
mod configs;
mod figures;
mod instances;

use super::{
    Registry, access,
    http::{Answer, Asked},
};
use hyper::{Method, StatusCode, header};

type Handler = fn(&Registry, &Asked) -> Result<Answer, Answer>;
type Handlers = &'static [(&'static str, Handler)];

/// Answers what is asked.
pub fn answer(registry: &Registry, method: &Method, asked: &Asked) -> Answer {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    let Some(handlers) = handlers(&path) else { return Answer::missing("Not found") };
    // The body of an answer to HEAD is left out by the server.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    match handlers.iter().find(|(known, _)| *known == method) {
        Some((_, handle)) => handle(registry, asked).unwrap_or_else(|refusal| refusal),
        None => {
            let known: Vec<&str> = handlers.iter().map(|(known, _)| *known).collect();
            let refusal = Answer::error(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
            refusal.with(header::ALLOW, &known.join(", "))
        }
    }
}

fn handlers(path: &[&str]) -> Option<Handlers> {
    let found: Handlers = match path {
        ["register"] => &[("POST", instances::register)],
        ["heartbeat"] => &[("POST", instances::heartbeat)],
        ["deregister"] => &[("DELETE", instances::deregister), ("POST", instances::deregister)],
        ["maintenance"] => &[("POST", instances::maintenance)],
        ["record-response-time"] => &[("POST", instances::record_response_time)],
        ["discover"] => &[("GET", instances::discover)],
        ["servers"] => &[("GET", instances::servers)],
        ["services"] => &[("GET", instances::services)],
        ["services", _] => &[("GET", instances::service)],
        ["versions"] => &[("GET", instances::versions)],
        ["health"] => &[("GET", figures::health)],
        ["health", _] => &[("GET", instances::health)],
        ["metrics"] => &[("GET", figures::metrics)],
        ["refresh-token"] => &[("POST", access::refresh)],
        ["config", "set"] => &[("POST", configs::set)],
        ["config", "get"] => &[("GET", configs::get)],
        ["config", "all"] => &[("GET", configs::all)],
        ["config", "delete"] => &[("DELETE", configs::delete)],
        ["circuit-breaker", _] => &[("GET", circuits::view), ("POST", circuits::report)],
        // Signing in is slow: it is done elsewhere.
        ["signin"] => &[("POST", |_, _| Err(Answer::missing("Not found")))],
        _ => return None,
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{super::http::OPENAPI, *};
    use serde_json::Value;

    #[test]
    fn what_is_documented_is_there_with_all_its_methods() {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        for (path, methods) in paths.iter().filter(|(path, _)| *path != "/events" && !path.starts_with("/proxy/")) {
            let segments: Vec<&str> = path[1..].split('/').collect();
            let mut there: Vec<String> = handlers(&segments)
                .unwrap_or_else(|| panic!("nothing at {path}"))
                .iter()
                .map(|(method, _)| method.to_lowercase())
                .collect();
            let mut documented: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
            there.sort();
            documented.sort();
            assert_eq!(documented, there, "{path}");
        }
    }
}
