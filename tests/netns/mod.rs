//! A machine of its own for a process: a network namespace at the other end of a cable that can be cut (iproute2).

use crate::common::{self, Wsevent, binary};
use std::{
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

/// See the module's text. It goes away with its owner, who must outlive its processes.
pub struct Machine {
    /// Of the namespace and, on our side, of the cable.
    name: String,
    /// Ours and its address.
    addresses: [String; 2],
}

impl Machine {
    /// One that can be reached; none where this user may not make any.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let (pid, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("wse{pid}x{nth}");
        let [ours, its] = [1, 2].map(|host| format!("10.{}.{}.{}", 160 + pid / 256 % 64, pid % 256, 4 * nth + host));
        let machine = Machine { addresses: [ours, its], name };
        let Machine { name, addresses: [ours, its] } = &machine;
        if let Err(why) = ip(&format!("netns add {name}")) {
            eprintln!("skipped: this user may not make network namespaces on this machine: {why}");
            return None;
        }
        for line in [
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("address add {ours}/30 dev {name}"),
            format!("-n {name} address add {its}/30 dev eth0"),
            format!("link set {name} up"),
            format!("-n {name} link set eth0 up"),
        ] {
            ip(&line).unwrap_or_else(|why| panic!("ip {line}: {why}"));
        }
        Some(machine)
    }

    /// By which this machine is known over there.
    pub fn our_address(&self) -> &str {
        &self.addresses[0]
    }

    /// The program over there, on a free port.
    pub fn wsevent(&self, line: &str) -> Wsevent {
        let program = Wsevent::program("ip").args(["netns", "exec", &self.name]).arg(binary());
        program.args(line.split_whitespace()).args(["--serve-address", &format!("{}:0", self.addresses[1])])
    }

    /// Nothing comes through any more, and nobody is told.
    pub fn cut(&self) {
        self.turn("down");
    }

    /// Everything comes through again.
    pub fn mend(&self) {
        self.turn("up");
    }

    fn turn(&self, to: &str) {
        ip(&format!("-n {} link set eth0 {to}", self.name)).unwrap_or_else(|why| panic!("set the link {to}: {why}"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = ip(&format!("link delete {}", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn ip(line: &str) -> Result<(), String> {
    let Some(program) = common::find_program("ip")
        .or_else(|| Some("/usr/sbin/ip".into()).filter(|file: &std::path::PathBuf| file.is_file()))
    else {
        panic!("ip is missing: run scripts/test, which installs it (iproute2)");
    };
    let mut command = Command::new(program);
    command.args(line.split_whitespace());
    let done = common::run(command);
    if done.code == 0 { Ok(()) } else { Err(done.stderr.trim().to_owned()) }
}
