//! The registry as its users see it: commands over HTTP, facts on every protocol.

mod common;
mod services;

use common::{
    Running, eventually,
    raw::{self, Frame, Raw, TEXT},
    reader::Reader,
};
use serde_json::{Value, json};
use services::{answered, ask, at, get, history, listener, next, post, register, registry, send, timeless, told};

#[test]
fn instances_come_beat_and_go_and_each_change_is_told_once() {
    let registry = registry("");
    register(&registry, "web", 3000);
    register(&registry, "web", 3000);
    let id = json!({"nodeId": "web:localhost:3000"});
    assert_eq!(post(&registry, "/heartbeat", &id), (200, json!({"success": true})));
    assert_eq!(post(&registry, "/heartbeat", &json!({"nodeId": "localhost:3000"})).1, json!({"success": true}));
    assert_eq!(post(&registry, "/heartbeat", &json!({"nodeId": "no"})), (200, json!({"success": false})));
    assert_eq!(send(&registry, "DELETE", "/deregister", &id), (200, json!({"success": true})));
    assert_eq!(send(&registry, "DELETE", "/deregister", &id), (200, json!({"success": false})));
    register(&registry, "web", 1);
    let by_name = json!({"serviceName": "web", "nodeName": "localhost:1"});
    assert_eq!(post(&registry, "/deregister", &by_name), (200, json!({"success": true})));
    register(&registry, "web", 2);
    assert_eq!(send(&registry, "DELETE", "/deregister?nodeId=web:localhost:2", &json!({})).1["success"], true);
    let expected = [
        told("service_registered", "web", 3000),
        told("service_heartbeat", "web", 3000),
        told("service_heartbeat", "web", 3000),
        told("service_deregistered", "web", 3000),
        told("service_registered", "web", 1),
        told("service_deregistered", "web", 1),
        told("service_registered", "web", 2),
        told("service_deregistered", "web", 2),
    ];
    assert_eq!(history(&registry), expected);
}

#[test]
fn instances_are_found_by_service_version_and_tag() {
    let registry = registry("");
    for (port, version, tags) in [(1, "1.0", json!(["a"])), (2, "1.0", json!(["a", "b"])), (3, "2.0", json!(null))] {
        let body = json!({
            "serviceName": "web", "host": "10.0.0.1", "port": port, "metadata": {"version": version}, "tags": tags,
        });
        assert_eq!(post(&registry, "/register", &body).0, 200);
    }
    let address = |query: &str| get(&registry, &format!("/discover?serviceName=web{query}")).1["address"].clone();
    let round: Vec<Value> = (0..4).map(|_| address("")).collect();
    assert_eq!(json!(round), json!(["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:1"]));
    assert_eq!(address("&version=latest"), "10.0.0.1:3");
    assert_eq!(address("&tags=a,b"), "10.0.0.1:2");
    assert_eq!(address("&loadBalancing=consistent-hash&clientId=x"), address("&strategy=consistent-hash&clientId=x"));
    let (status, found) = get(&registry, "/discover?serviceName=web&version=2.0");
    let id = "web:10.0.0.1:3";
    assert_eq!((status, found), (200, json!({"address": "10.0.0.1:3", "nodeName": id, "nodeId": id, "healthy": true})));
    for path in ["/discover?serviceName=no", "/discover?serviceName=web&tags=z", "/discover?serviceName=web&version=9"]
    {
        assert_eq!(get(&registry, path), (404, json!({"message": "Service unavailable"})), "{path}");
    }
    assert_eq!(get(&registry, "/discover"), (400, json!({"error": "Missing serviceName"})));
    assert_eq!(get(&registry, "/servers"), (200, json!({"services": ["web"]})));
    let versions = json!({"serviceName": "web", "versions": ["1.0", "2.0"]});
    assert_eq!(get(&registry, "/versions?serviceName=web"), (200, versions));
    assert_eq!(get(&registry, "/health"), (200, json!({"status": "ok", "services": 1, "nodes": 3})));
    let (_, service) = get(&registry, "/services/web");
    assert_eq!((&service["serviceName"], service["instances"].as_array().map(Vec::len)), (&json!("web"), Some(3)));
    assert_eq!(service["instances"][1]["metadata"], json!({"version": "1.0", "tags": ["a", "b"]}));
    assert_eq!(get(&registry, "/services/no").0, 404);
    let (_, node) = get(&registry, "/health/web%3A10.0.0.1%3A3");
    assert_eq!((&node["nodeId"], &node["healthy"], &node["serviceName"]), (&json!(id), &json!(true), &json!("web")));
    assert_eq!(get(&registry, "/health/no"), (404, json!({"error": "Node not found"})));
    assert_eq!(post(&registry, "/maintenance", &json!({"nodeId": id, "maintenance": true})).1["success"], true);
    assert_eq!(get(&registry, "/discover?serviceName=web&version=2.0").0, 404);
}

