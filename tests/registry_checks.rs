//! Instances that a registry asks whether they are well.

mod balancer;
mod common;
mod services;

use balancer::nobody;
use common::{
    Running, Wsevent, eventually,
    raw::{Server, split_url},
};
use serde_json::{Value, json};
use services::{get, history, post, registry};

fn port(address: &str) -> u16 {
    split_url(&format!("http://{address}/")).1
}

/// Registers an instance that is to be asked every second.
fn checked(registry: &Running, port: u16, url: Option<String>) {
    let check = json!({"url": url, "interval": 1000, "timeout": 500});
    let body = json!({"serviceName": "web", "host": "localhost", "port": port, "metadata": {"healthCheck": check}});
    assert_eq!(post(registry, "/register", &body).0, 200);
}

fn node(registry: &Running, port: u16) -> Value {
    get(registry, &format!("/health/web:localhost:{port}")).1
}

/// Waits until an instance was asked, and says what it answered.
fn asked(registry: &Running, port: u16) -> Value {
    eventually("a check", || Some(node(registry, port)["check"].clone()).filter(|check| !check.is_null()))
}

#[test]
fn each_kind_of_check_finds_who_is_well() {
    let registry = registry("--breaker-failures 1 --breaker-base 1h --breaker-cap 1h");
    let answering =
        |status: &str| port(&Server::new().answer_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")));
    let silent = Server::new();
    let (well, ill, dead) = (answering("204 Well"), answering("500 Ill"), port(&nobody()));
    let tcp = |port: u16| Some(format!("tcp://localhost:{port}"));
    let listening = Server::new();
    for (port, url, healthy) in [
        (well, None, true),
        (ill, Some("/up".to_owned()), false),
        (dead, None, false),
        (port(&silent.address()), None, false),
        (port(&listening.address()), tcp(port(&listening.address())), true),
        // Who is asked need not be the instance itself.
        (1, tcp(well), true),
        (2, tcp(dead), false),
        (3, Some(format!("http://localhost:{well}/deep")), true),
    ] {
        checked(&registry, port, url);
        let check = asked(&registry, port);
        assert_eq!((&check["healthy"], check["error"].is_null()), (&json!(healthy), healthy), "{port} {check}");
        assert!(check["at"].as_u64() > Some(0));
        assert_eq!(node(&registry, port)["healthy"], healthy);
    }
    let opened = history(&registry).iter().filter(|event| event["event"] == "circuit_open").count();
    assert_eq!(opened, 4);
    let unchecked = json!({"serviceName": "web", "host": "localhost", "port": 4});
    assert_eq!(post(&registry, "/register", &unchecked).0, 200);
    assert!(node(&registry, 4)["check"].is_null());
}

#[test]
fn who_is_well_again_is_found_again() {
    let registry = registry("--breaker-failures 2 --breaker-base 10ms --breaker-cap 10ms");
    let dead = port(&nobody());
    checked(&registry, dead, Some("/-/healthz".into()));
    let state = || get(&registry, &format!("/circuit-breaker/web:localhost:{dead}")).1;
    eventually("an open circuit", || (state()["failures"].as_u64() >= Some(2)).then_some(()));
    let mut risen = Wsevent::new(["--no-produce", "--serve-address", &format!("localhost:{dead}")]).serve();
    eventually("a closed circuit", || (state()["state"] == "closed").then_some(()));
    assert_eq!(history(&registry).last().map(|event| &event["event"]), Some(&json!("circuit_closed")));
    risen.kill9();
    eventually("a failed check", || (state()["failures"].as_u64() > Some(0)).then_some(()));
}

#[test]
fn a_check_that_means_nothing_is_refused() {
    let registry = registry("");
    for check in [json!("x"), json!({"url": "ftp://h/"}), json!({"interval": 1}), json!({"timeout": "5s"})] {
        let body = json!({"serviceName": "web", "host": "h", "port": 1, "metadata": {"healthCheck": check}});
        let (status, answer) = post(&registry, "/register", &body);
        assert_eq!((status, &answer["error"]), (400, &json!("Validation failed")), "{check}");
    }
}
