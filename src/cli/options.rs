//! The options, in the groups of the help.

use crate::{
    id::Since,
    journal::SyncPolicy,
    proto::{cloudevents::Envelope, print::Output},
    source::lines::Framing,
    stage::flow::Rate,
    topic::Policy,
    units,
};
use clap::{Args as ClapArgs, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(ClapArgs, Debug, Clone)]
#[allow(missing_docs)]
pub struct Trace {
    /// The topic: H:P/PATH, or a ws, wss, http or https URL
    pub url: String,
    /// Look so often, a second apart: times are the middle one
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// For one look, all hops together
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "5s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub client: Client,
}

/// Whom a subcommand trusts, and what it shows.
#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Client {
    /// Trust the certificates in this PEM file, too
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Send this request header (repeat)
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Show the bearer token in the first line of this file
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Serve {
    /// Where to listen and the topic's path, in one [default: localhost:8080/events]
    #[arg(long, value_name = "H:P/PATH")]
    pub serve: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "H:P")]
    pub serve_address: Option<String>,
    /// The topic's path
    #[arg(long, value_name = "PATH")]
    pub serve_path: Option<String>,
    /// Serve nothing: print events to standard output
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub no_serve: Option<bool>,
    /// Let peers publish by POST and by WebSocket message
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub accept_publish: Option<bool>,
    /// Let pages of this origin read, too; `*` is all (repeat)
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Answer requests for this host, too, where a server on loopback asks for no tokens; `*` is all (repeat)
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Tell each event in an envelope: cloudevents
    #[arg(long, value_name = "FORM")]
    pub envelope: Option<Envelope>,
    /// Write one listener URL per line once all listen
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Only a proxy connects here, and says for whom (PROXY protocol, version 2)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub proxy_protocol: Option<bool>,
    /// Listen beside another process on the same port: the next version of this one, which takes over
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub reuse_port: Option<bool>,
    /// Serve what is under /-/ (status, metrics, page) here instead; port 0 takes a free one
    #[arg(long, value_name = "H:P")]
    pub admin_address: Option<String>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Tls {
    /// Our certificate chain (PEM): serves TLS, and is shown to upstreams that ask
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Only readers with a certificate from this authority (PEM) may connect
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Keys {
    /// Bearer tokens that may do everything, one per line
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The secret of tokens signed with HS256
    #[arg(long, value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// Public keys of tokens signed with RS256, ES256 or EdDSA
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// Take tokens with an `aud` claim that names this (repeat)
    #[arg(long, value_name = "NAME")]
    pub jwt_audience: Vec<String>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Consume {
    /// An upstream: H:P/PATH, ws, wss, http or https, sse+http(s), ndjson+http(s) (repeat to merge)
    #[arg(long, value_name = "URL")]
    pub consume: Vec<String>,
    /// The upstream's host and port
    #[arg(long, value_name = "H:P")]
    pub consume_address: Option<String>,
    /// The upstream's path [default: events]
    #[arg(long, value_name = "PATH")]
    pub consume_path: Option<String>,
    /// Where to begin: now, oldest, an id, Unix ms, a duration ago, last:N
    #[arg(long, value_name = "POSITION", value_parser = Since::parse)]
    pub since: Option<Since>,
    /// Remember the position here, and begin behind it next time
    #[arg(long, value_name = "FILE")]
    pub cursor_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file, too
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Send this request header (repeat); shown to no other origin after a redirect
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Send the first line of this file as bearer token; read at each connect, shown to no other origin
    #[arg(long, value_name = "FILE")]
    pub consume_token_file: Option<PathBuf>,
    /// Failed attempts in a row before giving up; 0 gives up at once [default: never]
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// The longest pause between attempts
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "5s")]
    pub retry_max: Option<Duration>,
    /// Give up a connection that was silent for so long; 0 is never
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "75s")]
    pub idle_timeout: Option<Duration>,
    /// Send every message back (to test servers)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub echo: Option<bool>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Produce {
    /// Produce events from `-` (standard input), exec:COMMAND or file:PATH
    #[arg(long, value_name = "SOURCE", allow_hyphen_values = true)]
    pub produce: Option<String>,
    /// Produce no dummy events
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub no_produce: Option<bool>,
    /// Where one event ends: line, nul or json [default: line]
    #[arg(long, value_name = "FRAMING")]
    pub framing: Option<Framing>,
    /// Keep serving after the end of the input
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub keep_open: Option<bool>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Stages {
    /// Let through events whose JSON has all these fields
    #[arg(long = "match", value_name = "JSON")]
    pub matches: Vec<String>,
    /// Let through events for which this jq program says true
    #[arg(long, value_name = "JQ")]
    pub filter: Vec<String>,
    /// Turn each event into the results of this jq program
    #[arg(long, value_name = "JQ")]
    pub map: Vec<String>,
    /// Let through every N-th event
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Vec<u64>,
    /// Let through at most so many events in so long: 10/s, 1/5m
    #[arg(long, value_name = "RATE")]
    pub throttle: Vec<Rate>,
    /// Drop events whose value at this JSON pointer was seen already
    #[arg(long, value_name = "/POINTER")]
    pub dedupe: Vec<String>,
    /// Let `onEvent` of this JavaScript file drop, change or split events
    #[arg(long, value_name = "FILE")]
    pub stage_script: Vec<PathBuf>,
    /// Put `<hostname><- ` before each payload
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub hop_prefix: Option<bool>,
    /// The stages above in the order in which they were typed.
    #[arg(skip)]
    pub order: Vec<StageArg>,
}

