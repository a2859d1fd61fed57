//! The programs of two tutorials about a registry's events: each runs as it stands, and shows what it is said to show.
//!
//! Each test runs the program in our words, and as it is printed, where that is at hand.

mod common;
mod services;
mod tutorial;

use common::{Running, Scratch, Wsevent, eventually, find_program, raw, root};
use serde_json::{Value, json};
use services::{get, post, register, registry, send, signed_in};
use tutorial::{Program, Tutorial};

/// Events over bare WebSockets, MQTT and HTTP.
const STREAMING: Tutorial = Tutorial("registry-event-streaming-tutorial.md");
/// Events with the clients' packages.
const REALTIME: Tutorial = Tutorial("registry-websocket-events-tutorial.md");

/// Our words, and what the tutorial prints.
fn both(own: &str, tutorial: Tutorial, printed: impl FnOnce(&[String]) -> String) -> Vec<Program> {
    let (ending, language) = if own.ends_with(".py") { ("py", "python") } else { ("cjs", "javascript") };
    let original = tutorial.programs(language).map(|programs| Program::printed(&printed(&programs), ending));
    [Program::own(own)].into_iter().chain(original).collect()
}

/// The same where what is printed is a part of a program that uses a client.
fn both_clients(own: &str, printed: impl FnOnce(&[String]) -> &str) -> Vec<Program> {
    both(own, REALTIME, |programs| {
        let part = printed(programs);
        let open = if part.contains("connect()") && part.contains("await") { "" } else { "await wsClient.connect();" };
        let new = match part.contains("new WebSocketClient") {
            true => "",
            false => "const wsClient = new WebSocketClient('ws://localhost:8080', jwtToken);",
        };
        let require = match part.contains("require(") {
            true => "",
            false => "const { WebSocketClient } = require('maxine-client');",
        };
        let watched = "['service_registered', 'service_heartbeat', 'service_unhealthy'].forEach((event) =>
            wsClient.on(event, ({ data }) => console.log(event, data.nodeId)));
            wsClient.on('subscribed', ({ filter }) => console.log('subscribed', JSON.stringify(filter)));";
        let watched = if new.is_empty() { "" } else { watched };
        format!("(async () => {{\n{require}\n{new}\n{watched}\n{part}\n{open}\n}})();")
    })
}

