//! The router: decides once per request which part of the server answers it, and which right that needs.
//!
//! `listen` asks for the first request of a connection and `http` for every other one, so that both always agree, and
//! [`auth::authorize`](super::auth::authorize) checks the right that stands in the decision. Nothing else may decide
//! either of the two.

use super::{
    mqtt,
    subscribe::{self, is_preflight, wants_websocket},
    wire::Wire,
};
use crate::{
    balance::Balancer,
    graphql::{self, Subscriptions},
    registry::{self, Registry},
    script,
    site::Site,
};
use hyper::{Method, http::request::Parts};
use std::sync::Arc;

/// The prefix of wsevent's own paths.
const OWN_PREFIX: &str = "/-/";
/// Paths that tell anybody whether the process is well.
const PUBLIC_PATHS: [&str; 2] = ["/-/healthz", "/-/readyz"];

/// The decision about one request.
pub struct Route<'a> {
    /// The part of the server that answers.
    pub owner: Owner<'a>,
    /// The right that the request needs.
    pub access: RouteAccess,
}

/// The part of the server that answers a request.
pub enum Owner<'a> {
    /// The endpoints under `/-/`.
    Admin,
    /// A script's handler.
    Script,
    /// GraphQL operations. Only scripts name subscriptions.
    #[cfg_attr(not(feature = "script"), allow(dead_code))]
    Graphql(&'a Arc<Subscriptions>),
    /// A back end of the balancer.
    Balancer(&'a Arc<Balancer>),
    /// MQTT over WebSocket.
    Mqtt,
    /// An instance of a registered service, at `/proxy/NAME`.
    ServiceProxy(&'a Arc<Registry>),
    /// The HTTP API of the registry.
    Registry(&'a Arc<Registry>),
    /// A stream of a topic; with a registry, the WebSocket at `/` that clients speak with it on.
    Stream(Wire, Option<&'a Arc<Registry>>),
    /// Everything else about a topic, or a static file: history, publishing, preflights, 404 and 405.
    Topic,
}

/// The right that a request needs where access is controlled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RouteAccess {
    /// Nothing.
    Public,
    /// To read the path.
    Subscribe,
    /// To publish to the path.
    Publish,
    /// To change what a registry knows.
    Write,
    /// Nothing yet: the token may follow on the connection, and nothing is told before it.
    Deferred,
}

/// Decides about a request. Waits only for a balancer that does not know its back ends' kind yet.
pub async fn route<'a>(site: &'a Site, parts: &Parts) -> Route<'a> {
    let (path, method) = (parts.uri.path(), &parts.method);
    if path.starts_with(OWN_PREFIX) && site.topic(path).is_none() {
        return admin_route(parts);
    }
    // Before scripts: a client that offers the subprotocol can use no other answer.
    if site.balancer.is_none() && !path.starts_with(OWN_PREFIX) && mqtt::upgrade::is_offered(parts) {
        return Route { owner: Owner::Mqtt, access: RouteAccess::Deferred };
    }
    if script::http::has_route(site, parts) {
        return Route { owner: Owner::Script, access: access_by_method(method, RouteAccess::Publish) };
    }
    if let Some(graphql) = site.graphql.as_ref().filter(|_| graphql::http::is_endpoint(path)) {
        // Every method reads; which topics, is judged operation by operation as well.
        let preflight = *method == Method::OPTIONS;
        let access = if preflight { RouteAccess::Public } else { RouteAccess::Subscribe };
        return Route { owner: Owner::Graphql(graphql), access };
    }
    if let Some(balancer) = &site.balancer
        && balancer.relays(parts).await
    {
        let access =
            if is_preflight(parts) { RouteAccess::Public } else { access_by_method(method, RouteAccess::Publish) };
        return Route { owner: Owner::Balancer(balancer), access };
    }
    if let Some(registry) = &site.registry
        && let Some(route) = registry_route(site, registry, parts)
    {
        return route;
    }
    topic_route(site, parts)
}

fn admin_route<'a>(parts: &Parts) -> Route<'a> {
    let public = parts.method == Method::OPTIONS || PUBLIC_PATHS.contains(&parts.uri.path());
    let access = if public { RouteAccess::Public } else { RouteAccess::Subscribe };
    Route { owner: Owner::Admin, access }
}

/// A registry has every path but those of topics; preflights of its API are answered as for topics.
fn registry_route<'a>(site: &Site, registry: &'a Arc<Registry>, parts: &Parts) -> Option<Route<'a>> {
    let path = parts.uri.path();
    if path == "/" && wants_websocket(parts) {
        let owner = Owner::Stream(Wire::Ws, Some(registry));
        return Some(Route { owner, access: RouteAccess::Deferred });
    }
    if path.starts_with(OWN_PREFIX) || site.topic(path).is_some() {
        return None;
    }
    let proxied = registry::proxy::is_service_path(path);
    if parts.method == Method::OPTIONS && !proxied {
        return None;
    }
    let owner = if proxied { Owner::ServiceProxy(registry) } else { Owner::Registry(registry) };
    let protected = registry::http::is_protected(registry, parts);
    Some(Route { owner, access: if protected { RouteAccess::Write } else { RouteAccess::Public } })
}

fn topic_route<'a>(site: &Site, parts: &Parts) -> Route<'a> {
    if let Some(wire) = subscribe::wire_here(site, parts) {
        return Route { owner: Owner::Stream(wire, None), access: RouteAccess::Subscribe };
    }
    let access = match parts.method {
        Method::OPTIONS => RouteAccess::Public,
        Method::POST => RouteAccess::Publish,
        // Everything else is answered 404 or 405, which says what is there.
        _ => RouteAccess::Subscribe,
    };
    Route { owner: Owner::Topic, access }
}

/// Reading needs the right to read, everything else `otherwise`.
fn access_by_method(method: &Method, otherwise: RouteAccess) -> RouteAccess {
    if matches!(*method, Method::GET | Method::HEAD) { RouteAccess::Subscribe } else { otherwise }
}
