//! Clients that close their sending side behind a whole request, as pipelines do: each gets its answer, a stream goes on,
//! and one that is gone is noticed all the same.

mod balancer;
mod certs;
mod common;
mod link;
mod scripted;
mod services;

use balancer::{backend, hub, in_front_of};
use common::{
    Running, Wsevent, bash,
    door::{self, Door},
    eventually, find_program,
    raw::{self, Raw, Server},
};
use scripted::Scripted;
use services::{register, registry};
use std::net::Shutdown;

/// What ends a probe of each kind of stream, in its chunk.
const STREAMS: [(&str, &str); 2] = [("text/event-stream", "\r\n:\n"), ("application/x-ndjson", "\r\n\n\r\n")];

/// One way to a topic.
struct Way {
    name: &'static str,
    port: u16,
    path: &'static str,
    /// Behind another request on the same connection.
    kept: bool,
}

impl Way {
    fn connect(&self) -> Raw {
        let mut raw = Raw::connect("localhost", self.port);
        if self.kept {
            raw.send(format!("HEAD {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path));
            assert_eq!(raw.read_head().status, 200, "{}", self.name);
        }
        raw
    }

    /// A whole request, and the end of what is sent.
    fn ask(&self, method: &str, query: &str, rest: &str) -> Raw {
        let mut raw = self.connect();
        raw.send(format!("{method} {}{query} HTTP/1.1\r\nHost: localhost\r\n{rest}", self.path));
        raw.finish_sending();
        raw
    }

    /// A stream whose client reads only, once the server knows.
    fn stream(&self, (kind, probe): (&str, &str)) -> Raw {
        let mut raw = self.ask("GET", "", &format!("Accept: {kind}\r\n\r\n"));
        assert_eq!(raw.read_head().header("content-type"), Some(kind), "{}", self.name);
        raw.read_until(probe);
        raw
    }
}

/// A topic, and all the ways to it.
struct House {
    hub: Running,
    secure: Running,
    balancer: Running,
    _secure_balancer: Running,
    registry: Running,
    secure_door: Door,
    balancer_door: Door,
}

impl House {
    fn new() -> Self {
        // Nothing is found by the signs of life of an idle stream.
        let hub = Wsevent::line("--no-produce --keep-alive 1h").serve();
        let secure = Wsevent::line("--no-produce --keep-alive 1h").args(door::args()).serve();
        let balancer = in_front_of([hub.address()], "");
        let secure_balancer = Wsevent::new(["--balance", &hub.address()]).args(door::args()).serve();
        let registry = registry("");
        register(&registry, "hub", hub.port());
        let [secure_door, balancer_door] = [&secure, &secure_balancer].map(|running| Door::open(running.port()));
        raw::post(hub.url(), "first");
        let house =
            House { hub, secure, balancer, _secure_balancer: secure_balancer, registry, secure_door, balancer_door };
        house.secure_way(false).ask("POST", "", "Content-Length: 5\r\n\r\nfirst").read_head();
        house
    }

    fn secure_way(&self, kept: bool) -> Way {
        Way { name: "TLS", port: self.secure_door.port, path: "/events", kept }
    }

    /// With the topic's server.
    fn ways(&self) -> Vec<(Way, &Running)> {
        let way = |name, port, path, kept| (Way { name, port, path, kept }, &self.hub);
        let secure = |kept| (self.secure_way(kept), &self.secure);
        vec![
            way("own", self.hub.port(), "/events", false),
            way("own, kept", self.hub.port(), "/events", true),
            secure(false),
            secure(true),
            way("relay", self.balancer.port(), "/events", false),
            way("relay, kept", self.balancer.port(), "/events", true),
            way("relay behind TLS", self.balancer_door.port, "/events", false),
            way("proxy of a registry", self.registry.port(), "/proxy/hub/events", false),
        ]
    }

    fn say(&self, server: &Running, event: &str) {
        let port = if std::ptr::eq(server, &self.secure) { self.secure_door.port } else { server.port() };
        assert_eq!(raw::post(&format!("http://localhost:{port}/events"), event).status, 200);
    }

    /// Asked through the door where there is one.
    fn readers(&self, server: &Running) -> u64 {
        let port = if std::ptr::eq(server, &self.secure) { self.secure_door.port } else { server.port() };
        let status = raw::get(&format!("http://localhost:{port}/-/status"));
        let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
        status["topics"][0]["readers"].as_u64().expect("a number")
    }

    fn has_readers(&self, server: &Running, count: u64, why: &str) {
        eventually(&format!("{count} readers: {why}"), || (self.readers(server) == count).then_some(()));
    }
}

#[test]
fn a_whole_request_is_answered_on_every_way() {
    let house = House::new();
    for (way, server) in house.ways() {
        let name = way.name;
        let mut posted = way.ask("POST", "", &format!("Content-Length: {}\r\n\r\n{name}", name.len()));
        assert_eq!(posted.read_head().status, 200, "{name}");
        let mut page = way.ask("GET", "?limit=1", "\r\n");
        assert_eq!(page.read_head().status, 200, "{name}");
        assert!(String::from_utf8_lossy(&page.read_to_end()).ends_with(&format!("[\"{name}\"]")), "{name}");
        let mut poll = way.ask("GET", "?poll=1&wait=20s", "\r\n");
        // Most likely it waits by now; if not, the event is there when it comes to that.
        std::thread::sleep(std::time::Duration::from_millis(100));
        house.say(server, "news");
        assert_eq!(poll.read_head().status, 200, "{name}");
        assert!(String::from_utf8_lossy(&poll.read_to_end()).ends_with("[\"news\"]"), "{name}");
    }
}

#[test]
fn a_stream_goes_on_on_every_way() {
    let house = House::new();
    for (way, server) in house.ways() {
        for kind in STREAMS {
            let mut reader = way.stream(kind);
            for event in ["one more", "and another"] {
                house.say(server, event);
                reader.read_until(event);
            }
        }
    }
}

#[test]
fn a_reader_that_is_gone_is_noticed_on_an_idle_stream() {
    let house = House::new();
    for (way, server) in house.ways() {
        for (kind, _) in STREAMS {
            let mut reader = way.connect();
            reader.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\n\r\n", way.path));
            assert_eq!(reader.read_head().status, 200, "{}", way.name);
            // What is unread at the end would reset the connection by itself.
            if kind == "text/event-stream" {
                reader.read_until("\n\n");
            }
            house.has_readers(server, 1, way.name);
            drop(reader);
            house.has_readers(server, 0, way.name);
        }
    }
    let address = house.hub.address();
    eventually("a free back end", || (backend(&house.balancer, &address)["active"] == 0).then_some(()));
}

#[test]
fn a_reader_that_goes_after_its_sending_side_is_noticed_at_the_next_events() {
    let house = House::new();
    for (way, server) in house.ways() {
        for kind in STREAMS {
            drop(way.stream(kind));
            eventually(way.name, || {
                house.say(server, "is anybody there?");
                (house.readers(server) == 0).then_some(())
            });
        }
    }
}

#[test]
fn a_reader_that_goes_after_its_sending_side_is_noticed_at_the_keep_alive() {
    let hub = Wsevent::line("--no-produce --keep-alive 1s").serve();
    raw::post(hub.url(), "first");
    for kept in [false, true] {
        let way = Way { name: "own", port: hub.port(), path: "/events", kept };
        let reader = way.stream(STREAMS[0]);
        hub.has("readers", 1);
        drop(reader);
        hub.has("readers", 0);
    }
}

#[test]
fn a_websocket_without_a_close_frame_is_gone() {
    let hub = hub();
    for headers in ["", "Sec-WebSocket-Protocol: wsevent.v1\r\n"] {
        let (mut socket, _) = Raw::websocket_with(&hub.ws_url(), headers);
        hub.has("readers", 1);
        socket.finish_sending();
        socket.read_to_end();
        hub.has("readers", 0);
    }
    let secure = Wsevent::line("--no-produce").args(door::args()).serve();
    let door = Door::open(secure.port());
    let mut socket = Raw::websocket(&format!("ws://localhost:{}/events", door.port));
    socket.finish_sending();
    socket.read_to_end();
}

#[test]
fn a_stream_of_another_server_goes_on_through_a_relay_which_keeps_the_end_to_itself() {
    let server = Server::new();
    let balancer = in_front_of([server.address()], "");
    let client = std::thread::spawn({
        let way = Way { name: "relay", port: balancer.port(), path: "/any", kept: false };
        move || {
            let mut reader = way.ask("GET", "", "Accept: text/event-stream\r\n\r\n");
            reader.read_until("data: one");
            reader.read_until("data: two");
            reader
        }
    });
    let (mut there, _) = server.accept();
    there.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n");
    there.stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a time-out");
    let heard = std::io::Read::read(&mut there.stream, &mut [0]);
    assert!(heard.is_err(), "nothing is heard, and no end: {heard:?}");
    there.send("data: two\n\n");
    let reader = client.join().expect("a client");
    drop(reader);
    let mut more = std::iter::repeat_with(|| there.try_send("data: more\n\n"));
    eventually("the relay's end", || more.next().is_some_and(|sent| sent.is_err()).then_some(()));
}

#[test]
fn a_half_request_is_not_published() {
    let hub = hub();
    let mut raw = Raw::connect("localhost", hub.port());
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    raw.stream.shutdown(Shutdown::Write).expect("half of it");
    assert_ne!(raw.read_head().status, 200);
    assert_eq!(raw::get(hub.url()).text(), "[]");
}

#[test]
fn what_scripts_serve_is_answered_and_goes_on() {
    let app = Scripted::serve(
        r#"
        registerWebStream("/named");
        graphQLRegistry.registerSubscription("live", "type Subscription { live: String }");
        function send() {
          sendStreamMessage("by a script");
          graphQLRegistry.sendSubscriptionMessage("live", "by a script");
          return "sent";
        }
        register("/send", "send", "POST");
        "#,
    );
    let way = |path| Way { name: path, port: app.running.port(), path, kept: false };
    let mut named = way("/named").ask("GET", "", "Accept: text/event-stream\r\n\r\n");
    named.read_until("\r\n:\n");
    let mut results = way("/graphql/sse").ask("GET", "?query=subscription+%7Blive%7D", "\r\n");
    results.read_until("\r\n:\n");
    assert_eq!(way("/send").ask("POST", "", "Content-Length: 0\r\n\r\n").read_head().status, 200);
    named.read_until("by a script");
    results.read_until("by a script");
}

#[test]
fn socat_in_a_pipeline_gets_answers_and_streams() {
    if find_program("socat").is_none() {
        return eprintln!("socat is not installed: it was not tried");
    }
    let hub = hub();
    let socat = |request: &str, rest: &str| {
        let port = hub.port();
        bash(&format!("printf '{request}\\r\\nHost: localhost\\r\\n{rest}\\r\\n' | socat -t 5 - TCP:localhost:{port}"))
    };
    let posted = socat("POST /events HTTP/1.1", "Connection: close\\r\\nContent-Length: 5\\r\\n\\r\\nhello");
    assert!(posted.stdout.starts_with("HTTP/1.1 200 OK\r\n"), "{posted:?}");
    let poll = socat("GET /events?poll=1&wait=1s HTTP/1.1", "Connection: close\\r\\n");
    assert!(poll.stdout.ends_with("\r\n\r\n[]"), "{poll:?}");
    let stream = socat("GET /events?since=oldest HTTP/1.1", "Accept: application/x-ndjson\\r\\n");
    assert!(stream.stdout.contains("\"data\":\"hello\""), "{stream:?}");
}
