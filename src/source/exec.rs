//! Events from a command's standard output: `--produce exec:CMD`.

use super::lines::{self, Framing};
use crate::topic::Topic;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};
use tokio::process::Command;

/// The command's process group while it runs: also what a pipeline has started ends with us.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Runs the command in a shell until it ends; its standard error is ours.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0.
pub async fn run(topic: &Arc<Topic>, command: &str, framing: Framing, max: usize) -> io::Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let spawned = shell.spawn();
    let mut child = spawned.map_err(|error| io::Error::new(error.kind(), format!("run `{command}`: {error}")))?;
    GROUP.store(child.id().map_or(0, |id| id as i32), Ordering::Release);
    if let Some(output) = child.stdout.take() {
        lines::run(topic, output, framing, max).await?;
    }
    let status = child.wait().await?;
    GROUP.store(0, Ordering::Release);
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{command}` ended with {status}"))) }
}

/// Ends the command, if one runs: called on every way out.
pub fn end() {
    if let Some(group) = Pid::from_raw(GROUP.swap(0, Ordering::AcqRel)) {
        let _ = kill_process_group(group, Signal::TERM);
    }
}
