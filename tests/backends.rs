//! Who is there and who is well: lists that change, checks, cookies, and streams that move to where there is room.

mod balancer;
mod common;

use balancer::{backend, count_to, forwarder, hub, in_front_of, producer, publish, read_by, readers, status};
use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Raw, Server},
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// In front of what a file lists.
fn listed(file: &str, options: &str) -> Running {
    Wsevent::new(["--balance-file", file]).args(options.split_whitespace()).serve()
}

fn reload(balancer: &Running, file: &str, lines: &[String]) {
    fs::write(file, lines.join("\n")).expect("write the list");
    balancer.signal("HUP");
}

fn count(balancer: &Running) -> usize {
    status(balancer)["balancer"]["backends"].as_array().map_or(0, Vec::len)
}

/// Where a request goes, by the number of those that each has taken.
fn taken(balancer: &Running, address: &str) -> u64 {
    backend(balancer, address)["taken"].as_u64().expect("a number")
}

#[test]
fn a_list_of_back_ends_is_read_again() {
    let (a, b) = (producer(), producer());
    let scratch = Scratch::new();
    let file = scratch.file("list", format!("# one\n{}\n", a.address()));
    let balancer = listed(&file, "");
    let mut early = Raw::websocket(balancer.url());
    assert!(early.read_message().is_some());
    reload(&balancer, &file, &[a.address(), format!("{} weight=3", b.address())]);
    eventually("two back ends", || (count(&balancer) == 2).then_some(()));
    let crowd: Vec<Raw> = (0..8).map(|_| Raw::websocket(balancer.url())).collect();
    assert_eq!(backend(&balancer, &b.address())["active"], 6);
    reload(&balancer, &file, &["nonsense here".into()]);
    balancer.said("line 1");
    assert_eq!(count(&balancer), 2);
    reload(&balancer, &file, &[b.address()]);
    eventually("one back end", || (count(&balancer) == 1).then_some(()));
    drop(crowd);
    let late: Vec<Raw> = (0..3).map(|_| Raw::websocket(balancer.url())).collect();
    b.has("readers", 3);
    assert!(early.read_message().is_some(), "who was there stays");
    drop(late);
    let news = raw::get(&format!("http://{}/-/balancer", balancer.address())).text();
    assert!(news.contains("backend_added") && news.contains("backend_removed"), "{news}");
}

#[test]
fn who_fails_its_checks_is_left_out_until_it_passes_them() {
    let (a, mut b) = (producer(), producer());
    let ill = Server::new().answer_all("HTTP/1.1 500 Ill\r\nContent-Length: 0\r\n\r\n");
    let balancer = in_front_of(
        [&a.address(), &b.address(), &ill],
        "--health-path /-/healthz --health-interval 100ms --health-fall 2 --health-rise 2",
    );
    let healthy = |address: &str, wanted: bool| {
        eventually("a judgement", || (backend(&balancer, address)["healthy"] == wanted).then_some(()));
    };
    healthy(&ill, false);
    b.kill9();
    healthy(&b.address(), false);
    let before = taken(&balancer, &ill) + taken(&balancer, &b.address());
    for _ in 0..4 {
        assert_eq!(raw::get(balancer.url()).status, 200);
    }
    assert_eq!(taken(&balancer, &ill) + taken(&balancer, &b.address()), before);
    b.start_again();
    healthy(&b.address(), true);
    for _ in 0..4 {
        assert_eq!(raw::get(balancer.url()).status, 200);
    }
    assert_eq!(taken(&balancer, &b.address()), 2);
}

#[test]
fn a_reader_does_not_notice_that_its_back_end_is_taken_off_the_list() {
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub)];
    let urls = forwarders.each_ref().map(|forwarder| forwarder.url().to_owned());
    let scratch = Scratch::new();
    let file = scratch.file("list", urls.join("\n"));
    let balancer = listed(&file, "");
    let mut socket = Raw::websocket(balancer.url());
    readers(&balancer, 1);
    let first = read_by(&balancer, &mut forwarders).url().to_owned();
    assert_eq!(raw::post(hub.url(), "one").status, 200);
    assert_eq!(socket.read_message().expect("an event").text(), "one");
    let other = urls.iter().find(|url| **url != first).expect("the other").clone();
    reload(&balancer, &file, std::slice::from_ref(&other));
    eventually("the other one", || (read_by(&balancer, &mut forwarders).url() == other).then_some(()));
    assert_eq!(raw::post(hub.url(), "two").status, 200);
    assert_eq!(socket.read_message().expect("an event").text(), "two");
}

