//! Certificates as openssl makes them, and [`nginx`], which shows them.

// Each test file uses a part of it.
#![allow(dead_code)]

pub mod nginx;

use crate::common::{Scratch, find_program, run};
use std::{path::PathBuf, process::Command};

/// What a certificate is good for.
#[derive(Clone, Copy)]
pub enum Kind {
    /// This machine, also as `upstream.test`, for as long as anybody runs these tests.
    Good,
    /// Another machine than the one that shows it.
    Elsewhere,
    /// This machine, but not since 2020.
    Expired,
    /// A reader, which shows it to a server.
    Client,
    /// This machine, as a server and as a reader.
    Both,
}

impl Kind {
    fn names(self) -> &'static str {
        match self {
            Kind::Good | Kind::Expired | Kind::Client | Kind::Both => "DNS:localhost,DNS:upstream.test,IP:127.0.0.1",
            Kind::Elsewhere => "DNS:elsewhere.test",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Kind::Good | Kind::Elsewhere | Kind::Expired => "serverAuth",
            Kind::Client => "clientAuth",
            Kind::Both => "serverAuth,clientAuth",
        }
    }

    fn end(self) -> &'static str {
        if matches!(self, Kind::Expired) { "20200102000000Z" } else { "20991231235959Z" }
    }
}

/// A certificate and its key, as paths.
#[derive(Clone)]
pub struct Identity {
    pub cert: String,
    pub key: String,
}

const CONFIG: &str = "
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[ca]
default_ca = issue
[issue]
database = index.txt
unique_subject = no
new_certs_dir = .
rand_serial = yes
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = names
[names]
commonName = supplied
";

/// A private authority, which nobody trusts unless told to.
pub struct Authority {
    scratch: Scratch,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Authority { scratch: Scratch::new() };
        authority.scratch.file("openssl.cnf", CONFIG);
        authority.scratch.file("index.txt", "");
        authority.openssl("req -x509 -extensions authority -subj /CN=Private -keyout ca.key -out ca.pem", NEW_KEY);
        authority
    }

    /// The authority's own certificate: what `--ca` takes.
    pub fn ca(&self) -> String {
        self.scratch.arg("ca.pem")
    }

    /// Signs a new certificate for a server.
    pub fn issue(&self, kind: Kind) -> Identity {
        let extensions = format!("subjectAltName={}\nextendedKeyUsage={}\n", kind.names(), kind.usage());
        self.scratch.file("server.ext", extensions);
        let name = format!("server-{}", kind as u8);
        self.openssl(&format!("req -new -subj /CN=server -keyout {name}.key -out {name}.csr"), NEW_KEY);
        let dates = format!("-startdate 20200101000000Z -enddate {}", kind.end());
        self.openssl(&format!("ca -batch -notext -extfile server.ext -in {name}.csr -out {name}.pem"), &dates);
        Identity { cert: self.scratch.arg(&format!("{name}.pem")), key: self.scratch.arg(&format!("{name}.key")) }
    }

    fn openssl(&self, line: &str, more: &str) {
        let mut command = Command::new(installed("openssl", "openssl"));
        let (verb, rest) = line.split_once(' ').expect("a command and its options");
        command.args([verb, "-config", "openssl.cnf"]).args(rest.split(' ')).args(more.split(' '));
        command.current_dir(self.scratch.path(""));
        let done = run(command);
        assert_eq!(done.code, 0, "openssl {line}: {}", done.stderr);
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// A program of the system, wherever it keeps its servers; says what to install when it is missing.
pub fn installed(name: &str, package: &str) -> PathBuf {
    let server = || Some(PathBuf::from("/usr/sbin").join(name)).filter(|file| file.is_file());
    find_program(name).or_else(server).unwrap_or_else(|| {
        panic!("{name} is missing; type: sudo apt-get install {package} (or scripts/test, which installs it)")
    })
}
