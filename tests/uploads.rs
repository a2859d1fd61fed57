//! Uploads that end early, through a balancer and through a registry: what a client does wrong counts for no back end.

mod balancer;
mod certs;
mod common;
mod services;

use balancer::{backend, in_front_of};
use certs::{Authority, Identity, Kind};
use common::{
    Running, Wsevent, eventually,
    raw::{Answer, Raw, Server, header_of},
};
use serde_json::{Value, json};
use services::{get, register, registry};
use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// One failure opens the circuit, for longer than any test lasts.
const STRICT: &str = "--breaker-failures 1 --breaker-base 1h --breaker-cap 1h";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// A back end that answers `ok` to what ends with `END`, and writes down what came over each connection.
struct Recorder {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn new() -> Self {
        let server = Server::new();
        let (address, seen) = (server.address(), Arc::<Mutex<Vec<String>>>::default());
        let kept = seen.clone();
        thread::spawn(move || {
            loop {
                let (mut raw, head) = server.accept();
                let kept = kept.clone();
                thread::spawn(move || {
                    let ended = raw.read_until_or_end("END");
                    if ended.is_some() {
                        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                    }
                    let rest = ended.unwrap_or_default() + &String::from_utf8_lossy(&raw.read_to_end());
                    kept.lock().expect("no panic").push(head + &rest);
                });
            }
        });
        Recorder { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// The two that pass requests on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Front {
    Balancer,
    Registry,
}

impl Front {
    fn before(self, address: &str, options: &str) -> Running {
        match self {
            Front::Balancer => in_front_of([address], options),
            Front::Registry => {
                let registry = registry(options);
                register(&registry, "web", port(address));
                registry
            }
        }
    }

    fn path(self) -> &'static str {
        match self {
            Front::Balancer => "/up",
            Front::Registry => "/proxy/web/up",
        }
    }

    /// A request's head, and its body as it stands.
    fn says(self, front: &Running, fields: &str, body: &[u8]) -> Raw {
        let mut raw = Raw::connect("localhost", front.port());
        raw.send(format!("POST {} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", self.path()));
        raw.send(body);
        raw
    }

    fn is_closed(self, front: &Running, address: &str) -> bool {
        match self {
            Front::Balancer => {
                let known = backend(front, address);
                known["breaker"] == "closed" && known["failed"] == 0
            }
            Front::Registry => self.circuit(front, address)["failures"] == 0,
        }
    }

