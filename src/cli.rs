//! What was typed: options with their help, the Go-style spelling, the environment, the config file.
//!
//! Nothing is decided here; [`crate::plan`] says what was meant.

mod balance;
mod bench;
mod registry;

pub use balance::{Balance, BalanceMode};
pub use bench::{Bench, Form};
pub use registry::Registry;

use crate::{
    id::Since,
    journal::SyncPolicy,
    proto::{cloudevents::Envelope, print::Output},
    source::lines::Framing,
    stage::flow::Rate,
    topic::Policy,
    units,
};
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, parser::ValueSource};
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// Three lines to begin with.
pub const EXAMPLES: &str = "  wsevent
      dummy events on ws://localhost:8080/events, ten a second
  wsevent --consume ws://localhost:8080/events --serve localhost:9090/copy
      a hop: the same events, ids and all, on another URL
  tail -f access.log | wsevent --produce - --serve :8080/log
      every line an event, lossless to whoever reads

An event URL is a topic: read it with any WebSocket client, with curl, or with
  wsevent --consume ws://localhost:8080/events --no-serve";

/// How options get their values.
pub const ENVIRONMENT: &str = "\
every option also reads WSEVENT_<OPTION>, for instance WSEVENT_HISTORY. SERVE_ENDPOINT, SERVE_ADDRESS,
SERVE_PATH, CONSUME_ENDPOINT, CONSUME_ADDRESS, CONSUME_PATH and NO_PRODUCE keep their names. An option beats the
environment, which beats the config file. Options may be spelled with one hyphen: -serve-address localhost:8080.";

/// How a process ends.
pub const EXIT_CODES: &str = "\
0 done, 1 failed, 2 usage, 69 upstream unreachable, 76 the answer was no stream, 77 refused,
78 configuration, 124 timed out, 128+n ended by signal n.";

/// How values are typed.
pub const UNITS: &str = "Durations: 500ms 2s 5m 1h. Sizes: 64KiB 1MiB, a bare number is bytes.";

fn examples() -> String {
    format!("Examples:\n{EXAMPLES}")
}

fn everything_else() -> String {
    format!("{}\n\nEnvironment: {ENVIRONMENT}\n\nExit codes: {EXIT_CODES}\n\n{UNITS}", examples())
}

/// Event streaming without a broker: an event URL is a topic.
///
/// One program that produces, forwards or consumes event streams, by its options. Chain instances in a shell or in
/// containers: the reader of one topic is the source of the next.
#[derive(Parser, Debug, Clone, Default)]
#[command(name = "wsevent", version, after_help = examples(), after_long_help = everything_else())]
#[command(max_term_width = 100, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[allow(missing_docs)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten, next_help_heading = "Serve")]
    pub serve: Serve,
    #[command(flatten, next_help_heading = "TLS")]
    pub tls: Tls,
    #[command(flatten, next_help_heading = "Access (without any of these, whoever can connect may read)")]
    pub keys: Keys,
    #[command(flatten, next_help_heading = "Consume")]
    pub consume: Consume,
    #[command(flatten, next_help_heading = "Balance")]
    pub balance: Balance,
    #[command(flatten, next_help_heading = "Registry")]
    pub registry: Registry,
    #[command(flatten, next_help_heading = "Produce")]
    pub produce: Produce,
    #[command(flatten, next_help_heading = "Stages, applied in the order given")]
    pub stages: Stages,
    #[command(flatten, next_help_heading = "Print (with --no-serve)")]
    pub print: Print,
    #[command(flatten, next_help_heading = "Window and slow readers")]
    pub window: Window,
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: Limits,
    #[command(flatten, next_help_heading = "Process")]
    pub process: Process,
}

#[allow(missing_docs)]
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page (roff)
    Man,
    /// Print the way from a topic up to its origin, hop by hop: who, state, rate, lag, delay
    Trace(Trace),
    /// Measure: many readers of a URL, a source of stamped events, or both
    Bench(Box<Bench>),
    /// Print what stands in --users for the password on standard input
    HashPassword,
    /// Judge the token on standard input: print its claims, or why it is refused (exit code 77)
    CheckToken {
        #[command(flatten)]
        keys: Keys,
    },
}

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
    /// Send this request header (repeat)
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Send the first line of this file as bearer token; read at each connect
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
}

