//! The input of a plan.

use super::{Exit, KeepOpen, Running};
use crate::{
    plan::Producer,
    source::{exec, lines, random},
    stdio::StandardInput,
};
use std::io;
use tokio::task::JoinHandle;
use tracing::error;

impl Running<'_> {
    pub(super) fn start_producer(&self) -> Option<JoinHandle<io::Result<KeepOpen>>> {
        let (topic, max) = (self.topic.clone(), self.plan.rules.max_message);
        let address = self.plan.serve.as_ref().map_or_else(|| "localhost:8080".into(), |serve| serve.address.clone());
        let producer = self.plan.produce.clone()?;
        Some(tokio::spawn(async move {
            match producer {
                Producer::Random => {
                    random::run(topic, address).await;
                    Ok(true)
                }
                Producer::Stdin(framing, keep_open) => {
                    lines::run(&topic, StandardInput::open(), framing, max).await?;
                    Ok(keep_open)
                }
                Producer::File(path, framing, keep_open) => {
                    let of_file = |e: io::Error| io::Error::new(e.kind(), format!("read {}: {e}", path.display()));
                    let file = tokio::fs::File::open(&path).await.map_err(of_file)?;
                    lines::run(&topic, file, framing, max).await.map_err(of_file)?;
                    Ok(keep_open)
                }
                Producer::Exec(command, framing, keep_open) => {
                    exec::run(&topic, &command, framing, max).await?;
                    Ok(keep_open)
                }
            }
        }))
    }

    /// EOF: readers get all of it, then a normal close.
    pub(super) fn input_ended(&self, ended: &io::Result<KeepOpen>) -> Option<Exit> {
        match ended {
            Ok(true) => None,
            Ok(false) => {
                self.topic.log.finish();
                Some(Exit::Done)
            }
            Err(failure) => {
                error!("{failure}");
                self.topic.log.finish();
                Some(Exit::Failed)
            }
        }
    }
}
