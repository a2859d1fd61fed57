//! What a balancer is to do.

use super::{Planned, Refusal, refuse};
use crate::{
    balance::{
        Settings, breaker,
        health::Checks,
        member::Member,
        pool::Habits,
        registered::{self, Service},
        search::Deadlines,
        sticky,
        stream::Mode,
    },
    cli::{Args, Balance, BalanceMode},
    registry::proxy,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// `None` when nothing is balanced.
pub fn balancing(args: &Args) -> Planned<Option<Settings>> {
    let typed = &args.balance;
    let listed = typed.balance.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let (services, members): (Vec<_>, Vec<_>) = listed.partition(|text| text.starts_with(registered::PREFIX));
    let service = service(typed, &services, members.len())?;
    let members: Vec<Member> = members.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(Refusal)?;
    match (members.is_empty() && service.is_none(), &typed.balance_file) {
        (true, None) => return unbalanced(typed).map(|()| None),
        (false, Some(_)) => return refuse("--balance and --balance-file both list back ends: type one of them"),
        _ => check_roles(args)?,
    }
    if typed.sticky_cookie.as_ref().is_some_and(|name| !sticky::is_name(name)) {
        return refuse("--sticky-cookie takes the name of a cookie: letters, digits, - and _");
    }
    let mut settings = Settings {
        members,
        file: typed.balance_file.clone(),
        service,
        lookups: typed.balance_lookup.filter(|every| !every.is_zero()),
        mode: match typed.balance_mode {
            None => Mode::Undecided,
            Some(BalanceMode::Stream) => Mode::Stream,
            Some(BalanceMode::Relay) => Mode::Relay,
        },
        habits: habits(typed),
        checks: checks(typed)?,
        sticky: typed.sticky_cookie.clone(),
        proxied: typed.balance_proxy_protocol == Some(true),
        connect_timeout: connect_timeout(typed),
        deadlines: deadlines(args),
    };
    if settings.file.is_none() {
        settings.settle().map_err(|error| Refusal(error.to_string()))?;
    }
    Ok(Some(settings))
}

fn connect_timeout(typed: &Balance) -> Duration {
    typed.connect_timeout.unwrap_or(3 * SECOND)
}

fn deadlines(args: &Args) -> Deadlines {
    Deadlines {
        answer: args.limits.handshake_timeout.unwrap_or(10 * SECOND),
        idle: args.balance.relay_idle_timeout.filter(|idle| !idle.is_zero()),
    }
}

/// How a registry passes requests on to instances.
pub fn passing_on(args: &Args) -> proxy::Settings {
    proxy::Settings { connect_timeout: connect_timeout(&args.balance), deadlines: deadlines(args) }
}

/// The service whose instances are balanced, if that was typed.
fn service(typed: &Balance, services: &[&str], others: usize) -> Planned<Option<Service>> {
    let token_file = typed.balance_registry_token_file.clone();
    match services {
        [] if token_file.is_some() => {
            refuse("--balance-registry-token-file is for a registry: add --balance registry+http://H:P/SERVICE")
        }
        [] => Ok(None),
        [one] if others == 0 => {
            let service: Service = one.parse().map_err(Refusal)?;
            Ok(Some(Service { token_file, ..service }))
        }
        _ => refuse("a registry lists all back ends there are: type --balance registry+http://H:P/SERVICE alone"),
    }
}

/// What is about back ends says nothing without them.
fn unbalanced(typed: &Balance) -> Planned<()> {
    let asked = [
        ("--balance-mode", typed.balance_mode.is_some()),
        ("--balance-policy", typed.balance_policy.is_some()),
        ("--health-path", typed.health_path.is_some()),
        ("--sticky-cookie", typed.sticky_cookie.is_some()),
        ("--max-age", typed.max_age.is_some()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((option, _)) => refuse(format!("{option} is about back ends: add --balance URL")),
        None => Ok(()),
    }
}

fn habits(typed: &Balance) -> Habits {
    Habits {
        policy: typed.balance_policy.clone().unwrap_or_default(),
        breaker: breaker(typed),
        slow_start: typed.slow_start.unwrap_or_default(),
        max_age: typed.max_age.filter(|age| !age.is_zero()),
    }
}

fn checks(typed: &Balance) -> Planned<Option<Checks>> {
    let Some(path) = &typed.health_path else { return Ok(None) };
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse("--health-path is a path: leave out blanks");
    }
    Ok(Some(Checks {
        path: format!("/{}", path.trim_start_matches('/')),
        interval: typed.health_interval.filter(|interval| !interval.is_zero()).unwrap_or(5 * SECOND),
        fall: typed.health_fall,
        rise: typed.health_rise,
    }))
}

/// When something that fails is left alone.
pub fn breaker(typed: &Balance) -> breaker::Settings {
    let usual = breaker::Settings::default();
    breaker::Settings {
        failures: typed.breaker_failures,
        base: typed.breaker_base.unwrap_or(usual.base),
        cap: typed.breaker_cap.unwrap_or(usual.cap),
    }
}

/// A balancer serves what its back ends say, and nothing else.
fn check_roles(args: &Args) -> Planned<()> {
    let consume = &args.consume;
    let others = [
        (
            "--consume",
            !consume.consume.is_empty() || consume.consume_address.is_some() || consume.consume_path.is_some(),
        ),
        ("--produce", args.produce.produce.is_some()),
        ("--accept-publish", args.serve.accept_publish == Some(true)),
        ("--no-serve", args.serve.no_serve == Some(true)),
    ];
    if args.window.journal.is_some() {
        return refuse(
            "a balancer keeps nothing that its back ends do not: type --journal DIR there, or in a hop of its own, as in wsevent --consume ws://H:P/events --journal DIR",
        );
    }
    match others.iter().find(|(_, typed)| *typed) {
        Some((option, _)) => refuse(format!("--balance passes on what back ends say: drop {option}")),
        None if !args.stages.order.is_empty() => {
            refuse("--balance passes on what back ends say as it is: put stages into them, or into a hop of their own")
        }
        None => Ok(()),
    }
}
