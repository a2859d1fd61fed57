//! Who is there by somebody else's word: the instances that a registry lists, the addresses that a name stands for.

mod balancer;
mod common;
mod names;
mod services;

use balancer::{forwarder, hub, producer, read_by, readers, ready, status};
use common::{
    Running, Scratch, Wsevent, binary, eventually,
    raw::{self, Raw},
};
use names::name_server;
use serde_json::json;
use services::{get, post, registry};
use std::process::Command;

/// In front of the service `web`, whose instances are whole servers, or have a topic at this path.
fn in_front_of_web(registry: &Running, topic: &str, options: &str) -> Running {
    let service = format!("registry+http://{}/web{topic}", registry.address());
    Wsevent::new(["--balance", &service]).args(options.split_whitespace()).serve()
}

fn register(registry: &Running, instance: &Running) {
    services::register(registry, "web", instance.port());
}

fn deregister(registry: &Running, instance: &Running) {
    let id = json!({"nodeId": format!("web:{}", instance.address())});
    assert_eq!(post(registry, "/deregister", &id), (200, json!({"success": true})));
}

/// Waits until these are the back ends, in this order.
fn there_are(balancer: &Running, instances: &[&Running], path: &str) {
    let wanted: Vec<_> = instances.iter().map(|instance| format!("http://{}{path}", instance.address())).collect();
    eventually(&format!("the back ends {wanted:?}"), || {
        let backends = status(balancer)["balancer"]["backends"].clone();
        let urls = backends.as_array().into_iter().flatten().map(|backend| backend["url"].clone());
        (json!(urls.collect::<Vec<_>>()) == json!(wanted)).then_some(())
    });
}

#[test]
fn who_is_registered_is_a_back_end_until_it_is_not() {
    let registry = registry("--heartbeat-timeout 2s");
    let (a, b) = (producer(), producer());
    let balancer = in_front_of_web(&registry, "", "");
    let answer = raw::get(balancer.url());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let lasting = |instance: &Running, weight: u32| {
        let metadata = json!({ "weight": weight });
        let port = instance.port();
        let body =
            json!({"serviceName": "web", "host": "localhost", "port": port, "ttl": 3_600_000, "metadata": metadata});
        assert_eq!(post(&registry, "/register", &body).0, 200);
    };
    services::register(&registry, "other", 1);
    lasting(&a, 1);
    there_are(&balancer, &[&a], "");
    let mut early = Raw::websocket(balancer.url());
    lasting(&b, 3);
    there_are(&balancer, &[&a, &b], "");
    assert_eq!(balancer::backend(&balancer, &b.address())["weight"], 3.0);
    deregister(&registry, &a);
    there_are(&balancer, &[&b], "");
    let late = Raw::websocket(balancer.url());
    b.has("readers", 1);
    assert!(early.read_message().is_some(), "who was there stays");
    drop(late);
    // This one is never heard of again, and expires.
    services::register(&registry, "web", 1);
    let news = || raw::get(&format!("http://{}/-/balancer", balancer.address())).text();
    eventually("the new one", || news().contains("http://localhost:1\"").then_some(()));
    there_are(&balancer, &[&b], "");
    hears(&balancer, true);
}

/// Waits until the balancer hears its registry's events, or until it does not.
fn hears(balancer: &Running, wanted: bool) {
    let state = || status(balancer)["balancer"]["registry"]["state"].clone();
    eventually("word from the registry", || ((state() == "connected") == wanted).then_some(()));
}

