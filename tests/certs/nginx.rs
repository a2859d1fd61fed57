//! nginx as people put it in front of a service: TLS outside, plain HTTP inside.

use super::{Identity, installed};
use crate::common::{Running, Scratch, Wsevent, eventually};
use std::{
    net::{TcpListener, TcpStream},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// The server in front of an instance. It is killed when this goes.
pub struct Nginx {
    home: Scratch,
    port: u16,
    /// The lines of the server that say what it does.
    lines: String,
    process: Running,
}

impl Nginx {
    /// Shows this certificate on a free port, and passes everything on to the port inside.
    pub fn serve(identity: &Identity, inside: u16) -> Self {
        Nginx::with(identity, proxied(inside))
    }

    /// Shows this certificate on a free port, and does what these lines say.
    pub fn with(identity: &Identity, lines: String) -> Self {
        let (home, port) = (Scratch::new(), free_port());
        home.file("nginx.conf", config(identity, port, &lines));
        let process = start(&home, port);
        Nginx { home, port, lines, process }
    }

    /// The topic as seen from outside.
    pub fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/events", self.port)
    }

    /// Ends it as a power cut would: no goodbye to anybody.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again on the same port.
    pub fn start_again(&mut self) {
        self.process = start(&self.home, self.port);
    }

    /// Kills it and starts it with another certificate.
    pub fn present(&mut self, identity: &Identity) {
        self.kill9();
        self.home.file("nginx.conf", config(identity, self.port, &self.lines));
        self.start_again();
    }
}

fn start(home: &Scratch, port: u16) -> Running {
    let mut process =
        Wsevent::program(installed("nginx", "nginx")).args(["-p", &home.arg(""), "-c", "nginx.conf"]).start();
    eventually("nginx to listen", || {
        assert_eq!(process.ended(), None, "nginx ended: {}", process.stderr());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    process
}

/// A port that no client takes for its own end meanwhile: below those that kernels hand out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (process::id() % 10_000) as u16;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One process, so that one signal ends it; everything it writes is in its own directory.
fn config(identity: &Identity, port: u16, lines: &str) -> String {
    let Identity { cert, key } = identity;
    format!(
        "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $http_upgrade $hop {{
        default upgrade;
        '' close;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
{lines}
    }}
}}
"
    )
}

/// Passes everything on, upgrades too.
fn proxied(inside: u16) -> String {
    format!(
        "
        location / {{
            proxy_pass http://127.0.0.1:{inside};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $hop;
            proxy_buffering off;
        }}
"
    )
}