    fn circuit(self, front: &Running, address: &str) -> Value {
        get(front, &format!("/circuit-breaker/web:{address}")).1
    }
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
}

fn answer(mut raw: Raw) -> Answer {
    let mut answer = raw.read_head();
    answer.body = raw.read_to_end();
    answer
}

/// A good request, answered by the back end.
fn passes(which: Front, front: &Running) {
    let good = which.says(front, "Content-Length: 9\r\nConnection: close\r\n", b"good: END");
    let answer = answer(good);
    assert_eq!((answer.status, answer.text()), (200, "ok".into()), "{which:?}");
}

#[test]
fn a_malformed_body_is_400_and_goes_nowhere() {
    for which in [Front::Balancer, Front::Registry] {
        let back = Recorder::new();
        let front = which.before(&back.address, STRICT);
        for body in [
            "XYZ\r\nbad\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "\r\n\r\n",
            "11111111111111111\r\nx",
            "5\r\nhelloXX\r\n0\r\n\r\n",
            "5\r\nhello\r\nZ\r\n",
            "5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
        ] {
            let answer = answer(which.says(&front, CHUNKED, body.as_bytes()));
            assert_eq!(answer.status, 400, "{which:?} {body:?}: {answer:?}");
        }
        assert_eq!(back.seen(), [""; 0]);
        assert!(which.is_closed(&front, &back.address), "{which:?}");
        passes(which, &front);
        // More than is read ahead: what was good has gone, what is not does not go.
        let long = format!("{:x}\r\n{}\r\nZ\r\nbad: END", 300_000, "x".repeat(300_000));
        let answer = answer(which.says(&front, CHUNKED, long.as_bytes()));
        assert_eq!(answer.status, 400, "{which:?}: {answer:?}");
        let seen = eventually("the connection's end", || back.seen().get(1).cloned());
        assert!(header_of(&seen, "transfer-encoding").as_deref() == Some("chunked"), "{:.200}", seen);
        assert!(!seen.contains("bad") && !seen.ends_with("0\r\n\r\n"), "{which:?}");
        assert!(which.is_closed(&front, &back.address), "{which:?}");
        passes(which, &front);
    }
}

#[test]
fn an_upload_that_its_client_breaks_off_counts_for_nobody() {
    let part = "x".repeat(300_000);
    for which in [Front::Balancer, Front::Registry] {
        let back = Recorder::new();
        let front = which.before(&back.address, STRICT);
        let chunk = format!("{:x}\r\n{part}\r\n", part.len());
        for (fields, body) in [
            ("Content-Length: 10\r\n", "half"),
            ("Content-Length: 1000000\r\n", &*part),
            (CHUNKED, "5\r\nhel"),
            (CHUNKED, &*chunk),
            // Cut behind what announced it.
            ("Content-Length: 10\r\nExpect: 100-continue\r\n", ""),
        ] {
            for half in [true, false] {
                let mut raw = which.says(&front, fields, body.as_bytes());
                if half {
                    raw.finish_sending();
                    raw.read_to_end();
                }
                drop(raw);
            }
        }
        // Those that got through have been given up by now.
        eventually("no upload under way", || {
            (which == Front::Registry || backend(&front, &back.address)["active"] == 0).then_some(())
        });
        assert!(back.seen().iter().all(|seen| !seen.contains("half") && !seen.contains("hel")), "{which:?}");
        assert!(which.is_closed(&front, &back.address), "{which:?}");
        passes(which, &front);
    }
}

#[test]
fn a_client_that_stops_within_its_upload_is_told_so() {
    for which in [Front::Balancer, Front::Registry] {
        let back = Recorder::new();
        let front = which.before(&back.address, &format!("--handshake-timeout 400ms {STRICT}"));
        for (fields, body) in [("Content-Length: 100\r\n", "half"), (CHUNKED, "5\r\nhello\r\n")] {
            let answer = answer(which.says(&front, fields, body.as_bytes()));
            assert_eq!(answer.status, 408, "{which:?} {answer:?}");
        }
        assert!(which.is_closed(&front, &back.address), "{which:?}");
        passes(which, &front);
    }
}

#[test]
fn an_upload_that_comes_slowly_arrives_whole() {
    for which in [Front::Balancer, Front::Registry] {
        let back = Recorder::new();
        let front = which.before(&back.address, STRICT);
        let mut raw = which.says(&front, &format!("{CHUNKED}Connection: close\r\n"), b"");
        for piece in ["one", "two", "END"] {
            thread::sleep(std::time::Duration::from_millis(150));
            raw.send(format!("3\r\n{piece}\r\n"));
        }
        raw.send("0\r\n\r\n");
        assert_eq!(answer(raw).text(), "ok");
        let seen = eventually("the request", || back.seen().pop());
        assert!(seen.contains("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n3\r\nEND"), "{which:?} {seen}");
    }
}

#[test]
fn a_back_end_that_fails_within_an_upload_has_failed() {
    for which in [Front::Balancer, Front::Registry] {
        let server = Server::new();
        let address = server.address();
        let front = which.before(&address, STRICT);
        let client = which.says(&front, "Content-Length: 1000000\r\n", "x".repeat(100_000).as_bytes());
        drop(server.accept());
        assert!(answer(client).status >= 500);
        assert!(!which.is_closed(&front, &address), "{which:?}");
    }
}

#[test]
fn an_answer_before_the_end_of_an_upload_is_an_answer() {
    const FULL: &str = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull";
    for which in [Front::Balancer, Front::Registry] {
        let server = Server::new();
        let address = server.address();
        thread::spawn(move || {
            loop {
                // It hangs up with most of it unread, which resets the connection.
                let (mut raw, _) = server.accept();
                raw.read_until("xxxx");
                let _ = raw.try_send(FULL);
            }
        });
        let front = which.before(&address, STRICT);
        for _ in 0..60 {
            let mut client = which.says(&front, "Content-Length: 100000000\r\n", b"");
            let mut writer = client.stream.try_clone().expect("a second handle");
            thread::spawn(move || {
                let block = vec![b'x'; 100_000];
                while std::io::Write::write_all(&mut writer, &block).is_ok() {}
            });
            let head = client.read_head();
            assert_eq!(head.status, 413, "{which:?} {head:?}");
        }
        assert!(which.is_closed(&front, &address), "{which:?}");
    }
}

#[test]
fn over_tls_and_http2_a_broken_off_upload_counts_for_nobody_either() {
    let authority = Authority::new();
    let Identity { cert, key } = authority.issue(Kind::Good);
    let back = Recorder::new();
    let line = ["--balance", &back.address, "--tls-cert", &cert, "--tls-key", &key];
    let front = Wsevent::new(line).args(STRICT.split(' ')).serve();
    let (up, status) = ["up", "-/status"].map(|path| format!("https://localhost:{}/{path}", front.port())).into();
    for version in ["--http1.1", "--http2"] {
        for _ in 0..2 {
            // More than it gets through in the time that it has.
            let fields = ["-H", "Expect:", "-T", "/dev/zero", "-X", "POST"];
            let line = ["-s", "--cacert", &authority.ca(), version, "-m", "0.4", "--limit-rate", "300K", &up];
            let done = Command::new("curl").args(fields).args(line).stdout(Stdio::null()).status();
            assert_eq!(done.expect("curl").code(), Some(28), "curl gave up");
        }
    }
    let known = eventually("no upload under way", || {
        let told = Command::new("curl").args(["-s", "--cacert", &authority.ca(), &status]).output().expect("curl");
        let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
        let known = told["balancer"]["backends"][0].clone();
        (known["active"] == 0 && back.seen().len() == 4).then_some(known)
    });
    assert_eq!((&known["breaker"], &known["failed"]), (&json!("closed"), &json!(0)), "{known}");
}
