//! The registry's options.

use crate::units;
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// What the registry is to be like.
#[derive(Args, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Registry {
    /// Be a service registry: commands by HTTP, every change an event
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub registry: Option<bool>,
    /// Remove an instance that was silent for longer than this
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "30s")]
    pub heartbeat_timeout: Option<Duration>,
    /// Accept so many new instances per second from one address; 0 is any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub register_rate: u32,
    /// Remove nobody while a larger share than this has fallen silent; 100 is no guard
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub expiry_guard: u32,
    /// Who may sign in: lines of name:hash:role[,role]; `wsevent hash-password` makes hashes
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// How long a token lasts that is given at /signin
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "1h")]
    pub token_ttl: Option<Duration>,
    /// How long a client of the WebSocket at / may take to say who it is
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "10s")]
    pub auth_deadline: Option<Duration>,
    /// Let only a token change anything, not just configuration
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub protect_writes: Option<bool>,
}