/// One stage as typed.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum StageArg {
    Match(String),
    Filter(String),
    Map(String),
    Sample(u64),
    Throttle(Rate),
    Dedupe(String),
    HopPrefix,
    Script(PathBuf),
}

impl StageArg {
    /// Whether ids survive it (LINKS 3).
    pub fn is_pure(&self) -> bool {
        !matches!(self, StageArg::Sample(_) | StageArg::Throttle(_) | StageArg::Dedupe(_) | StageArg::Script(_))
    }
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Print {
    /// How events are printed: raw, ndjson or sse [default: raw]
    #[arg(long, value_name = "FORM")]
    pub output: Option<Output>,
    /// End after N events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this time, with exit code 124; what was received by then is printed
    #[arg(long, value_name = "D", value_parser = units::duration)]
    pub timeout: Option<Duration>,
    /// End after the first event for which this jq program says true
    #[arg(long, value_name = "JQ")]
    pub until: Option<String>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Window {
    /// Events to retain at most
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub history: u64,
    /// Bytes to retain at most
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "16MiB")]
    pub history_bytes: Option<usize>,
    /// Retain nothing older than this [default: no bound]
    #[arg(long, value_name = "D", value_parser = units::duration)]
    pub history_age: Option<Duration>,
    /// Keep the window and its ids in this directory, over restarts
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// When the journal is brought to the disk: always, interval:D or never [default: interval:1s]
    #[arg(long, value_name = "POLICY")]
    pub journal_sync: Option<SyncPolicy>,
    /// disconnect, drop-oldest, block or conflate:/POINTER [default: the upstream's; block for stdin and files; else disconnect]
    #[arg(long, value_name = "POLICY")]
    pub slow_reader: Option<Policy>,
    /// How far behind a reader may be [default: the window]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub reader_backlog: Option<usize>,
    /// block: readers to wait for before anything may be forgotten
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub wait_readers: usize,
    /// block: how long a departed reader's place is kept
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "30s")]
    pub pin_grace: Option<Duration>,
    /// block: how long a living reader may hold everything up [default: for ever]
    #[arg(long, value_name = "D", value_parser = units::duration)]
    pub block_timeout: Option<Duration>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Limits {
    /// Bytes that one event may have
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "1MiB")]
    pub max_message: Option<usize>,
    /// Compress WebSocket messages (permessage-deflate): for readers that offer it, and offered to upstreams
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub deflate: Option<bool>,
    /// Connections at once [default: what the open-file limit allows]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// For a request to arrive, and for an upstream to answer
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "10s")]
    pub handshake_timeout: Option<Duration>,
    /// Between pings to a reader, jittered
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "25s")]
    pub ping_interval: Option<Duration>,
    /// Of silence before a comment on an event stream
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "15s")]
    pub keep_alive: Option<Duration>,
    /// Spread the goodbyes of a drain over so long
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "0")]
    pub drain_spread: Option<Duration>,
    /// End after so long even if readers are still there
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "10s")]
    pub drain_timeout: Option<Duration>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Process {
    /// Read options from this TOML file: `serve-address = "localhost:8080"`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only errors on standard error
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub quiet: Option<bool>,
    /// More on standard error; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// text or json [default: text]
    #[arg(long, value_enum, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
    /// Validate, print what would be done, and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub check: Option<bool>,
}

/// How log lines are written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}