impl StageArg {
    /// Whether ids survive it (LINKS 3).
    pub fn is_pure(&self) -> bool {
        !matches!(self, StageArg::Sample(_) | StageArg::Throttle(_) | StageArg::Dedupe(_))
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
    /// End after this time, with exit code 124
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

/// The variables that keep their names, and the options they stand for.
const SEED_VARIABLES: [(&str, &str); 7] = [
    ("SERVE_ENDPOINT", "serve"),
    ("SERVE_ADDRESS", "serve_address"),
    ("SERVE_PATH", "serve_path"),
    ("CONSUME_ENDPOINT", "consume"),
    ("CONSUME_ADDRESS", "consume_address"),
    ("CONSUME_PATH", "consume_path"),
    ("NO_PRODUCE", "no_produce"),
];

/// What says the same in two ways: the whole, and its parts.
const SHORT_FORMS: [(&str, [&str; 2]); 2] =
    [("serve", ["serve_address", "serve_path"]), ("consume", ["consume_address", "consume_path"])];

/// The command with its environment variables.
pub fn command() -> clap::Command {
    let command = with_environment(Args::command());
    command.mut_subcommand("check-token", with_environment)
}

fn with_environment(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let own = |name: &str| format!("WSEVENT_{}", name.to_uppercase());
    names.iter().filter(|name| !matches!(name.as_str(), "help" | "version")).fold(command, |command, name| {
        let seed =
            SEED_VARIABLES.iter().find(|(variable, option)| option == name && std::env::var_os(variable).is_some());
        let variable = seed.map_or_else(|| own(name), |(variable, _)| (*variable).to_owned());
        command.mut_arg(name, |arg| arg.env(variable).hide_env(true))
    })
}

/// The command as it is shown to people: switches without the value that only scripts give them.
pub fn presented() -> clap::Command {
    let command = Args::command();
    let is_switch = |arg: &&clap::Arg| arg.is_require_equals_set();
    let switches: Vec<_> = command.get_arguments().filter(is_switch).map(|arg| arg.get_id().clone()).collect();
    switches.into_iter().fold(command, |command, id| {
        command.mut_arg(id, |arg| {
            let arg = arg.num_args(0).require_equals(false).action(clap::ArgAction::SetTrue);
            arg.value_parser(clap::value_parser!(bool)).hide_possible_values(false).default_missing_value(None)
        })
    })
}

/// Gives a second hyphen to `-NAME` and `-NAME=value`: whatever is longer than one letter and no cluster of the short
/// options.
pub fn from_go_spelling(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_name = |text: &str| {
        let name = text.split('=').next().unwrap_or("");
        let starts_like_one = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase());
        starts_like_one && !name.chars().all(|c| "qvhV".contains(c))
    };
    let respell = |arg: OsString| match arg.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(text) if is_name(text) => format!("--{text}").into(),
        _ => arg,
    };
    args.into_iter().map(respell).collect()
}

/// Why there are no arguments.
#[derive(Debug)]
pub enum Rejected {
    /// The help was asked for, long or short.
    Help(bool),
    /// clap's answer, also `--version`.
    Usage(clap::Error),
    /// The config file.
    Config(String),
}

/// Reads the arguments (the first is the program's name), the environment and the config file.
///
/// # Errors
/// See [`Rejected`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Rejected> {
    let args = from_go_spelling(args);
    let mut matches = command().try_get_matches_from(args.clone()).map_err(|error| rejected(error, &args))?;
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let command = with_config(command(), path).map_err(Rejected::Config)?;
        // Without the file the same arguments were fine.
        let wrong = |error: clap::Error| Rejected::Config(format!("--config {}: {error}", path.display()));
        matches = command.try_get_matches_from(args).map_err(wrong)?;
    }
    let mut args = Args::from_arg_matches(&matches).map_err(Rejected::Usage)?;
    args.stages.order = stage_order(&matches);
    drop_weaker(&mut args, &matches);
    Ok(args)
}

fn rejected(error: clap::Error, args: &[OsString]) -> Rejected {
    use clap::error::ErrorKind::DisplayHelp;
    let of_command =
        args.get(1).and_then(|arg| arg.to_str()).is_some_and(|arg| command().find_subcommand(arg).is_some());
    match error.kind() {
        DisplayHelp if !of_command => Rejected::Help(std::env::args_os().any(|arg| arg == "--help" || arg == "-help")),
        _ => Rejected::Usage(error),
    }
}

/// Stages by where they stood on the command line.
fn stage_order(matches: &clap::ArgMatches) -> Vec<StageArg> {
    let mut stages: Vec<(usize, StageArg)> = typed(matches, "matches", StageArg::Match)
        .chain(typed(matches, "filter", StageArg::Filter))
        .chain(typed(matches, "map", StageArg::Map))
        .chain(typed(matches, "dedupe", StageArg::Dedupe))
        .chain(typed(matches, "sample", StageArg::Sample))
        .chain(typed(matches, "throttle", StageArg::Throttle))
        .collect();
    if matches.get_one::<bool>("hop_prefix") == Some(&true) {
        stages.push((matches.index_of("hop_prefix").unwrap_or(0), StageArg::HopPrefix));
    }
    stages.sort_by_key(|(at, _)| *at);
    stages.into_iter().map(|(_, stage)| stage).collect()
}

