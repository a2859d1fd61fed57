//! Events from a command's standard output: `--produce exec:CMD`.

use super::lines::{self, Framing};
use crate::topic::Topic;
use std::{io, process::Stdio, sync::Arc};
use tokio::process::Command;

/// Runs the command in a shell until it ends; its standard error is ours.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0.
pub async fn run(topic: &Arc<Topic>, command: &str, framing: Framing, max: usize) -> io::Result<()> {
    let shell = || {
        Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    };
    let mut child = shell().map_err(|error| io::Error::new(error.kind(), format!("run `{command}`: {error}")))?;
    if let Some(output) = child.stdout.take() {
        lines::run(topic, output, framing, max).await?;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{command}` ended with {status}"))) }
}