/// Waits until the program has said these, one behind the other, in letters of any size.
fn shows(program: &Running, words: &[&str]) {
    let in_order = |said: &str| {
        let mut rest = said;
        words.iter().all(|word| rest.split_once(&word.to_lowercase()).map(|(_, behind)| rest = behind).is_some())
    };
    let what = format!("{words:?}");
    let said = || program.stdout().to_lowercase();
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while !in_order(&said()) {
        assert!(std::time::Instant::now() < deadline, "{what} is not in {}\n{}", program.stdout(), program.stderr());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Waits until somebody listens.
fn listened(registry: &Running) {
    eventually("a listener", || (get(registry, "/metrics").1["wsConnections"] == 1).then_some(()));
}

/// Registers instances until the program says so: it may have to authenticate first.
fn heard(registry: &Running, program: &Running) {
    let mut ports = 1..;
    eventually("the first event", || {
        register(registry, "probe", ports.next()?);
        program.stdout().contains("probe").then_some(())
    });
}

fn deregister(registry: &Running, id: &str) {
    assert_eq!(send(registry, "DELETE", "/deregister", &json!({"nodeId": id})).1["success"], true);
}

fn beat(registry: &Running, id: &str) {
    assert_eq!(post(registry, "/heartbeat", &json!({"nodeId": id})).1["success"], true);
}

#[test]
fn a_connection_hears_each_of_the_nine_events_and_its_end() {
    for program in both("listen.cjs", STREAMING, |printed| printed[0].clone()) {
        let mut registry = registry("--breaker-failures 1 --breaker-base 10ms --breaker-cap 10ms");
        let running = program.run(&registry);
        shows(&running, &["connected"]);
        register(&registry, "my-service", 3000);
        let id = "my-service:localhost:3000";
        shows(&running, &["service_registered", "my-service", id, "timestamp"]);
        beat(&registry, id);
        shows(&running, &["service_heartbeat", id]);
        let config = json!({"serviceName": "my-service", "key": "k", "value": 1});
        assert_eq!(post(&registry, "/config/set", &config).0, 200);
        assert_eq!(send(&registry, "DELETE", "/config/delete", &config).0, 200);
        shows(&running, &["config_changed", "my-service", "config_deleted", "my-service"]);
        let circuit = format!("/circuit-breaker/{id}");
        assert_eq!(post(&registry, &circuit, &json!({"success": false})).0, 200);
        shows(&running, &["circuit_open", id, "circuit_half_open", id]);
        assert_eq!(post(&registry, &circuit, &json!({"success": true})).0, 200);
        shows(&running, &["circuit_closed", id]);
        deregister(&registry, id);
        shows(&running, &["service_deregistered", id]);
        let silent = json!({"serviceName": "my-service", "host": "localhost", "port": 3000, "ttl": 50});
        assert_eq!(post(&registry, "/register", &silent).0, 200);
        shows(&running, &["service_deregistered", "service_unhealthy", id]);
        registry.kill9();
        shows(&running, &["connection closed"]);
    }
}

#[test]
fn a_connection_authenticates() {
    for program in both("authenticate.cjs", STREAMING, |printed| printed[..2].concat()) {
        let scratch = Scratch::new();
        let registry = registry(&format!("--token-file {}", scratch.file("tokens", "your-jwt-token-here\n")));
        let running = program.run(&registry);
        shows(&running, &["authenticated successfully"]);
        register(&registry, "my-service", 3000);
        shows(&running, &["service_registered", "my-service:localhost:3000"]);
    }
}

#[test]
fn a_connection_asks_for_what_it_wants() {
    // Which wish, and which of the three events then are heard.
    let wishes = [
        ("all", [true, true, true]),
        ("service", [true, false, true]),
        ("event", [true, true, false]),
        ("nothing", [false; 3]),
    ];
    for (place, (wish, heard)) in wishes.into_iter().enumerate() {
        let printed = |printed: &[String]| {
            let one = printed[2].split("\n\n").nth(place).expect("a wish").to_owned();
            format!("{}\nws.on('open', () => {{\n{one}\n}});", printed[0])
        };
        for program in both("subscribe.cjs", STREAMING, printed) {
            let (registry, program) = (registry(""), program.arg(wish));
            let running = program.run(&registry);
            shows(&running, &[if wish == "nothing" { "unsubscribed" } else { "subscribed" }]);
            register(&registry, "my-service", 3000);
            register(&registry, "other", 3001);
            beat(&registry, "my-service:localhost:3000");
            let events = [
                ("service_registered", "my-service:"),
                ("service_registered", "other:"),
                ("service_heartbeat", "my-service:"),
            ];
            let wanted: Vec<&str> = events
                .iter()
                .zip(heard)
                .filter(|(_, heard)| *heard)
                .flat_map(|((event, id), _)| [*event, *id])
                .collect();
            shows(&running, &wanted);
            let (_, figures) = get(&registry, "/metrics");
            assert_eq!(figures["eventsBroadcasted"], 3);
            let times = running.stdout().matches("timestamp").count();
            assert_eq!(times, heard.iter().filter(|heard| **heard).count(), "{wish}: {}", running.stdout());
        }
    }
}

#[test]
fn an_mqtt_client_hears_without_a_broker() {
    for program in both("mqtt.cjs", STREAMING, |printed| printed[3].clone()) {
        let (registry, program) = (registry("--mqtt-listen localhost:0"), program.over_mqtt());
        let running = program.run(&registry);
        shows(&running, &["connected", "subscribed"]);
        register(&registry, "my-service", 3000);
        let id = "my-service:localhost:3000";
        shows(&running, &["maxine/registry/events/service_registered", "service_registered", id, "timestamp"]);
        deregister(&registry, id);
        shows(&running, &["maxine/registry/events/service_deregistered", "service_deregistered", id]);
    }
}

#[test]
fn what_was_missed_is_asked_for_by_http() {
    for program in both("history.cjs", STREAMING, |printed| printed[4].clone()) {
        let registry = registry("");
        (0..12).for_each(|port| register(&registry, "my-service", 3000 + port));
        let mut running = program.run(&registry);
        assert_eq!(running.wait(), 0, "{}", running.stderr());
        shows(&running, &["service_registered", "my-service:localhost:3002", "my-service:localhost:3011"]);
        assert_eq!(running.stdout().matches("timestamp").count(), 10);
        assert!(!running.stdout().contains("localhost:3001"), "the newest ten");
    }
}

#[test]
fn the_state_of_a_circuit_is_asked_for_by_http() {
    for program in both("circuit.cjs", STREAMING, |printed| printed[5].clone()) {
        let registry = registry("--breaker-failures 2 --breaker-base 1h --breaker-cap 1h");
        register(&registry, "my-service", 3000);
        for (failures, state) in [(0, "closed"), (1, "closed"), (2, "open")] {
            let mut running = program.run(&registry);
            assert_eq!(running.wait(), 0, "{}", running.stderr());
            shows(&running, &[&format!("state: '{state}'"), &format!("failurecount: {failures}")]);
            post(&registry, "/circuit-breaker/my-service:localhost:3000", &json!({"success": false}));
        }
    }
}

/// The port on which a program listens that says 3000.
fn port_of(program: &Running) -> u16 {
    eventually("the port", || {
        let said = program.stderr();
        said.lines().find_map(|line| line.strip_prefix("3000 is ")?.parse().ok())
    })
}

#[test]
fn a_dashboard_serves_what_it_hears() {
    for program in both("dashboard.cjs", STREAMING, |printed| printed[6].clone()) {
        let (registry, program) = (registry(""), program.helpers("broadcastToClients"));
        let running = program.run(&registry);
        shows(&running, &["dashboard", "listen"]);
        listened(&registry);
        let url = format!("http://localhost:{}/dashboard", port_of(&running));
        let services = || serde_json::from_slice::<Value>(&raw::get(&url).body).expect("JSON");
        assert_eq!(services(), json!({}));
        register(&registry, "my-service", 3000);
        eventually("a service", || services().get("my-service").map(drop));
        deregister(&registry, "my-service:localhost:3000");
        register(&registry, "other", 1);
        eventually("the other service", || services().get("other").map(drop));
    }
}

#[test]
fn a_client_hears_of_instances() {
    let helpers = "updateServiceList,removeServiceInstance,markInstanceUnhealthy";
    for program in both_clients("client.cjs", |printed| &printed[0]) {
        let scratch = Scratch::new();
        let (registry, token) = signed_in(&scratch, "");
        let program = program.token(&token).helpers(helpers);
        let running = program.run(&registry);
        heard(&registry, &running);
        register(&registry, "my-service", 3000);
        deregister(&registry, "my-service:localhost:3000");
        let silent = json!({"serviceName": "my-service", "host": "localhost", "port": 3001, "ttl": 50});
        assert_eq!(post(&registry, "/register", &silent).0, 200);
        shows(
            &running,
            &[
                "service registered: my-service",
                "service deregistered",
                "my-service:localhost:3000",
                "service unhealthy",
                "my-service:localhost:3001",
            ],
        );
        let twice = running.stdout().to_lowercase().matches("service registered: my-service").count();
        assert_eq!(twice, 2, "an event that two subscriptions name comes once: {}", running.stdout());
    }
}

#[test]
fn a_python_client_hears_of_instances() {
    for program in both("client.py", REALTIME, |_| REALTIME.programs("python").expect("there")[0].clone()) {
        let scratch = Scratch::new();
        let (registry, token) = signed_in(&scratch, "");
        let program = program.token(&token).helpers("update_dashboard,alert_ops_team");
        let running = program.run(&registry);
        heard(&registry, &running);
        for service in ["my-service", "critical-service"] {
            register(&registry, service, 3000);
            shows(&running, &[&format!("service registered: {service}")]);
        }
        deregister(&registry, "critical-service:localhost:3000");
        shows(&running, &["service down: critical-service:localhost:3000"]);
    }
}

#[test]
fn a_client_authenticates_by_itself() {
    let says = "wsClient.on('authenticated', ({ user }) => console.log('authenticated as', user.username));";
    let javascript = REALTIME.programs("javascript").map(|printed| {
        let text = format!("const {{ WebSocketClient }} = require('maxine-client');\n{}\n{says}", printed[1]);
        Program::printed(&format!("(async () => {{\n{text}\n}})();"), "cjs")
    });
    let says = "ws_client.on_event('authenticated', lambda said: print('authenticated as', said['user']['username']))";
    let python = REALTIME.programs("python").map(|printed| {
        Program::printed(&format!("from maxine_client import WebSocketClient\n{}\n{says}", printed[1]), "py")
    });
    let own = ["client.cjs", "client.py"].map(Program::own);
    for program in own.into_iter().chain(javascript).chain(python) {
        let scratch = Scratch::new();
        let (registry, token) = signed_in(&scratch, "");
        let program = program.token(&token);
        let running = program.run(&registry);
        shows(&running, &["authenticated as bob"]);
    }
}

#[test]
fn a_client_filters() {
    for program in both_clients("filters.cjs", |printed| &printed[2]) {
        let registry = registry("");
        let running = program.run(&registry);
        shows(&running, &["subscribed", "subscribed", "subscribed"]);
        for (service, port) in [("other", 1), ("my-api-service", 2)] {
            register(&registry, service, port);
            beat(&registry, &format!("{service}:localhost:{port}"));
        }
        for port in [3001, 3000] {
            let silent = json!({"serviceName": "my-service", "host": "localhost", "port": port, "ttl": 50});
            assert_eq!(post(&registry, "/register", &silent).0, 200);
            eventually("its end", || (get(&registry, "/health").1["nodes"] == 2).then_some(()));
        }
        shows(
            &running,
            &[
                "service_registered other:",
                "service_heartbeat my-api-service:localhost:2",
                "service_unhealthy my-service:localhost:3000",
            ],
        );
        for unwanted in ["service_heartbeat other", "service_unhealthy my-service:localhost:3001"] {
            assert!(!running.stdout().contains(unwanted), "{unwanted} in {}", running.stdout());
        }
    }
}

#[test]
fn a_client_gets_a_new_token() {
    for program in both_clients("refresh.cjs", |printed| &printed[3]) {
        let scratch = Scratch::new();
        let (registry, token) = signed_in(&scratch, "");
        let program = program.token(&token).helpers("updateStoredToken");
        let running = program.run(&registry);
        shows(&running, &["new token: ey", "updatestoredtoken"]);
        let line = running.stdout();
        let new =
            line.lines().find_map(|line| line.to_lowercase().starts_with("new token: ").then(|| line[11..].to_owned()));
        let new = new.expect("a token");
        assert_ne!(new, token);
        assert_eq!(post(&registry, "/refresh-token", &json!({"token": new})).0, 200, "it is good");
    }
}

#[test]
fn a_client_comes_back_beside_a_program_that_makes_it() {
    for program in both_clients("reconnect.cjs", |printed| &printed[4]) {
        let mut registry = registry("");
        let running = program.run(&registry);
        listened(&registry);
        registry.restart();
        shows(&running, &["connection closed, reconnecting..."]);
        listened(&registry);
        register(&registry, "my-service", 3000);
        shows(&running, &["reconnecting...", "service_registered my-service:localhost:3000"]);
    }
}

#[test]
fn a_grid_of_services_follows() {
    for program in both_clients("grid.cjs", |printed| &printed[5]) {
        let registry = registry("");
        let program = program.helpers("renderServiceGrid");
        let running = program.run(&registry);
        listened(&registry);
        register(&registry, "my-service", 3000);
        register(&registry, "my-service", 3001);
        let (first, second) = ("my-service:localhost:3000", "my-service:localhost:3001");
        shows(&running, &[&format!(r#"{{"my-service":["{first}","{second}"]}}"#)]);
        deregister(&registry, first);
        deregister(&registry, second);
        shows(&running, &[&format!(r#"[{{"my-service":["{second}"]}}]"#), "renderservicegrid [{}]"]);
    }
}

#[test]
fn a_client_hears_of_circuits() {
    for program in both_clients("circuits.cjs", |printed| &printed[6]) {
        let registry = registry("--breaker-failures 1 --breaker-base 10ms --breaker-cap 10ms");
        let program = program.helpers("showCircuitBreakerAlert,hideCircuitBreakerAlert");
        let running = program.run(&registry);
        listened(&registry);
        register(&registry, "my-service", 3000);
        let (id, circuit) = ("my-service:localhost:3000", "/circuit-breaker/my-service:localhost:3000");
        assert_eq!(post(&registry, circuit, &json!({"success": false})).0, 200);
        shows(&running, &["circuit opened for", id, "showcircuitbreakeralert", id]);
        eventually("half open", || (get(&registry, circuit).1["state"] == "half-open").then_some(()));
        assert_eq!(post(&registry, circuit, &json!({"success": true})).0, 200);
        shows(&running, &["circuit closed for", id, "hidecircuitbreakeralert", id]);
    }
}

#[test]
fn a_client_hears_of_configuration() {
    for program in both_clients("configs.cjs", |printed| &printed[7]) {
        let registry = registry("");
        let program = program.helpers("updateConfigCache");
        let running = program.run(&registry);
        listened(&registry);
        let config = json!({"serviceName": "my-service", "key": "colour", "value": "blue"});
        assert_eq!(post(&registry, "/config/set", &config).0, 200);
        shows(
            &running,
            &["config changed for my-service: colour = blue", r#"updateconfigcache ["my-service","colour","blue"]"#],
        );
    }
}

#[test]
fn a_page_shows_the_services_that_it_hears_of() {
    let scratch = Scratch::new();
    let (registry, token) = signed_in(&scratch, "");
    let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
    let page = root().join("tests/clients/tutorial/page.mjs");
    let own = format!("http://{}/-/healthz", registry.address());
    let url = format!("ws://{}", registry.address());
    let mut page = Wsevent::program(node).arg(page).args([own, url, token]).piped().start();
    shows(&page, &["authenticated"]);
    register(&registry, "my-service", 3000);
    register(&registry, "my-service", 3001);
    register(&registry, "other", 1);
    let (first, second) = ("my-service:localhost:3000", "my-service:localhost:3001");
    shows(&page, &[&format!("my-service {first} {second} | other other:localhost:1")]);
    deregister(&registry, "other:localhost:1");
    deregister(&registry, first);
    shows(&page, &["| other", &format!("shows my-service {second}\n")]);
    page.close_stdin();
    assert_eq!(page.wait(), 0);
}