#[test]
fn configuration_is_versioned_and_told() {
    let registry = registry("");
    let set = |value: Value| {
        let body = json!({"serviceName": "a", "key": "k", "value": value, "metadata": {"by": "me"}});
        post(&registry, "/config/set", &body)
    };
    for (version, value) in (1..).zip([json!(0), json!(false), json!(""), json!(null), json!({"x": [1]}), json!("v")]) {
        let (status, entry) = set(value.clone());
        assert_eq!((status, &entry["value"], &entry["version"]), (200, &value, &json!(version)));
        assert!(entry["updatedAt"].is_u64() && entry["metadata"] == json!({"by": "me"}));
    }
    assert_eq!(get(&registry, "/config/get?serviceName=a&key=k").1["value"], "v");
    assert_eq!(get(&registry, "/config/all?serviceName=a").1["k"]["version"], 6);
    assert_eq!(get(&registry, "/config/all?serviceName=b"), (200, json!({})));
    let missing = (404, json!({"error": "Config not found"}));
    assert_eq!(get(&registry, "/config/get?serviceName=a&key=no"), missing);
    assert_eq!(send(&registry, "DELETE", "/config/delete?serviceName=a&key=k", &json!({})).1["success"], true);
    assert_eq!(send(&registry, "DELETE", "/config/delete", &json!({"serviceName": "a", "key": "k"})), missing);
    assert_eq!(set(json!(1)).1["version"], 1, "a deleted key begins anew");
    let events = history(&registry);
    let data = json!({"serviceName": "a", "key": "k", "value": "v", "version": 6, "metadata": {"by": "me"}});
    assert_eq!(events[5], json!({"event": "config_changed", "data": data}));
    assert_eq!(events[6], json!({"event": "config_deleted", "data": {"serviceName": "a", "key": "k"}}));
    assert_eq!(events.len(), 8);
}

#[test]
fn who_falls_silent_is_removed_and_told_once() {
    let registry = registry("--heartbeat-timeout 300ms");
    register(&registry, "web", 1);
    let lasting = json!({"serviceName": "web", "host": "localhost", "port": 2, "ttl": 3_600_000});
    assert_eq!(post(&registry, "/register", &lasting).0, 200);
    eventually("the expiry", || (history(&registry).len() == 3).then_some(()));
    assert_eq!(history(&registry)[2], told("service_unhealthy", "web", 1));
    assert_eq!(post(&registry, "/heartbeat", &json!({"nodeId": "web:localhost:1"})).1, json!({"success": false}));
    assert_eq!(get(&registry, "/health").1["nodes"], 1);
    assert_eq!(history(&registry).len(), 3);
}

