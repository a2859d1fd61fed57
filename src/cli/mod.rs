//! What was typed: options with their help, the Go-style spelling, the environment, the config file.
//!
//! Nothing is decided here; [`crate::plan`] says what was meant.

mod balance;
mod bench;
mod mqtt;
mod options;
mod parse;
mod registry;
mod script;

pub use balance::{Balance, BalanceMode};
pub use bench::{Bench, Form};
pub use mqtt::Mqtt;
pub use options::{
    Client, Consume, Keys, Limits, LogFormat, Print, Process, Produce, Serve, StageArg, Stages, Tls, Trace, Window,
};
pub use parse::{Rejected, command, from_go_spelling, parse, presented};
pub use registry::Registry;
pub use script::Script;

use clap::{Parser, Subcommand};

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
    #[command(flatten, next_help_heading = "MQTT")]
    pub mqtt: Mqtt,
    #[command(flatten, next_help_heading = "Scripts")]
    pub script: Script,
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
    /// Print what scripts may use, for editors (a TypeScript declaration file)
    Types,
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
