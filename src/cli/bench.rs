//! What was typed behind `wsevent bench`.

use super::Client;
use crate::units;
use clap::{Args as ClapArgs, ValueEnum};
use std::time::Duration;

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Bench {
    /// What to read: H:P/PATH, ws, wss, http or https, sse+http(s), ndjson+http(s)
    pub url: Option<String>,
    /// How many connections read it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub readers: usize,
    /// How long to measure, once all are connected; a source: how long to say events [default: 10s; --emit: for ever]
    #[arg(long = "for", value_name = "D", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// Make so many connections a second [default: as fast as they are answered, 256 at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_rate: Option<u32>,
    /// So many of the readers never read
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stalled: usize,
    /// Fail if a reader did not connect, ended early, or lost, repeated or mixed up stamped events
    #[arg(long)]
    pub verify: bool,
    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    pub output: Form,
    /// Say what this process of this machine costs: the server's (repeat)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Print stamped lines, for `wsevent --produce -`
    #[arg(long, conflicts_with = "publish")]
    pub emit: bool,
    /// Send stamped events to this topic, by WebSocket or POST
    #[arg(long, value_name = "URL")]
    pub publish: Option<String>,
    /// So many events a second [default: as many as are taken]
    #[arg(long, value_name = "R", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Send an event when all readers have the one so many before it
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..))]
    pub window: Option<u32>,
    /// Bytes of a stamped event [default: 100]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub size: Option<usize>,
    /// End after so many stamped events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    #[command(flatten)]
    pub client: Client,
}

/// How a result is printed.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Default)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// One object.
    Json,
}
