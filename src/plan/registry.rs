//! What a registry is to do.

use super::{
    Planned, ServePlan,
    balance::{breaker, passing_on},
    key_files, refuse,
};
use crate::{
    cli::Args,
    registry::{Settings, node::Patience},
};
use std::time::Duration;

/// `None` when there is none.
pub fn registering(args: &Args, serve: &Option<ServePlan>) -> Planned<Option<Settings>> {
    let typed = &args.registry;
    if typed.registry != Some(true) {
        let about = [("--users", typed.users.is_some()), ("--protect-writes", typed.protect_writes == Some(true))];
        return match about.iter().find(|(_, typed)| *typed) {
            Some((option, _)) => refuse(format!("{option} is about a registry: add --registry")),
            None => Ok(None),
        };
    }
    check_roles(args)?;
    check_access(args)?;
    if serve.as_ref().is_some_and(|serve| serve.path != super::PATH) {
        return refuse("--registry tells its events at /events, beside the paths of its API: drop --serve-path");
    }
    let heartbeat_timeout = typed.heartbeat_timeout.unwrap_or(Duration::from_secs(30));
    if heartbeat_timeout.is_zero() {
        return refuse("--heartbeat-timeout 0 would remove everybody at once: type for instance 30s");
    }
    let patience = Patience { heartbeat_timeout, expiry_guard: typed.expiry_guard, breaker: breaker(&args.balance) };
    Ok(Some(Settings {
        patience,
        register_rate: typed.register_rate,
        users: typed.users.clone(),
        token_ttl: typed.token_ttl.unwrap_or(Duration::from_secs(3600)),
        auth_deadline: typed.auth_deadline.unwrap_or(Duration::from_secs(10)),
        protect_writes: typed.protect_writes == Some(true),
        proxy: passing_on(args),
    }))
}

/// There is no secret that everybody knows.
fn check_access(args: &Args) -> Planned<()> {
    let (typed, keys) = (&args.registry, &args.keys);
    if typed.users.is_some() && keys.jwt_secret_file.is_none() {
        return refuse("--users get tokens that are signed with a secret: add --jwt-secret-file FILE");
    }
    if typed.protect_writes == Some(true) && key_files(keys).paths().is_empty() {
        return refuse("--protect-writes asks for tokens: add --jwt-secret-file, --jwks or --token-file");
    }
    if typed.token_ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
        return refuse("--token-ttl is in whole seconds: type for instance 1h");
    }
    Ok(())
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
        ("--accept-publish", args.serve.accept_publish == Some(true)),
        ("--no-serve", args.serve.no_serve == Some(true)),
    ];
    match others.iter().find(|(_, typed)| *typed) {
        Some((option, _)) => refuse(format!("--registry tells what it knows itself: drop {option}")),
        None => Ok(()),
    }
}
