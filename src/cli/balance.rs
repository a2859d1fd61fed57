//! The balancer's options.

use crate::{balance::choice::Policy, units};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// What stands in front of what, and how.
#[derive(Args, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Balance {
    /// Pass requests on to this back end: H:P, http, https, ws or wss URL, `URL weight=N` (repeat, or a comma list); or to a service of a registry: registry+http://H:P/SERVICE
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub balance: Vec<String>,
    /// Pass requests on to the back ends that this file lists, one per line; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub balance_file: Option<PathBuf>,
    /// Show the registry that lists back ends the token in this file's first line
    #[arg(long, value_name = "FILE")]
    pub balance_registry_token_file: Option<PathBuf>,
    /// Look up the names of back ends so often, so that each address is one; 0 is at each connection
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "30s")]
    pub balance_lookup: Option<Duration>,
    /// How a topic of back ends is served: stream (read once, readers survive a back end) or relay (bytes) [default: stream where events have ids of ours]
    #[arg(long, value_enum, value_name = "MODE")]
    pub balance_mode: Option<BalanceMode>,
    /// How a back end is chosen: round-robin, least-connections, random, p2c, hash:ip, hash:header:NAME, hash:query:NAME [default: round-robin]
    #[arg(long, value_name = "POLICY")]
    pub balance_policy: Option<Policy>,
    /// Say to back ends for whom a connection is (PROXY protocol, version 2)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub balance_proxy_protocol: Option<bool>,
    /// Bring a client back to where it was, by a cookie of this name
    #[arg(long, value_name = "NAME")]
    pub sticky_cookie: Option<String>,
    /// After about so long a relayed stream is ended if its back end has more than its share of all
    #[arg(long, value_name = "D", value_parser = units::duration)]
    pub max_age: Option<Duration>,
    /// Ask each back end for this path now and then; leave out those that do not answer well
    #[arg(long, value_name = "PATH")]
    pub health_path: Option<String>,
    /// How often
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "5s")]
    pub health_interval: Option<Duration>,
    /// Bad answers in a row until a back end is left out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub health_fall: u32,
    /// Good answers in a row until it is back
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub health_rise: u32,
    /// For a connection to a back end
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "3s")]
    pub connect_timeout: Option<Duration>,
    /// End a relayed stream that was silent for so long; 0 is never
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "0")]
    pub relay_idle_timeout: Option<Duration>,
    /// Failures in a row after which a back end is left alone for a while
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub breaker_failures: u32,
    /// For D·2^(n-1) after n failures in a row …
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "1s")]
    pub breaker_base: Option<Duration>,
    /// … but never for longer than this
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "30s")]
    pub breaker_cap: Option<Duration>,
    /// Give a back end that comes, or comes back, its full share only after so long
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "0")]
    pub slow_start: Option<Duration>,
}

/// How a topic of back ends is served.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq)]
pub enum BalanceMode {
    /// Read once, served from here.
    Stream,
    /// Bytes, to one back end for each reader.
    Relay,
}
