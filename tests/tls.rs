//! Upstreams behind TLS: a server with a private authority's certificate, which is nginx in front of an instance.

mod certs;
mod common;

use certs::{Authority, Kind, nginx::Nginx};
use common::{Done, Running, Wsevent};

/// A producer, and nginx in front of it.
struct Site {
    authority: Authority,
    producer: Running,
    nginx: Nginx,
}

impl Site {
    fn new(kind: Kind) -> Self {
        let authority = Authority::new();
        let producer = Wsevent::line("--produce - --keep-open").piped().serve();
        let nginx = Nginx::serve(&authority.issue(kind), producer.port());
        Site { authority, producer, nginx }
    }

    /// A consumer of `scheme://localhost` who trusts the authority.
    fn consumer(&self, scheme: &str) -> Wsevent {
        consumer(&self.nginx.url(scheme, "localhost")).args(["--ca", &self.authority.ca()])
    }

    fn write(&mut self, numbers: std::ops::Range<u32>) {
        self.producer.write(lines(numbers));
    }
}

fn consumer(url: &str) -> Wsevent {
    Wsevent::new(["--consume", url, "--no-serve", "--since", "oldest", "--retry-max", "100ms"])
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("event {n}\n")).collect()
}

/// One attempt that must fail, with this reason.
fn assert_fails(attempt: Wsevent, reason: &str) {
    let Done { code, stdout, stderr } = attempt.args(["--retries", "0"]).run();
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("certificate") && stderr.contains(reason), "not a clear error: {stderr}");
}

/// Every event once and in order; says where it is not instead of printing everything.
fn assert_numbered(printed: &str, count: u32) {
    for (n, line) in printed.lines().enumerate() {
        assert_eq!(line, format!("event {n}"), "line {n}");
    }
    assert_eq!(printed.lines().count(), count as usize);
}

#[test]
fn every_protocol_is_read_over_tls() {
    let mut site = Site::new(Kind::Good);
    site.write(0..3);
    for scheme in ["wss", "https", "sse+https", "ndjson+https"] {
        for host in ["localhost", "127.0.0.1"] {
            let url = site.nginx.url(scheme, host);
            let read = consumer(&url).args(["--ca", &site.authority.ca(), "--count", "3"]).run();
            assert_eq!((read.code, read.stdout), (0, lines(0..3)), "{url}: {}", read.stderr);
        }
    }
}

/// Id and payload of each event.
fn ids(reader: Wsevent) -> Vec<String> {
    let printed = reader.args(["--output", "ndjson", "--count", "100"]).run().stdout;
    let event = |line| serde_json::from_str::<serde_json::Value>(line).expect("an event");
    printed.lines().map(event).map(|event| format!("{} {}", event["id"], event["data"])).collect()
}

#[test]
fn ids_pass_through_nginx_unchanged() {
    let mut site = Site::new(Kind::Good);
    site.write(0..100);
    let direct = ids(consumer(&site.producer.ws_url()));
    assert!(direct[99].ends_with("-100\" \"event 99\""), "{direct:?}");
    for scheme in ["wss", "https", "ndjson+https"] {
        assert_eq!(ids(site.consumer(scheme)), direct, "{scheme}");
    }
}

/// Kills nginx under a stream again and again; what was in its buffers is asked for again.
fn every_event_once_though_nginx_dies(scheme: &str) {
    let mut site = Site::new(Kind::Good);
    let consumer = site.consumer(scheme).start();
    for round in 0..3 {
        site.write(round * 20_000..(round + 1) * 20_000);
        consumer.lines((round * 20_000 + 10_000) as usize);
        site.nginx.kill9();
        site.nginx.start_again();
    }
    site.write(60_000..60_001);
    assert_numbered(&consumer.lines(60_001).join("\n"), 60_001);
}

#[test]
fn a_websocket_survives_nginx() {
    every_event_once_though_nginx_dies("wss");
}

#[test]
fn server_sent_events_survive_nginx() {
    every_event_once_though_nginx_dies("https");
}

#[test]
fn ndjson_survives_nginx() {
    every_event_once_though_nginx_dies("ndjson+https");
}

