//! One process takes over from another on the same port: nobody is turned away, and who must come back loses nothing.

mod balancer;
mod common;

use balancer::{count_to, forwarder, hub, in_front_of, publish};
use common::{
    Wsevent, binary, eventually,
    raw::{self, Raw},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Connects again and again, each time for one answer; any failure counts.
fn knock(port: u16, done: Arc<AtomicBool>) -> JoinHandle<(u64, Vec<String>)> {
    let ask = move || {
        let mut stream = TcpStream::connect(("localhost", port))?;
        stream.set_read_timeout(Some(common::PATIENCE))?;
        stream.write_all(b"GET /-/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200 "))
    };
    thread::spawn(move || {
        let (mut answers, mut failures) = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            match ask() {
                Ok(true) => answers += 1,
                Ok(false) => failures.push("no answer".into()),
                Err(error) => failures.push(error.to_string()),
            }
        }
        (answers, failures)
    })
}

/// Of the balancer that is replaced.
const READERS: usize = 200;

#[test]
fn a_balancer_is_replaced_twice_under_load() {
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub), forwarder(&hub)];
    let urls = forwarders.each_ref().map(|forwarder| forwarder.url().to_owned());
    let mut running = in_front_of(&urls, "--reuse-port");
    let port = running.port();
    let (enough, done, last) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    running.said("connected");
    let readers: Vec<_> = (0..READERS).map(|_| count_to(running.url(), last.clone())).collect();
    let consumer = Wsevent::new(["--consume", &running.ws_url(), "--no-serve", "--output", "ndjson"]).start();
    balancer::readers(&running, READERS + 1);
    let publisher = publish(&hub, enough.clone(), last);
    let knocking = [knock(port, done.clone()), knock(port, done.clone())];
    for _ in 0..2 {
        for forwarder in &mut forwarders {
            forwarder.restart();
            balancer::ready(forwarder);
        }
        let options = format!("--reuse-port --drain-spread 200ms --serve-address localhost:{port}");
        let next = in_front_of(&urls, &options);
        next.said("connected");
        running.signal("TERM");
        assert_eq!(running.wait(), 128 + 15);
        running = next;
    }
    enough.store(true, Ordering::Relaxed);
    let published = publisher.join().expect("a publisher");
    for reader in readers {
        let (newest, connections) = reader.join().expect("a reader that lost nothing");
        assert!(newest == published && connections >= 2, "{newest} of {published}, {connections} connections");
    }
    let printed = consumer.lines(published as usize);
    for (line, number) in printed.iter().zip(1..) {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["data"], f64::from(number).to_string());
    }
    done.store(true, Ordering::Relaxed);
    for knocking in knocking {
        let (answers, failures) = knocking.join().expect("a client");
        assert!(answers > 0 && failures.is_empty(), "{answers} answers, but {failures:?}");
    }
}

#[test]
fn a_relayed_stream_ends_within_the_drain() {
    let hub = hub();
    let mut balancer = in_front_of([hub.address()], "--drain-spread 100ms");
    let mut socket = Raw::websocket(balancer.url());
    let mut stream = Raw::connect("localhost", balancer.port());
    stream.send("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(stream.read_head().status, 200);
    balancer.signal("TERM");
    assert_eq!(socket.read_frame(), None);
    stream.read_to_end();
    assert_eq!(balancer.wait(), 128 + 15);
}

/// Whoever asks for a new version waits for the old one's end: it comes, also where nobody answers its goodbyes.
#[test]
fn who_never_leaves_does_not_keep_a_process_that_was_asked_to_end() {
    // Eight seconds, and time for a crowded machine.
    const BOUND: Duration = Duration::from_secs(8 + 4);
    let hub = hub();
    for backend in [hub.address(), hub.url().to_owned()] {
        let mut balancer = in_front_of([&backend], "--reuse-port --drain-spread 1s");
        balancer.said("serving");
        let sockets: Vec<Raw> = (0..20).map(|_| Raw::websocket(balancer.url())).collect();
        let streams: Vec<Raw> = (0..20)
            .map(|_| {
                let mut stream = Raw::connect("localhost", balancer.port());
                stream.send("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
                assert_eq!(stream.read_head().status, 200);
                stream
            })
            .collect();
        balancer.signal("TERM");
        let asked = Instant::now();
        assert_eq!(balancer.wait(), 128 + 15);
        assert!(asked.elapsed() < BOUND, "{backend}: {:?}", asked.elapsed());
        drop((sockets, streams));
    }
}

/// A process on a socket that somebody else keeps.
struct Activated(Child);

impl Activated {
    fn start(listener: &TcpListener) -> Self {
        let socket = OwnedFd::from(listener.try_clone().expect("another descriptor"));
        let line = "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --no-produce";
        let mut command = Command::new("bash");
        command.arg("-c").arg(line).arg(binary()).stdin(Stdio::from(socket)).stdout(Stdio::null());
        Activated(command.spawn().expect("bash"))
    }

    fn end(mut self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.0.id())).status();
        assert!(sent.is_ok_and(|status| status.success()));
        eventually("its end", || self.0.try_wait().expect("a status"));
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_socket_that_was_passed_outlives_the_process() {
    let listener = TcpListener::bind("localhost:0").expect("a port");
    let url = format!("http://localhost:{}/events", listener.local_addr().expect("an address").port());
    let first = Activated::start(&listener);
    assert_eq!(raw::get(&url).status, 200);
    first.end();
    let waiting = thread::spawn({
        let url = url.clone();
        move || raw::post(&url, "while nobody was there").status
    });
    // The kernel has it by now, or will: either way somebody answers.
    thread::yield_now();
    let _second = Activated::start(&listener);
    assert_eq!(waiting.join().expect("a client"), 200);
    assert_eq!(raw::get(&url).text(), r#"["while nobody was there"]"#);
}

/// The kernel lets clients in before the process does: whoever is in that far is answered, not reset.
#[test]
fn who_has_got_through_is_answered() {
    // More than are let in before the end is heard of.
    const CLIENTS: usize = 600;
    for options in ["", "--reuse-port"] {
        let mut hub = Wsevent::line(&format!("--no-produce {options}")).serve();
        hub.signal("STOP");
        let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect("localhost", hub.port())).collect();
        for client in &mut clients {
            client.send("GET /-/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        }
        hub.signal("TERM");
        hub.signal("CONT");
        for client in &mut clients {
            assert_eq!(client.read_head().status, 200, "{options}");
        }
        assert_eq!(hub.wait(), 128 + 15);
    }
}