#[test]
fn a_circuit_opens_by_reports_half_opens_by_time_and_closes() {
    let registry = registry("--breaker-failures 2 --breaker-base 50ms --breaker-cap 100ms");
    register(&registry, "web", 1);
    let path = "/circuit-breaker/web:localhost:1";
    let report = |success: bool| post(&registry, path, &json!({"success": success}));
    let state = || get(&registry, path).1["state"].clone();
    let closed = json!({
        "nodeId": "web:localhost:1", "state": "closed", "failureCount": 0, "failures": 0, "lastFailure": 0, "nextTry": 0,
    });
    assert_eq!(get(&registry, path), (200, closed));
    assert_eq!(report(false).1["failureCount"], 1);
    let (status, opened) = report(false);
    assert_eq!((status, &opened["state"], &opened["failures"]), (200, &json!("open"), &json!(2)));
    assert!(opened["nextTry"].as_u64() > opened["lastFailure"].as_u64());
    eventually("half open by time", || (state() == "half-open").then_some(()));
    assert_eq!(get(&registry, "/discover?serviceName=web").0, 200);
    assert_eq!(report(true).1["state"], "closed");
    assert_eq!(report(true).1["state"], "closed");
    let of = &told("", "web", 1)["data"];
    let mut opened = of.clone();
    opened["failures"] = json!(2);
    let events = history(&registry).split_off(1);
    let names = ["circuit_open", "circuit_half_open", "circuit_closed"];
    let expected: Vec<Value> =
        names.iter().zip([&opened, of, of]).map(|(name, data)| json!({"event": name, "data": data})).collect();
    assert_eq!(events, expected);
    assert_eq!(get(&registry, "/circuit-breaker/no:h:1").1["state"], "closed");
    assert_eq!(post(&registry, "/circuit-breaker/no:h:1", &json!({"success": true})).0, 404);
    assert_eq!(post(&registry, path, &json!({"success": "yes"})).0, 400);
}

#[test]
fn nobody_is_sent_to_an_open_circuit() {
    let registry = registry("--breaker-failures 1 --breaker-base 1h --breaker-cap 1h");
    register(&registry, "web", 1);
    assert_eq!(post(&registry, "/circuit-breaker/localhost:1", &json!({"success": false})).1["state"], "open");
    assert_eq!(get(&registry, "/discover?serviceName=web").0, 404);
    assert_eq!(get(&registry, "/services/web").1["instances"][0]["healthy"], false);
}

#[tokio::test]
async fn a_listener_hears_everything_until_it_says_what_it_wants() {
    let registry = registry("");
    let mut fresh = listener(&registry).await;
    let mut choosy = listener(&registry).await;
    let filter = json!({"event": "service_registered", "serviceName": "api"});
    assert_eq!(ask(&mut choosy, json!({"subscribe": filter})).await, json!({"type": "subscribed", "filter": filter}));
    assert_eq!(ask(&mut choosy, json!({"subscribe": {"event": "config_changed"}})).await["type"], "subscribed");
    // Its place is known before anything happens.
    assert_eq!(ask(&mut fresh, json!({"auth": "whatever"})).await["user"], json!({"role": "anonymous"}));
    register(&registry, "web", 1);
    register(&registry, "api", 2);
    post(&registry, "/heartbeat", &json!({"nodeId": "api:localhost:2"}));
    post(&registry, "/config/set", &json!({"serviceName": "web", "key": "k", "value": 1}));
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(timeless(&next(&mut fresh).await)["event"].clone());
    }
    assert_eq!(
        json!(heard),
        json!(["service_registered", "service_registered", "service_heartbeat", "config_changed"])
    );
    assert_eq!(timeless(&next(&mut choosy).await), told("service_registered", "api", 2));
    assert_eq!(next(&mut choosy).await["event"], "config_changed");

    assert_eq!(ask(&mut fresh, json!({"unsubscribe": true})).await, json!({"type": "unsubscribed"}));
    register(&registry, "web", 3);
    assert_eq!(ask(&mut fresh, json!({"subscribe": true})).await["filter"], true);
    register(&registry, "web", 4);
    assert_eq!(timeless(&next(&mut fresh).await), told("service_registered", "web", 4));
}

