//! Which scripts run, and what follows from there being nothing else.

use super::{Planned, refuse, serve::split_endpoint};
use crate::{
    cli::{Args, StageArg},
    script::{IS_THERE, fault::Limits},
};
use std::{path::PathBuf, time::Duration};

/// Less than this holds no engine.
const MIN_MEMORY: usize = 1 << 20;

/// The files that name streams and routes.
pub fn scripting(args: &Args) -> Planned<Vec<PathBuf>> {
    let files = &args.script.script;
    let staged = args.stages.order.iter().any(|stage| matches!(stage, StageArg::Script(_)));
    if !IS_THERE && (staged || !files.is_empty()) {
        return refuse("this wsevent has no scripts: drop --script and --stage-script, or build it with `script`");
    }
    if args.serve.no_serve == Some(true) && (!files.is_empty() || args.script.folder.is_some()) {
        return refuse("--script and --static are about what is served: drop --no-serve");
    }
    let balances = !args.balance.balance.is_empty() || args.balance.balance_file.is_some();
    if balances && (!files.is_empty() || args.script.folder.is_some()) {
        return refuse("--balance passes every request on: drop it, or drop --script and --static");
    }
    if is_alone(args) && !args.stages.order.is_empty() {
        return refuse(
            "stages stand in front of a topic, and there are only streams of scripts: add --serve-path PATH",
        );
    }
    if is_alone(args) && args.window.journal.is_some() {
        return refuse(
            "--journal keeps a topic, and there are only streams of scripts: drop it, or add --serve-path PATH",
        );
    }
    Ok(files.clone())
}

/// What one script may use.
pub fn limits(args: &Args) -> Planned<Limits> {
    let time = args.script.script_timeout.unwrap_or(Duration::from_secs(2));
    let memory = args.script.script_memory.unwrap_or(64 << 20);
    if time.is_zero() {
        return refuse("--script-timeout 0 would let no call end: type for instance 2s");
    }
    if memory < MIN_MEMORY {
        return refuse("--script-memory is at least 1MiB: an engine needs that much itself");
    }
    Ok(Limits { time, memory })
}

/// Whether scripts are all there is: then there is no topic but those that they name.
pub fn is_alone(args: &Args) -> bool {
    let (serve, consume) = (&args.serve, &args.consume);
    let path =
        serve.serve_path.is_some() || serve.serve.as_deref().is_some_and(|whole| split_endpoint(whole).1.is_some());
    let consumed = !consume.consume.is_empty() || consume.consume_address.is_some() || consume.consume_path.is_some();
    let supplied = consumed || args.produce.produce.is_some() || args.registry.registry == Some(true);
    !args.script.script.is_empty() && !path && !supplied && serve.accept_publish != Some(true)
}

#[cfg(all(test, feature = "script"))]
mod tests {
    use super::*;
    use crate::plan::{Plan, plan};

    fn meant(line: &str) -> Planned<Plan> {
        let words = std::iter::once("wsevent").chain(line.split_whitespace());
        plan(&crate::cli::parse(words.map(Into::into)).expect(line), 1024)
    }

    #[test]
    fn scripts_alone_have_the_process_to_themselves() {
        for (line, port, path) in [
            ("--script a.js", 3000, None),
            ("--script a.js --serve-address :80", 80, None),
            ("--script a.js --serve :80/x", 80, Some("/x")),
            ("--script a.js --serve-path x", 8080, Some("/x")),
            ("--script a.js --accept-publish", 8080, Some("/events")),
            ("--script a.js --consume ws://h/x", 8080, Some("/events")),
            ("--script a.js --produce -", 8080, Some("/events")),
            ("--stage-script a.js", 8080, Some("/events")),
        ] {
            let plan = meant(line).expect(line);
            let serve = plan.serve.as_ref().expect(line);
            assert_eq!((serve.port, plan.has_topic().then_some(&*serve.path)), (port, path), "{line}");
            assert!(plan.reads_again(), "{line}");
        }
        let plan = meant("--script a.js --script b.js").expect("a plan");
        assert_eq!((plan.scripts.len(), plan.produce.is_none(), plan.rules.accept_publish), (2, true, false));
    }

    #[test]
    fn what_no_script_could_do_is_refused() {
        for (line, word) in [
            ("--script a.js --no-serve", "--no-serve"),
            ("--static d --no-serve", "--no-serve"),
            ("--script a.js --balance h:1", "--balance"),
            ("--script a.js --stage-script b.js", "--serve-path"),
            ("--script a.js --map .x", "--serve-path"),
            ("--script a.js --journal d", "--journal"),
            ("--script a.js --script-timeout 0", "--script-timeout"),
            ("--script a.js --script-memory 1KiB", "--script-memory"),
        ] {
            let refusal = meant(line).expect_err(line);
            assert!(refusal.0.contains(word), "{line}: {refusal}");
        }
    }
}
