//! What a registry is to do.

use super::{Planned, ServePlan, balance::breaker, refuse};
use crate::{
    cli::Args,
    registry::{Settings, nodes::Patience},
};
use std::time::Duration;

/// `None` when there is none.
pub fn registering(args: &Args, serve: &Option<ServePlan>) -> Planned<Option<Settings>> {
    let typed = &args.registry;
    if typed.registry != Some(true) {
        return Ok(None);
    }
    check_roles(args)?;
    if serve.as_ref().is_some_and(|serve| serve.path != super::PATH) {
        return refuse("--registry tells its events at /events, beside the paths of its API: drop --serve-path");
    }
    let heartbeat_timeout = typed.heartbeat_timeout.unwrap_or(Duration::from_secs(30));
    if heartbeat_timeout.is_zero() {
        return refuse("--heartbeat-timeout 0 would remove everybody at once: type for instance 30s");
    }
    let patience = Patience { heartbeat_timeout, expiry_guard: typed.expiry_guard, breaker: breaker(&args.balance) };
    Ok(Some(Settings { patience, register_rate: typed.register_rate }))
}

/// A registry's topic has what it tells itself.
fn check_roles(args: &Args) -> Planned<()> {
    let consume = &args.consume;
    let others = [
        ("--balance", !args.balance.balance.is_empty() || args.balance.balance_file.is_some()),
        (
            "--consume",
            !consume.consume.is_empty() || consume.consume_address.is_some() || consume.consume_path.is_some(),
        ),
        ("--produce", args.produce.produce.is_some()),
        ("--journal", args.window.journal.is_some()),
        ("--no-serve", args.serve.no_serve == Some(true)),
    ];
    match others.iter().find(|(_, typed)| *typed) {
        Some((option, _)) => refuse(format!("--registry is an instance of its own: drop {option}")),
        None => Ok(()),
    }
}
