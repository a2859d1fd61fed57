//! The settings of docs/proxies.md, as they stand there, in the real programs: in front of us and behind us.

mod balancer;
mod certs;
mod common;

use balancer::{forwarder, hub, in_front_of};
use certs::{installed, nginx::free_port};
use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Raw},
    root,
};
use std::{fs, net::TcpStream};

/// The settings for one program, with these ports for the documented ones.
fn settings(program: &str, outside: u16, inside: [u16; 2]) -> String {
    let text = fs::read_to_string(root().join("docs/proxies.md")).expect("the document");
    let block = text.split_once(&format!("```{program}\n")).expect("a block for it").1;
    let block = block.split_once("```").expect("its end").0;
    let ports = [("8000", outside), ("8081", inside[0]), ("8082", inside[1])];
    ports.into_iter().fold(block.to_owned(), |block, (documented, port)| {
        assert!(block.contains(documented), "{program} without port {documented}");
        block.replace(documented, &port.to_string())
    })
}

/// One of the programs at work.
struct Proxy {
    port: u16,
    _home: Scratch,
    _process: Running,
}

impl Proxy {
    fn start(program: &str, inside: [u16; 2]) -> Self {
        let (home, port) = (Scratch::new(), free_port());
        let block = settings(program, port, inside);
        let line = match program {
            "nginx" => {
                home.file("nginx.conf", whole_nginx(&block));
                Wsevent::program(installed("nginx", "nginx")).args(["-p", &home.arg(""), "-c", "nginx.conf"])
            }
            "haproxy" => {
                Wsevent::program(installed("haproxy", "haproxy")).args(["-db", "-f", &home.file("haproxy.cfg", block)])
            }
            _ => {
                // Ports of its own that are nobody's business, and a home.
                let file = home.file("Caddyfile", format!("{{\n\tadmin off\n\tauto_https off\n}}\n{block}"));
                let line = Wsevent::program(installed("caddy", "caddy")).args([
                    "run",
                    "--adapter",
                    "caddyfile",
                    "--config",
                    &file,
                ]);
                line.env("HOME", &home.arg("")).env("XDG_DATA_HOME", &home.arg("data"))
            }
        };
        let mut process = line.start();
        eventually("the proxy to listen", || {
            assert_eq!(process.ended(), None, "{program} ended: {}", process.stderr());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let proxy = Proxy { port, _home: home, _process: process };
        eventually("a healthy back end", || (raw::get(&proxy.url()).status == 200).then_some(()));
        proxy
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events", self.port)
    }
}

/// One process, so that one signal ends it; everything it writes is in its own directory.
fn whole_nginx(block: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|kind| format!("{kind}_temp_path {kind};\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr crit;\nevents {{ worker_connections 64; }}\n\
         http {{\naccess_log off;\n{temporary}{block}\n}}\n"
    )
}

/// Every form of the topic at this URL brings what the hub is told from now on.
fn everything_passes(hub: &Running, url: &str) {
    let (host, port, path) = raw::split_url(url);
    let mut socket = Raw::websocket(url);
    let mut streams = ["text/event-stream", "application/x-ndjson"].map(|kind| {
        let mut raw = Raw::connect(&host, port);
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: {kind}\r\n\r\n"));
        assert_eq!(raw.read_head().status, 200);
        raw
    });
    let mut consumer =
        Wsevent::new(["--consume", &url.replacen("http", "ws", 1), "--no-serve", "--count", "1"]).start();
    consumer.said("connected");
    let secret = format!("through {url}");
    assert_eq!(raw::post(hub.url(), &secret).status, 200);
    assert_eq!(socket.read_message().expect("an event").text(), secret);
    for stream in &mut streams {
        stream.read_until(&secret);
    }
    assert_eq!(consumer.lines(1)[0], secret);
    assert_eq!(consumer.wait(), 0);
    assert!(raw::get(url).text().contains(&secret), "history");
}

fn both_ways(program: &str) {
    let hub = hub();
    let forwarders = [forwarder(&hub), forwarder(&hub)];
    let proxy = Proxy::start(program, forwarders.each_ref().map(Running::port));
    everything_passes(&hub, &proxy.url());
    // The same program behind us: as a whole server, and as a topic that has ids through it.
    let relay = in_front_of([format!("127.0.0.1:{}", proxy.port)], "");
    everything_passes(&hub, relay.url());
    let stream = in_front_of([proxy.url()], "");
    balancer::ready(&stream);
    everything_passes(&hub, stream.url());
    assert_eq!(balancer::status(&stream)["balancer"]["mode"], "stream");
}

#[test]
fn nginx_in_front_and_behind() {
    both_ways("nginx");
}

#[test]
fn haproxy_in_front_and_behind() {
    both_ways("haproxy");
}

#[test]
fn caddy_in_front_and_behind() {
    both_ways("caddy");
}

/// What the pair is for: an outer proxy's readers stay while back ends come and go.
#[test]
fn a_reader_behind_nginx_does_not_notice_either() {
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub)];
    let balancer = in_front_of(forwarders.each_ref().map(Running::url), "");
    balancer::ready(&balancer);
    let proxy = Proxy::start("nginx", [balancer.port(); 2]);
    let mut socket = Raw::websocket(&proxy.url());
    balancer::readers(&balancer, 1);
    for event in ["one", "two"] {
        assert_eq!(raw::post(hub.url(), event).status, 200);
        assert_eq!(socket.read_message().expect("an event").text(), event);
        balancer::read_by(&balancer, &mut forwarders).restart();
    }
}
