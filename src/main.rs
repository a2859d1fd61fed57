//! Typed, meant, run, exit code. The only place that handles signals and exits.

use anstream::{AutoStream, stream::RawStream};
use clap::builder::StyledStr;
use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    process::exit,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};
use wsevent::{
    app::{self, Exit, StartError},
    bench,
    cli::{self, Args, Command, LogFormat, Rejected},
    logging::{self, LogWriter},
    manual,
    net::{Dialer, redacted},
    panics, plan,
    proto::admin::fetch::Silence,
    registry::users,
    script,
    source::exec,
    stage::jq,
    stdio, tls,
    token::Keys,
    trace::{self, Trace},
    units::now_ms,
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

/// For a reader of `bench` to connect, and again for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn main() {
    logging::start();
    let args = match cli::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(Rejected::Help(long)) => show_help(long),
        Err(Rejected::Usage(error)) => explain(&error),
        Err(Rejected::Config(error)) => fail(CONFIG, &error),
    };
    if let Some(command) = &args.command {
        run_command(command, &args);
        leave(0);
    }
    start_log(&args);
    panics::watch();
    let open_files = raise_open_files();
    let plan = plan::plan(&args, open_files).unwrap_or_else(|refusal| fail(USAGE, &refusal));
    if args.process.check == Some(true) {
        app::check(&plan).unwrap_or_else(|why| fail(CONFIG, &why));
        print(plan.to_string());
        leave(0);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if plan.runs_programs() {
        runtime.thread_stack_size(jq::STACK);
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(FAILED, &format!("start the runtime: {error}")));
    let (ask, shutdown) = watch::channel(false);
    let (code, signalled) = runtime.block_on(async {
        let signalled = tokio::spawn(await_signals(ask));
        let reload = if plan.reads_again() { hang_ups() } else { watch::channel(0).1 };
        let ended = tokio::spawn(app::run(plan, shutdown, reload)).await;
        (ended, signalled)
    });
    let exit_code = match code {
        Ok(Ok(Exit::Asked)) => BY_SIGNAL + runtime.block_on(signalled).unwrap_or(SIGTERM),
        Ok(Ok(exit)) => exit_code(&exit),
        Ok(Err(error @ StartError::Misconfigured(_))) => fail(CONFIG, &error),
        Ok(Err(error)) => fail(FAILED, &error),
        Err(error) => fail(FAILED, &error),
    };
    leave(exit_code);
}

/// Ends at once: threads that still read standard input would keep a normal return waiting.
fn leave(code: i32) -> ! {
    exec::end();
    logging::flush();
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

/// Counts SIGHUPs: each asks to read certificates, keys and lists again. Without those it ends us, as it does others.
fn hang_ups() -> watch::Receiver<u64> {
    let (told, asked) = watch::channel(0);
    if let Ok(mut hang_up) = signal(SignalKind::hangup()) {
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                told.send_modify(|times| *times += 1);
            }
        });
    }
    asked
}

fn fail(code: i32, why: &dyn std::fmt::Display) -> ! {
    logging::say(&format!("wsevent: {why}\n"));
    leave(code)
}

/// Prints to standard output, and ends with an error where that fails; a reader that has gone is no error.
fn print(text: impl AsRef<[u8]>) {
    match stdio::print(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(FAILED, &format!("write to standard output: {error}"))
        }
        _ => {}
    }
}

fn show_help(long: bool) -> ! {
    let mut command = cli::presented();
    print(coloured(&if long { command.render_long_help() } else { command.render_help() }, &io::stdout()));
    leave(0)
}

/// Ends with clap's answer: a usage error, the version, or the help of a subcommand.
fn explain(answer: &clap::Error) -> ! {
    if answer.use_stderr() {
        logging::say(&String::from_utf8_lossy(&coloured(&answer.render(), &io::stderr())));
    } else {
        print(coloured(&answer.render(), &io::stdout()));
    }
    leave(answer.exit_code())
}

/// The text as it is written to the stream: terminals get colours, unless the environment says otherwise.
fn coloured(text: &StyledStr, stream: &impl RawStream) -> Vec<u8> {
    let mut out = AutoStream::new(Vec::new(), AutoStream::choice(stream));
    // Writing to memory does not fail.
    let _ = write!(out, "{}", text.ansi());
    out.into_inner()
}

fn run_command(command: &Command, args: &Args) {
    match command {
        Command::CheckToken { keys } => check_token(keys, args),
        Command::HashPassword => hash_password(),
        Command::Trace(typed) => trace(typed),
        Command::Bench(typed) => bench(typed, args),
        Command::Types => print(script::TYPES),
        _ => print_definitions(command),
    }
}

