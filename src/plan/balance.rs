//! What a balancer is to do.

use super::{Planned, Refusal, refuse};
use crate::{
    balance::{Settings, breaker, member::Member, pool::Habits, stream::Mode},
    cli::{Args, BalanceMode},
};
use std::time::Duration;

/// `None` when nothing is balanced.
pub fn balancing(args: &Args) -> Planned<Option<Settings>> {
    let typed = &args.balance;
    let members = typed.balance.iter().filter(|text| !text.trim().is_empty()).map(|text| text.parse());
    let members: Vec<Member> = members.collect::<Result<_, _>>().map_err(Refusal)?;
    if members.is_empty() {
        return Ok(None);
    }
    check_roles(args)?;
    if members.iter().any(|member| member.topic().is_some() != members[0].topic().is_some()) {
        return refuse("--balance takes either whole servers (http://H:P) or one topic on each (http://H:P/PATH)");
    }
    let mode = match (typed.balance_mode, members[0].topic()) {
        (Some(BalanceMode::Stream), None) => {
            return refuse("--balance-mode stream reads one topic: say which, as in --balance http://H:P/PATH");
        }
        (Some(BalanceMode::Relay), _) | (None, None) => Mode::Relay,
        (Some(BalanceMode::Stream), _) => Mode::Stream,
        (None, Some(_)) => Mode::Undecided,
    };
    let second = Duration::from_secs(1);
    Ok(Some(Settings {
        members,
        mode,
        habits: Habits {
            policy: typed.balance_policy.clone().unwrap_or_default(),
            breaker: breaker::Settings {
                failures: typed.breaker_failures,
                base: typed.breaker_base.unwrap_or(second),
                cap: typed.breaker_cap.unwrap_or(30 * second),
            },
            slow_start: typed.slow_start.unwrap_or_default(),
        },
        connect_timeout: typed.connect_timeout.unwrap_or(3 * second),
        handshake_timeout: args.limits.handshake_timeout.unwrap_or(10 * second),
        idle_timeout: typed.relay_idle_timeout.filter(|idle| !idle.is_zero()),
    }))
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
        ("--journal", args.window.journal.is_some()),
        ("--no-serve", args.serve.no_serve == Some(true)),
    ];
    match others.iter().find(|(_, typed)| *typed) {
        Some((option, _)) => refuse(format!("--balance passes on what back ends say: drop {option}")),
        None if !args.stages.order.is_empty() => {
            refuse("--balance passes on what back ends say as it is: put stages into them, or into a hop of their own")
        }
        None => Ok(()),
    }
}
