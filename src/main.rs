//! Typed, meant, run, exit code. The only place that handles signals and exits.

use std::{
    io::{self, IsTerminal, Write},
    process::exit,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use wsevent::{
    app::{self, Exit},
    cli::{self, Args, Command, LogFormat, Rejected},
    plan,
    source::exec,
};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 69;
const NO_STREAM: i32 = 76;
const REFUSED: i32 = 77;
const CONFIG: i32 = 78;
const TIMED_OUT: i32 = 124;
const BY_SIGNAL: i32 = 128;

fn main() {
    let args = match cli::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(Rejected::Help(long)) => return show_help(long),
        Err(Rejected::Usage(error)) => error.exit(),
        Err(Rejected::Config(error)) => fail(CONFIG, &error),
    };
    if let Some(command) = &args.command {
        return print_definitions(command);
    }
    start_log(&args);
    let open_files = raise_open_files();
    let plan = plan::plan(&args, open_files).unwrap_or_else(|refusal| fail(USAGE, &refusal));
    if args.process.check == Some(true) {
        let _ = write!(io::stdout(), "{plan}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(FAILED, &format!("start the runtime: {error}")));
    let (ask, shutdown) = watch::channel(false);
    let (code, signalled) = runtime.block_on(async {
        let signalled = tokio::spawn(await_signals(ask));
        let ended = tokio::spawn(app::run(plan, shutdown)).await;
        (ended, signalled)
    });
    let exit_code = match code {
        Ok(Ok(Exit::Asked)) => BY_SIGNAL + runtime.block_on(signalled).unwrap_or(SIGTERM),
        Ok(Ok(exit)) => exit_code(&exit),
        Ok(Err(error)) => fail(FAILED, &error),
        Err(error) => fail(FAILED, &error),
    };
    leave(exit_code);
}

/// Ends at once: threads that still read standard input would keep a normal return waiting.
fn leave(code: i32) -> ! {
    exec::end();
    exit(code)
}

fn exit_code(exit: &Exit) -> i32 {
    match exit {
        Exit::Done | Exit::Asked => 0,
        Exit::Failed => FAILED,
        Exit::Unreachable => UNREACHABLE,
        Exit::NoStream => NO_STREAM,
        Exit::Refused => REFUSED,
        Exit::TimedOut => TIMED_OUT,
    }
}

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// The first signal asks for a drain, the second ends at once. Returns the first one's number.
async fn await_signals(ask: watch::Sender<bool>) -> i32 {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let first = tokio::select! {
        _ = interrupt.recv() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    };
    ask.send_replace(true);
    tokio::spawn(async move {
        let second = tokio::select! {
            _ = interrupt.recv() => SIGINT,
            _ = terminate.recv() => SIGTERM,
        };
        leave(BY_SIGNAL + second);
    });
    first
}

fn fail(code: i32, why: &dyn std::fmt::Display) -> ! {
    let _ = writeln!(io::stderr(), "wsevent: {why}");
    leave(code)
}

fn show_help(long: bool) {
    let mut command = cli::presented();
    let _ = if long { command.print_long_help() } else { command.print_help() };
}

fn print_definitions(command: &Command) {
    let mut definitions = cli::presented();
    let mut out = Vec::new();
    let printed = match command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut definitions, "wsevent", &mut out);
            Ok(())
        }
        Command::Man => clap_mangen::Man::new(definitions).render(&mut out),
    };
    let _ = printed.and_then(|()| io::stdout().write_all(&out));
}

fn start_log(args: &Args) {
    let (level, format) = plan::logging(args);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// A reader is a descriptor: raises the limit to what the system allows and returns it.
fn raise_open_files() -> usize {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024) as usize
}