fn count(balancer: &Running) -> usize {
    status(balancer)["balancer"]["backends"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_registry_that_is_away_changes_nothing() {
    let scratch = Scratch::new();
    let mut registry = registry(&format!("--journal {}", scratch.arg("journal")));
    let (a, b, c) = (producer(), producer(), producer());
    register(&registry, &a);
    let balancer = in_front_of_web(&registry, "", "");
    ready(&balancer);
    there_are(&balancer, &[&a], "");
    hears(&balancer, true);
    registry.kill9();
    hears(&balancer, false);
    assert_eq!(raw::get(balancer.url()).status, 200);
    registry.start_again();
    register(&registry, &b);
    there_are(&balancer, &[&a, &b], "");
    deregister(&registry, &a);
    there_are(&balancer, &[&b], "");
    // One without a past: nobody is registered there any more.
    registry.kill9();
    let port = registry.port();
    let anew = Wsevent::line(&format!("--registry --mqtt-listen off --serve-address localhost:{port}")).serve();
    assert_eq!(get(&anew, "/health").1["nodes"], 0);
    register(&anew, &c);
    there_are(&balancer, &[&c, &b], "");
    assert_eq!(raw::get(balancer.url()).status, 200);
}

#[test]
fn a_balancer_waits_for_its_registry() {
    let mut registry = registry("");
    registry.kill9();
    let balancer = in_front_of_web(&registry, "", "");
    assert_eq!(balancer.own("readyz").status, 503);
    let a = producer();
    registry.start_again();
    register(&registry, &a);
    there_are(&balancer, &[&a], "");
    ready(&balancer);
    assert_eq!(raw::get(balancer.url()).status, 200);
}

#[test]
fn readers_of_a_topic_do_not_notice_that_instances_come_and_go() {
    let (registry, hub) = (registry(""), hub());
    let balancer = in_front_of_web(&registry, "/events", "");
    let mut forwarders = [forwarder(&hub), forwarder(&hub), forwarder(&hub)];
    register(&registry, &forwarders[0]);
    ready(&balancer);
    assert_eq!(status(&balancer)["balancer"]["mode"], "stream");
    let mut socket = Raw::websocket(balancer.url());
    readers(&balancer, 1);
    for round in 1..=3 {
        let read = read_by(&balancer, &mut forwarders).url().to_owned();
        let (gone, others): (Vec<_>, Vec<_>) = forwarders.iter().partition(|forwarder| forwarder.url() == read);
        others.iter().for_each(|other| register(&registry, other));
        eventually("all back ends", || (count(&balancer) == 3).then_some(()));
        deregister(&registry, gone[0]);
        eventually("another one", || (read_by(&balancer, &mut forwarders).url() != read).then_some(()));
        assert_eq!(raw::post(hub.url(), round.to_string()).status, 200);
        assert_eq!(socket.read_message().expect("no disconnect").text(), round.to_string());
    }
    assert_eq!(balancer::topic(&balancer)["gaps"], 0);
}

#[test]
fn a_protected_registry_is_shown_a_token() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "lister-of-the-tests\n");
    let registry = registry(&format!("--token-file {tokens}"));
    let a = producer();
    let balancer = in_front_of_web(&registry, "", &format!("--balance-registry-token-file {tokens}"));
    hears(&balancer, true);
    register(&registry, &a);
    there_are(&balancer, &[&a], "");
    assert_eq!(raw::get(balancer.url()).status, 200);
}

/// A balancer that asks this name server, as its `/etc/resolv.conf` says; none where this user may not change that.
fn asking(name_server: &str, scratch: &Scratch, backend: &str, options: &str) -> Option<Running> {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: this user may not mount anything on this machine");
        return None;
    }
    let file = scratch.file("resolv.conf", format!("nameserver {name_server}\n"));
    let line = format!("mount --bind {file} /etc/resolv.conf && exec \"$0\" \"$@\"");
    let balancer = Wsevent::program("unshare").args(["--mount", "sh", "-c", &line]).arg(binary());
    Some(balancer.args(["--balance", backend]).args(options.split_whitespace()).serve())
}

#[test]
fn each_address_of_a_name_is_a_back_end() {
    let (scratch, pid) = (Scratch::new(), std::process::id());
    let address = format!("127.1.{}.{}", pid / 256 % 256, pid % 256);
    let hosts = |addresses: &[&str]| {
        let lines: Vec<String> = addresses.iter().map(|address| format!("{address} web.test\n")).collect();
        scratch.file("hosts", lines.concat())
    };
    let known = format!("--addn-hosts={}", hosts(&["127.0.0.1"]));
    let Some(mut server) = name_server(&address, &[&known]) else { return };
    let a = Wsevent::line("--serve-address 127.0.0.1:0").serve();
    let port = a.port();
    let [b, c] = ["127.0.0.2", "127.0.0.3"].map(|ip| Wsevent::line(&format!("--serve-address {ip}:{port}")).serve());
    let Some(balancer) = asking(&address, &scratch, &format!("web.test:{port}"), "--balance-lookup 100ms") else {
        return;
    };
    let there_are = |wanted: &[&str]| {
        eventually(&format!("the addresses {wanted:?}"), || {
            let backends = status(&balancer)["balancer"]["backends"].clone();
            let found = backends.as_array().into_iter().flatten().map(|backend| backend["address"].clone());
            (json!(found.collect::<Vec<_>>()) == json!(wanted)).then_some(())
        });
    };
    there_are(&["127.0.0.1"]);
    let mut early = Raw::websocket(balancer.url());
    hosts(&["127.0.0.3", "127.0.0.2"]);
    server.signal("HUP");
    there_are(&["127.0.0.2", "127.0.0.3"]);
    let late = [Raw::websocket(balancer.url()), Raw::websocket(balancer.url())];
    b.has("readers", 1);
    c.has("readers", 1);
    assert!(early.read_message().is_some(), "who was there stays");
    a.has("readers", 1);
    // The name is gone, then there is nobody to ask: nothing changes.
    hosts(&[]);
    server.signal("HUP");
    balancer.said("back ends stay as they are");
    server.kill9();
    assert_eq!(raw::get(balancer.url()).status, 200);
    there_are(&["127.0.0.2", "127.0.0.3"]);
    drop(late);
}
