//! A name server under test: the real dnsmasq, at an address of this machine's own network.

use crate::common::{Running, Wsevent, find_program};
use std::{io::ErrorKind, net::UdpSocket, path::PathBuf};

/// A name server at this address that knows what `options` say, and nothing else of `.test`; none where this user may
/// not have its port.
pub fn name_server(address: &str, options: &[&str]) -> Option<Running> {
    if UdpSocket::bind((address, 53)).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        eprintln!("skipped: port 53 is for root on this machine");
        return None;
    }
    let system = || Some("/usr/sbin/dnsmasq".into()).filter(|file: &PathBuf| file.is_file());
    let dnsmasq = find_program("dnsmasq").or_else(system);
    let dnsmasq = dnsmasq.expect("dnsmasq is missing: run scripts/test, which installs it");
    let server = Wsevent::program(dnsmasq)
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=nobody", "--log-facility=-"])
        .args(["--no-resolv", "--no-hosts", "--bind-interfaces", &format!("--listen-address={address}")])
        .args(["--local=/test/"].iter().chain(options).copied())
        .start();
    server.said("started");
    Some(server)
}