/// An option's values with their places on the command line.
fn typed<'a, T: Clone + Send + Sync + 'static>(
    matches: &'a clap::ArgMatches,
    id: &'static str,
    make: fn(T) -> StageArg,
) -> impl Iterator<Item = (usize, StageArg)> + 'a {
    let values = matches.get_many::<T>(id).into_iter().flatten().cloned();
    matches.indices_of(id).into_iter().flatten().zip(values).map(move |(at, value)| (at, make(value)))
}

/// An option beats the environment, which beats the config file, also where one says in one piece what the other says
/// in two.
fn drop_weaker(args: &mut Args, matches: &clap::ArgMatches) {
    let strength = |id: &str| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(ValueSource::DefaultValue) => 1,
        _ => 0,
    };
    let no_serve = if args.serve.no_serve == Some(true) { strength("no_serve") } else { 0 };
    for (option, value) in [
        ("serve", &mut args.serve.serve),
        ("serve_address", &mut args.serve.serve_address),
        ("serve_path", &mut args.serve.serve_path),
    ] {
        if no_serve > strength(option) {
            *value = None;
        }
    }
    if strength("produce") > strength("no_produce") {
        args.produce.no_produce = None;
    } else if strength("no_produce") > strength("produce") && args.produce.no_produce == Some(true) {
        args.produce.produce = None;
    }
    for (whole, parts) in SHORT_FORMS {
        let strongest = parts.iter().map(|part| strength(part)).max().unwrap_or(0);
        match (whole, strength(whole).cmp(&strongest)) {
            ("serve", std::cmp::Ordering::Greater) => (args.serve.serve_address, args.serve.serve_path) = (None, None),
            ("serve", std::cmp::Ordering::Less) => args.serve.serve = None,
            ("consume", std::cmp::Ordering::Greater) => {
                (args.consume.consume_address, args.consume.consume_path) = (None, None);
            }
            ("consume", std::cmp::Ordering::Less) => args.consume.consume.clear(),
            _ => {}
        }
    }
}

/// The file's values become the options' defaults.
fn with_config(mut command: clap::Command, path: &std::path::Path) -> Result<clap::Command, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("read --config {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(&error))?;
    for (name, value) in table {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(&name)).map(|arg| arg.get_id().clone());
        let id = known.filter(|id| id != "config").ok_or_else(|| wrong(&format!("no option is named `{name}`")))?;
        let values = match value {
            toml::Value::Array(values) => values.iter().map(plain).collect(),
            other => vec![plain(&other)],
        };
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(switch) => switch.to_string(),
        // Nothing of ours takes a date or a table; the option's own parser says so.
        other => other.type_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Args {
        parse(line.split(' ').map(OsString::from)).expect(line)
    }

    #[test]
    fn the_definitions_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn one_hyphen_is_as_good_as_two() {
        let spelled = |line: &str| from_go_spelling(line.split(' ').map(OsString::from));
        let table = [
            ("wsevent -serve-address x", "wsevent --serve-address x"),
            ("wsevent -no-produce=false", "wsevent --no-produce=false"),
            ("wsevent -H a:b -v -vv -q", "wsevent -H a:b -v -vv -q"),
            ("wsevent --produce - -help", "wsevent --produce - --help"),
            ("wsevent -nonsense", "wsevent --nonsense"),
            ("wsevent -", "wsevent -"),
        ];
        for (typed, meant) in table {
            assert_eq!(spelled(typed), meant.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn switches_take_an_explicit_value() {
        assert_eq!(typed("wsevent -no-produce").produce.no_produce, Some(true));
        assert_eq!(typed("wsevent -no-produce=false").produce.no_produce, Some(false));
        assert_eq!(typed("wsevent").produce.no_produce, None);
    }

    #[test]
    fn stages_keep_the_order_in_which_they_were_typed() {
        let order = typed("wsevent --map .a --match {} --filter .b --hop-prefix --map .c").stages.order;
        let (map, filter) = (|s: &str| StageArg::Map(s.into()), |s: &str| StageArg::Filter(s.into()));
        assert_eq!(order, [map(".a"), StageArg::Match("{}".into()), filter(".b"), StageArg::HopPrefix, map(".c")]);
    }

    #[test]
    fn produce_takes_a_lone_hyphen() {
        assert_eq!(typed("wsevent --produce -").produce.produce.as_deref(), Some("-"));
        assert_eq!(typed("wsevent -produce - -no-serve").produce.produce.as_deref(), Some("-"));
    }
}
