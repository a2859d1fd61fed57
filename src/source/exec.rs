//! Events from a command's standard output: `--produce exec:CMD`.

use super::lines::{self, Framing};
use crate::topic::Topic;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::process::{Child, Command};

/// The command's process group while it runs: also what a pipeline has started ends with us.
static GROUP: Mutex<Group> = Mutex::new(Group::Idle);

enum Group {
    Idle,
    Runs(Pid),
    /// We are on our way out: nothing is started any more.
    Over,
}

fn group() -> MutexGuard<'static, Group> {
    GROUP.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs the command in a shell until it ends; its standard error is ours.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0.
pub async fn run(topic: &Arc<Topic>, command: &str, framing: Framing, max: usize) -> io::Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child =
        start(&mut shell).map_err(|error| io::Error::new(error.kind(), format!("run `{command}`: {error}")))?;
    if let Some(output) = child.stdout.take() {
        lines::run(topic, output, framing, max).await?;
    }
    let status = child.wait().await?;
    *group() = Group::Idle;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{command}` ended with {status}"))) }
}

/// No signal comes between the start and the note of it.
fn start(shell: &mut Command) -> io::Result<Child> {
    let mut group = group();
    if let Group::Over = *group {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let child = shell.spawn()?;
    *group = child.id().and_then(|id| Pid::from_raw(id as i32)).map_or(Group::Idle, Group::Runs);
    Ok(child)
}

/// Ends the command, if one runs: called on every way out.
pub fn end() {
    if let Group::Runs(pid) = std::mem::replace(&mut *group(), Group::Over) {
        let _ = kill_process_group(pid, Signal::TERM);
    }
}
