//! `--check`: a plan in words.

use super::{Plan, Producer};
use crate::net::redacted;
use std::fmt;

impl fmt::Display for Plan {
    /// What `--check` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for url in &self.consume {
            writeln!(f, "consume  {}", redacted(url))?;
        }
        if let Some(balance) = &self.balance {
            for member in &balance.members {
                writeln!(f, "balance  {member}, {}", balance.habits.policy)?;
            }
            if let Some(file) = &balance.file {
                writeln!(f, "balance  what {} lists, {}", file.display(), balance.habits.policy)?;
            }
        }
        if let Some(registry) = &self.registry {
            writeln!(f, "registry heartbeats within {:?}", registry.patience.heartbeat_timeout)?;
        }
        for file in &self.scripts {
            writeln!(f, "script   {}", file.display())?;
        }
        if let Some(folder) = &self.folder {
            writeln!(f, "files    {}", folder.display())?;
        }
        match &self.produce {
            None => {}
            Some(Producer::Random) => writeln!(f, "produce  dummy events")?,
            Some(Producer::Stdin(framing, _)) => writeln!(f, "produce  standard input, {framing:?}")?,
            Some(Producer::File(path, framing, _)) => writeln!(f, "produce  {}, {framing:?}", path.display())?,
            Some(Producer::Exec(command, framing, _)) => writeln!(f, "produce  `{command}`, {framing:?}")?,
        }
        for stage in &self.stages {
            writeln!(f, "stage    {stage:?}")?;
        }
        match &self.serve {
            Some(serve) => {
                let scheme = if self.tls.is_some() { "wss" } else { "ws" };
                writeln!(f, "serve    {scheme}://{}{}", serve.address, serve.path)?;
            }
            None => writeln!(f, "print    {:?}", self.print.as_ref().map(|print| print.output).unwrap_or_default())?,
        }
        if let Some(url) = &self.mqtt.publish {
            writeln!(f, "publish  to {}", redacted(url))?;
        }
        if let Some(door) = &self.mqtt.listen {
            let if_free = if door.optional { ", if it is free" } else { "" };
            writeln!(f, "serve    mqtt://{}:{}{if_free}", door.host, door.port)?;
        }
        if self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            writeln!(f, "readers  with a certificate from --tls-client-ca")?;
        }
        if !self.keys.paths().is_empty() {
            writeln!(f, "access   by token")?;
        }
        if let Some((host, port)) = &self.admin {
            writeln!(f, "inside   http://{host}:{port}/-/")?;
        }
        if self.rules.accept_publish {
            writeln!(f, "publish  by POST and WebSocket message")?;
        }
        let policy = self.policy.as_ref().map_or_else(|| "the upstream's, else disconnect".into(), ToString::to_string);
        writeln!(f, "window   {} events, {} bytes", self.window.events, self.window.bytes)?;
        if let Some((dir, sync)) = &self.journal {
            writeln!(f, "journal  {}, synced {sync}", dir.display())?;
        }
        writeln!(f, "slow     {policy}")
    }
}