#[tokio::test]
async fn nonsense_on_the_websocket_is_answered_and_ends_nothing() {
    let registry = registry("");
    let mut reader = listener(&registry).await;
    for message in ["x", "", "5", "null", "[]", "{}", r#"{"subscribe":null}"#, r#"{"subscribe":false}"#] {
        reader.send(message).await;
        assert_eq!(next(&mut reader).await, json!({"type": "error", "message": "Invalid message format"}), "{message}");
    }
    let refused = ask(&mut reader, json!({"refresh_token": true})).await;
    assert_eq!(refused, json!({"type": "error", "message": "Not authenticated"}));
    for n in 0..1000 {
        reader.send(json!({"subscribe": {"nodeId": n.to_string()}}).to_string()).await;
    }
    for _ in 0..1000 {
        assert_eq!(next(&mut reader).await["type"], "subscribed");
    }
    assert_eq!(ask(&mut reader, json!({"subscribe": {"nodeId": "one more"}})).await["type"], "error");
    // A neighbour that breaks the protocol loses its own connection only.
    let mut rude = Raw::websocket(&at(&registry, "/"));
    rude.send_frame(&Frame { masked: false, ..Frame::new(TEXT, "{}") });
    assert_eq!(rude.read_close().map(|close| close.close_code()), Some(1002));
    let mut rude = Raw::websocket(&at(&registry, "/"));
    rude.send_frame(&Frame::new(TEXT, [0xff]));
    assert_eq!(rude.read_close().map(|close| close.close_code()), Some(1007));
    assert_eq!(ask(&mut reader, json!({"unsubscribe": true})).await["type"], "unsubscribed");
}