/// Prints the claims of the token on standard input, or ends with why it is refused.
fn check_token(keys: &cli::Keys, args: &Args) {
    start_log(args);
    let files = plan::key_files(keys);
    if files.paths().is_empty() {
        fail(USAGE, &"name the keys: add --token-file, --jwt-secret-file or --jwks");
    }
    let keys = Keys::load(&files).unwrap_or_else(|error| fail(CONFIG, &error));
    let token = stdio::read_text();
    let token = token.unwrap_or_else(|error| fail(FAILED, &format!("read the token from standard input: {error}")));
    match keys.describe(token.trim(), now_ms()) {
        Ok(claims) => print(format!("{claims}\n")),
        Err(why) => fail(REFUSED, &format!("the token is refused: {why}")),
    }
}

/// Prints what stands for the password on standard input; a line feed behind it is none of it.
fn hash_password() {
    let failed = |error| fail(FAILED, &format!("read the password from standard input: {error}"));
    let password = stdio::read_text().unwrap_or_else(failed);
    let password = password.strip_suffix('\n').unwrap_or(&password);
    if password.is_empty() {
        fail(USAGE, &"type the password on standard input");
    }
    match users::hash(password) {
        Ok(hash) => print(format!("{hash}\n")),
        Err(error) => fail(FAILED, &format!("hash the password: {error}")),
    }
}

/// Prints the hops up to the origin; fails when one of them does not read the next.
fn trace(typed: &cli::Trace) {
    let (url, credentials) = plan::tracing(typed).unwrap_or_else(|refusal| fail(USAGE, &refusal));
    let tls = tls::client_config(typed.client.ca.as_deref(), None).unwrap_or_else(|error| fail(FAILED, &error));
    let dialer = Dialer { tls, timeout: typed.timeout, at: None };
    let trace = Trace { url, credentials, dialer, looks: typed.count };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(FAILED, &format!("start the runtime: {error}")));
    match runtime.block_on(trace::run(&trace)) {
        Ok(route) => {
            print(route.to_string());
            leave(if route.is_whole() { 0 } else { UNREACHABLE });
        }
        Err(silence) => {
            let code = match silence {
                Silence::Unreachable(_) => UNREACHABLE,
                Silence::Refused(_) => REFUSED,
                Silence::NoStatus(_) => NO_STREAM,
            };
            fail(code, &format!("trace {}: {silence}", redacted(&trace.url)));
        }
    }
}

/// Prints what was measured; fails where `--verify` finds something.
fn bench(typed: &cli::Bench, args: &Args) {
    start_log(args);
    raise_open_files();
    let settings = plan::benching(typed).unwrap_or_else(|refusal| fail(USAGE, &refusal));
    let tls = tls::client_config(typed.client.ca.as_deref(), None).unwrap_or_else(|error| fail(FAILED, &error));
    let dialer = Dialer { tls, timeout: HANDSHAKE, at: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(FAILED, &format!("start the runtime: {error}")));
    let (ask, stop) = watch::channel(false);
    let signalled = runtime.spawn(await_signals(ask));
    let measured = runtime.block_on(bench::run(&settings, dialer, stop.clone()));
    let report = measured.unwrap_or_else(|why| fail(FAILED, &format!("bench: {why}")));
    match typed.output {
        _ if typed.emit => {}
        cli::Form::Table => print(report.to_string()),
        cli::Form::Json => print(format!("{}\n", report.to_json())),
    }
    let wrong = if typed.verify { report.wrong() } else { Vec::new() };
    wrong.iter().for_each(|one| logging::say(&format!("wsevent: bench: {one}\n")));
    let interrupted = *stop.borrow();
    leave(match (report.is_connected(), wrong.is_empty()) {
        (false, _) => UNREACHABLE,
        (_, false) => FAILED,
        _ if interrupted => BY_SIGNAL + runtime.block_on(signalled).unwrap_or(SIGTERM),
        _ => 0,
    });
}

fn print_definitions(command: &Command) {
    let mut definitions = cli::presented();
    let mut out = Vec::new();
    let printed = match command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut definitions, "wsevent", &mut out);
            Ok(())
        }
        Command::Man => manual::render(definitions, &mut out),
        Command::CheckToken { .. } | Command::HashPassword | Command::Trace(_) | Command::Bench(_) | Command::Types => {
            Ok(())
        }
    };
    match printed {
        Ok(()) => print(out),
        Err(error) => fail(FAILED, &error),
    }
}

fn start_log(args: &Args) {
    let (level, format) = plan::logging(args);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(colour);
    // Its own complaints would wait for standard error, and end us where that fails.
    let log = log.with_writer(LogWriter::default()).log_internal_errors(false);
    // Libraries tell what passes through them, which is not theirs to tell.
    let own = Targets::new().with_target("wsevent", level);
    let own = if level == tracing::Level::ERROR { own.with_target(script::CONSOLE, LevelFilter::OFF) } else { own };
    match format {
        LogFormat::Text => log.finish().with(own).init(),
        LogFormat::Json => log.json().finish().with(own).init(),
    }
}

/// A reader is a descriptor: raises the limit to what the system allows and returns it.
fn raise_open_files() -> usize {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024) as usize
}