/// The producer ends as soon as every event was acknowledged, and nginx with the connection: what it said last counts.
#[test]
fn the_end_arrives_though_nginx_dies_before_it() {
    let authority = Authority::new();
    let identity = authority.issue(Kind::Good);
    for attempt in 0..5 {
        let mut producer = Wsevent::line("--produce -").piped().serve();
        let mut nginx = Nginx::serve(&identity, producer.port());
        let mut reader = consumer(&nginx.url("wss", "localhost")).args(["--ca", &authority.ca()]).start();
        producer.write(lines(0..10_000));
        reader.lines(10_000);
        nginx.kill9();
        // It has not got everything, so it is waited for.
        producer.write(lines(10_000..20_000));
        nginx.start_again();
        producer.close_stdin();
        assert_numbered(&reader.lines(20_000).join("\n"), 20_000);
        assert_eq!((reader.wait(), producer.wait()), (0, 0), "attempt {attempt}: {}", reader.stderr());
    }
}

#[test]
fn a_hop_over_tls_serves_every_event_once_though_nginx_is_away() {
    let mut site = Site::new(Kind::Good);
    let url = site.nginx.url("wss", "localhost");
    let hop = Wsevent::new(["--consume", &url, "--ca", &site.authority.ca(), "--retry-max", "100ms"]).serve();
    let end = consumer(&hop.ws_url()).start();
    site.write(0..100);
    end.lines(100);
    site.nginx.kill9();
    hop.said("lost upstream");
    site.write(100..200);
    site.nginx.start_again();
    assert_numbered(&end.lines(200).join("\n"), 200);
}

#[test]
fn a_certificate_that_expires_is_waited_out() {
    let mut site = Site::new(Kind::Good);
    let consumer = site.consumer("wss").start();
    site.write(0..10);
    consumer.lines(10);
    site.nginx.present(&site.authority.issue(Kind::Expired));
    consumer.said("expired");
    site.write(10..20);
    site.nginx.present(&site.authority.issue(Kind::Good));
    assert_numbered(&consumer.lines(20).join("\n"), 20);
}

#[test]
fn a_private_authority_is_not_trusted_by_itself() {
    let site = Site::new(Kind::Good);
    for scheme in ["wss", "https"] {
        assert_fails(consumer(&site.nginx.url(scheme, "localhost")), "UnknownIssuer");
    }
}

#[test]
fn another_authority_of_the_same_name_is_not_trusted() {
    let site = Site::new(Kind::Good);
    let (url, other) = (site.nginx.url("wss", "localhost"), Authority::new());
    assert_fails(consumer(&url).args(["--ca", &other.ca()]), "invalid");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let site = Site::new(Kind::Elsewhere);
    for scheme in ["wss", "https"] {
        assert_fails(site.consumer(scheme), "not valid for name \"localhost\"");
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let site = Site::new(Kind::Expired);
    for scheme in ["wss", "https"] {
        assert_fails(site.consumer(scheme), "expired");
    }
}

#[test]
fn the_system_s_own_roots_count_without_an_option() {
    let mut site = Site::new(Kind::Good);
    site.write(0..1);
    let line = consumer(&site.nginx.url("wss", "localhost")).args(["--count", "1"]);
    let read = line.env("SSL_CERT_FILE", &site.authority.ca()).run();
    assert_eq!((read.code, read.stdout), (0, lines(0..1)), "{}", read.stderr);
}

#[test]
fn a_file_without_certificates_is_told_before_anything_is_tried() {
    let authority = Authority::new();
    let key = authority.issue(Kind::Good).key;
    for (file, reason) in [(key.as_str(), "no certificate in it"), ("missing.pem", "No such file")] {
        let done = consumer("wss://localhost:1/events").args(["--ca", file]).run();
        assert_ne!(done.code, 0);
        assert!(done.stderr.contains(&format!("--ca {file}: ")) && done.stderr.contains(reason), "{}", done.stderr);
    }
}

#[test]
fn one_side_without_tls_fails_at_once() {
    let site = Site::new(Kind::Good);
    let plain = site.producer.url().replacen("http", "wss", 1);
    let secure_to_plain = consumer(&plain).args(["--retries", "0"]).run();
    assert_eq!(secure_to_plain.code, 69, "{}", secure_to_plain.stderr);
    let plain_to_secure = consumer(&site.nginx.url("ws", "localhost")).args(["--retries", "0"]).run();
    assert_eq!(plain_to_secure.code, 76, "{}", plain_to_secure.stderr);
}