/// It answers nothing any more, and says no goodbye either: as a machine that lost its network.
#[test]
fn a_reader_does_not_notice_that_its_back_end_falls_silent() {
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub)];
    let options = "--health-path /-/readyz --health-interval 200ms --handshake-timeout 1s";
    let balancer = in_front_of(forwarders.each_ref().map(Running::url), options);
    balancer::ready(&balancer);
    let mut socket = Raw::websocket(balancer.url());
    readers(&balancer, 1);
    let silent = read_by(&balancer, &mut forwarders);
    let at = silent.url().to_owned();
    silent.signal("STOP");
    eventually("the other one", || (read_by(&balancer, &mut forwarders).url() != at).then_some(()));
    assert_eq!(raw::post(hub.url(), "still here").status, 200);
    assert_eq!(socket.read_message().expect("an event").text(), "still here");
}

#[test]
fn a_cookie_brings_a_client_back() {
    let producers = [producer(), producer(), producer()];
    let addresses = producers.each_ref().map(Running::address);
    let balancer = in_front_of(&addresses, "--sticky-cookie at");
    let first = raw::get(balancer.url());
    let cookie = first.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let home = addresses.iter().find(|address| taken(&balancer, address) == 1).expect("one of them");
    let fields = format!("Cookie: a=b; {cookie}\r\n");
    for _ in 0..4 {
        let again = raw::request("GET", balancer.url(), &fields, b"");
        assert_eq!((again.status, again.header("set-cookie")), (200, None));
        let (_, upgraded) = Raw::websocket_with(balancer.url(), &fields);
        assert_eq!(upgraded.header("set-cookie"), None);
    }
    assert_eq!(taken(&balancer, home), 9);
    let (_, unknown) = Raw::websocket_with(balancer.url(), "Cookie: at=12\r\n");
    assert!(unknown.header("set-cookie").is_some());
}

/// From two to four under load: only the surplus moves, each stream of it once, and nobody misses anything.
#[test]
fn streams_move_to_new_back_ends_until_all_have_their_share() {
    const CLIENTS: usize = 40;
    let hub = hub();
    let forwarders = [forwarder(&hub), forwarder(&hub), forwarder(&hub), forwarder(&hub)];
    let addresses = forwarders.each_ref().map(Running::address);
    let scratch = Scratch::new();
    let file = scratch.file("list", addresses[..2].join("\n"));
    let balancer = listed(&file, "--max-age 1s");
    let (enough, last) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let clients: Vec<_> = (0..CLIENTS).map(|_| count_to(balancer.url(), last.clone())).collect();
    let spread = |over: &[String]| {
        let share = (CLIENTS / over.len()) as u64;
        // Within five percent.
        let even = |address: &String| {
            let active = backend(&balancer, address)["active"].as_u64().expect("a number");
            active.abs_diff(share) * 20 <= share
        };
        eventually("an even spread", || over.iter().all(even).then_some(()));
    };
    spread(&addresses[..2]);
    let publisher = publish(&hub, enough.clone(), last);
    reload(&balancer, &file, &addresses);
    eventually("four back ends", || (count(&balancer) == 4).then_some(()));
    spread(&addresses);
    enough.store(true, Ordering::Relaxed);
    let published = publisher.join().expect("a publisher");
    let mut moves = 0;
    for client in clients {
        let (newest, connections) = client.join().expect("a client that lost nothing");
        assert_eq!(newest, published);
        moves += connections - 1;
    }
    assert!((CLIENTS as u64 / 2..=CLIENTS as u64).contains(&moves), "{moves} moves, where {} were due", CLIENTS / 2);
}