#[tokio::test]
async fn the_topic_is_the_same_on_every_protocol() {
    let registry = registry("");
    let mut plain = Reader::open(registry.url()).await;
    let mut root = listener(&registry).await;
    assert_eq!(ask(&mut root, json!({"subscribe": {}})).await["type"], "subscribed");
    register(&registry, "web", 1);
    let text = plain.text().await;
    assert_eq!(root.text().await, text);
    let mut sse = Raw::connect("localhost", registry.port());
    sse.send("GET /events?since=oldest HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    sse.read_until(&format!("data: {text}"));
    let events = get(&registry, "/events").1;
    assert_eq!(events[0].to_string(), text);
    let time = events[0]["timestamp"].as_u64().expect("a time");
    assert_eq!(get(&registry, &format!("/events?since={time}")), (200, json!([])), "exclusive");
    assert_eq!(get(&registry, &format!("/events?since={}", time - 1)).1.as_array().map(Vec::len), Some(1));
    assert_eq!(get(&registry, "/events?limit=0"), (200, json!([])));
    for path in ["/events?since=x", "/events?limit=x", "/events?limit=-1"] {
        assert_eq!(get(&registry, path).0, 400, "{path}");
    }
    // A list knows its position, and from there nothing is missed.
    let list = raw::get(&at(&registry, "/servers"));
    let position = list.header("wsevent-position").expect("a position").to_owned();
    register(&registry, "web", 2);
    let after = get(&registry, &format!("/events?after={position}")).1;
    assert_eq!(timeless(&after[0]), told("service_registered", "web", 2));
}

#[test]
fn bad_input_is_answered_and_changes_nothing() {
    let registry = registry("");
    let deep = "[".repeat(100_000);
    for body in ["{", "null", "[]", "5", "\"x\"", "\u{1}", deep.as_str(), r#"{"serviceName":"a","host":"h","port":1}x"#]
    {
        for path in ["/register", "/heartbeat", "/deregister", "/config/set", "/circuit-breaker/a:h:1"] {
            let (status, answer) = answered(&raw::post(&at(&registry, path), body));
            assert_eq!((status, answer), (400, json!({"error": "Invalid JSON"})), "{path} {}", &body[..1]);
        }
    }
    let wrong = [
        json!({}),
        json!({"serviceName": null, "host": "h", "port": 1}),
        json!({"serviceName": "a:b", "host": "h", "port": 1}),
        json!({"serviceName": "a", "host": "h", "port": 65536}),
        json!({"serviceName": "a", "host": "h", "port": "1"}),
        json!({"serviceName": "a", "host": "h", "port": -1}),
        json!({"serviceName": {"a": 1}, "host": ["h"], "port": true}),
        json!({"serviceName": "a", "host": "h", "port": 1, "metadata": "x"}),
        json!({"serviceName": "a", "host": "h", "port": 1, "ttl": 1e30}),
    ];
    for body in wrong {
        let (status, answer) = post(&registry, "/register", &body);
        assert_eq!((status, &answer["error"]), (400, &json!("Validation failed")), "{body}");
    }
    for (path, body, error) in [
        ("/heartbeat", json!({}), "Missing nodeId"),
        ("/heartbeat", json!({"nodeId": 5}), "Missing nodeId"),
        ("/deregister", json!({"nodeId": null}), "Missing nodeId"),
        ("/config/set", json!({"serviceName": "a", "value": 1}), "Missing serviceName or key"),
        ("/config/set", json!({"serviceName": "a", "key": "k"}), "Missing value"),
        ("/record-response-time", json!({"nodeId": "a:h:1"}), "Missing responseTime"),
    ] {
        assert_eq!(post(&registry, path, &body), (400, json!({"error": error})), "{path} {body}");
    }
    assert_eq!(get(&registry, "/nowhere"), (404, json!({"message": "Not found"})));
    let refused = raw::get(&at(&registry, "/register"));
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    assert_eq!(history(&registry), Vec::<Value>::new());
    assert_eq!(get(&registry, "/health").1["nodes"], 0);
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let registry = registry("");
    assert_eq!(raw::post(&at(&registry, "/register"), vec![b' '; 10_000_000]).status, 413);
    let mut raw = Raw::connect("localhost", registry.port());
    raw.send("POST /register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n");
    assert_eq!(raw.read_head().status, 413);
    register(&registry, "web", 1);
}

#[test]
fn new_registrations_are_limited_by_address() {
    let registry = registry("--register-rate 1");
    let try_port = |port: u16| {
        let body = json!({"serviceName": "a", "host": "h", "port": port}).to_string();
        raw::post(&at(&registry, "/register"), body)
    };
    assert_eq!(try_port(1).status, 200);
    let mut ports = 2..;
    let mut next = || try_port(ports.next().expect("a port"));
    let refused = eventually("a refusal", || Some(next()).filter(|answer| answer.status == 429));
    assert_eq!((refused.header("retry-after"), try_port(1).status), (Some("1"), 200), "it is there already");
}

#[test]
fn figures_are_for_people_and_for_prometheus() {
    let registry = registry("");
    register(&registry, "web", 1);
    let (_, figures) = get(&registry, "/metrics");
    assert_eq!((&figures["services"], &figures["nodes"], &figures["errors"]), (&json!(1), &json!(1), &json!(0)));
    assert!(figures["uptime"].is_f64() && figures["requests"].as_u64() >= Some(1));
    let text = raw::request("GET", &at(&registry, "/metrics"), "Accept: text/plain\r\n", b"");
    assert!(text.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{text:?}");
    assert!(text.text().contains("\nwsevent_registry_nodes 1\n"), "{}", text.text());
}

#[test]
fn the_api_describes_itself() {
    let registry = registry("");
    let (status, document) = get(&registry, "/-/openapi.json");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let path = path.replace("{serviceName}", "web").replace("{nodeId}", "web:h:1");
            let answer = raw::request(&method.to_uppercase(), &at(&registry, &path), "", b"");
            let documented =
                &document["paths"][&path.replace("/web:h:1", "/{nodeId}").replace("/web", "/{serviceName}")];
            let statuses = documented[method]["responses"].as_object().expect("responses");
            assert!(statuses.contains_key(&answer.status.to_string()), "{method} {path}: {answer:?}");
            asked += 1;
        }
    }
    assert!(asked > 20);
    let producer = common::Wsevent::line("").serve();
    assert_eq!(producer.own("openapi.json").status, 404);
}

#[test]
fn a_page_of_another_origin_may_do_nothing_unless_it_is_allowed() {
    let closed = registry("");
    let body = json!({"serviceName": "a", "host": "h", "port": 1}).to_string();
    let from_page = |registry: &Running| {
        raw::request("POST", &at(registry, "/register"), "Origin: http://evil.example\r\n", body.as_bytes())
    };
    assert_eq!(from_page(&closed).status, 403);
    assert_eq!(get(&closed, "/health").1["nodes"], 0);
    let open = registry("--allow-origin http://evil.example");
    let answer = from_page(&open);
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (200, Some("http://evil.example")));
    let asked = "Origin: http://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n";
    let preflight = raw::request("OPTIONS", &at(&open, "/deregister"), asked, b"");
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("DELETE")));
}
