//! What was meant: roles, derived defaults, and every refusal. Pure, so that a table tests it.

mod balance;
mod bench;
mod consume;
mod mqtt;
mod print;
mod produce;
mod registry;
mod script;
mod serve;
mod show;

pub use bench::benching;
pub use consume::{split_header, tracing, upstream};
pub use mqtt::{MqttDoor, MqttPlan};
pub use produce::{KeepOpen, Producer};
pub use serve::key_files;

use consume::{consuming, upstreams};
use print::printing;
use produce::{policy, producing};
use serve::{accept_publish, allowed_hosts, journal, serving, split_address, tls_files};

use crate::{
    balance::{Settings as Balancing, stream::Mode},
    cli::{Args, LogFormat, StageArg},
    id::Since,
    journal::SyncPolicy,
    log::Limits,
    matcher::Match,
    proto::{print::Print, shard::Tuning},
    registry::Settings as Registering,
    script::fault::Limits as ScriptLimits,
    site::Rules,
    source::credentials::Credentials,
    stage::jq::Program,
    tls::TlsFiles,
    token::KeyFiles,
    topic::Policy,
};
use std::{fmt, path::PathBuf, time::Duration};
use url::Url;

/// Where the original program listens and what it serves.
const SERVE_ADDRESS: &str = "localhost:8080";
const PATH: &str = "/events";
/// Where scripts are served that have the process to themselves.
const SCRIPT_ADDRESS: &str = "localhost:3000";

/// What this process is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is served, if anything.
    pub serve: Option<ServePlan>,
    /// Host and port that have status, metrics and page to themselves.
    pub admin: Option<(String, u16)>,
    /// Another process may listen on the same ports.
    pub reuse_port: bool,
    /// What is produced, if anything.
    pub produce: Option<Producer>,
    /// What is consumed.
    pub consume: Vec<Url>,
    /// How.
    pub consuming: Consuming,
    /// What is balanced.
    pub balance: Option<Balancing>,
    /// What is registered, and how.
    pub registry: Option<Registering>,
    /// Where MQTT is spoken.
    pub mqtt: MqttPlan,
    /// What runs and names streams and routes.
    pub scripts: Vec<PathBuf>,
    /// What each script may use, also one among the stages.
    pub script_limits: ScriptLimits,
    /// Files to serve where nothing else is.
    pub folder: Option<PathBuf>,
    /// In order.
    pub stages: Vec<StageArg>,
    /// Events go to standard output.
    pub print: Option<Print>,
    /// What the topic retains.
    pub window: Limits,
    /// Where it is kept over restarts, and how safely.
    pub journal: Option<(PathBuf, SyncPolicy)>,
    /// What happens to slow readers, where it was said or follows.
    pub policy: Option<Policy>,
    /// `block`: readers to await, how long to keep a departed one's place.
    pub wait_readers: usize,
    /// See above.
    pub pin_grace: Duration,
    /// What holds for readers.
    pub tuning: Tuning,
    /// What listeners allow.
    pub rules: Rules,
    /// Who we are to TLS peers.
    pub tls: Option<TlsFiles>,
    /// Who may do what.
    pub keys: KeyFiles,
    /// Spread of a drain's goodbyes, and its deadline.
    pub drain_spread: Duration,
    /// See above.
    pub drain_timeout: Duration,
    /// End after this time.
    pub timeout: Option<Duration>,
}

/// What is served where.
#[derive(Debug, Clone, PartialEq)]
pub struct ServePlan {
    /// As typed: dummy events say it.
    pub address: String,
    /// The host part.
    pub host: String,
    /// 0 is any free one.
    pub port: u16,
    /// With a leading slash.
    pub path: String,
    /// Whether there is a topic at the path; else scripts name all.
    pub topic: bool,
    /// Gets one listener URL per line.
    pub ready_file: Option<PathBuf>,
}

/// How upstreams are consumed.
#[derive(Debug, Clone)]
pub struct Consuming {
    /// Where to begin.
    pub since: Option<Since>,
    /// Where the position is remembered.
    pub cursor_file: Option<PathBuf>,
    /// More certificates to trust.
    pub ca: Option<PathBuf>,
    /// What upstreams are shown about us.
    pub credentials: Credentials,
    /// Failed attempts in a row.
    pub retries: Option<u32>,
    /// The longest pause.
    pub retry_max: Duration,
    /// Silence.
    pub idle_timeout: Option<Duration>,
    /// Send messages back.
    pub echo: bool,
}

/// A sentence that says what to type instead.
#[derive(Debug, PartialEq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Planned<T> = Result<T, Refusal>;

fn refuse<T>(why: impl Into<String>) -> Planned<T> {
    Err(Refusal(why.into()))
}

/// Makes the plan. `open_files` is the process's limit.
///
/// # Errors
/// The first contradiction, as a sentence.
pub fn plan(args: &Args, open_files: usize) -> Planned<Plan> {
    let serve = serving(args)?;
    let admin = args.serve.admin_address.as_deref().map(split_address).transpose()?;
    let consume = upstreams(args)?;
    let balance = balance::balancing(args)?;
    let registry = registry::registering(args, &serve)?;
    let mqtt = mqtt::speaking(args, serve.is_some())?;
    let scripts = script::scripting(args)?;
    let supplied = balance.is_some() || registry.is_some() || !scripts.is_empty();
    let produce = producing(args, consume.is_empty() && !supplied)?;
    let print = printing(args, serve.is_some())?;
    let consuming = consuming(args, &consume)?;
    let tls = tls_files(args, serve.is_some(), &consume)?;
    let keys = key_files(&args.keys);
    if serve.is_none() && !keys.paths().is_empty() {
        return refuse("--token-file, --jwt-secret-file and --jwks are about readers: drop --no-serve");
    }
    check_stages(&args.stages.order)?;
    let journal = journal(args, serve.is_some())?;
    let accept_publish = accept_publish(args, &serve, &produce, &consume, supplied)?;
    let policy = policy(args, &produce, accept_publish);
    let limits = &args.limits;
    let (max_message, second) = (limits.max_message.unwrap_or(1 << 20), Duration::from_secs(1));
    if max_message == 0 || limits.max_connections == Some(0) {
        return refuse("--max-message and --max-connections are at least 1: with 0 nobody would be served");
    }
    let max_connections = limits.max_connections.unwrap_or_else(|| open_files.saturating_sub(64).max(16));
    let allow_host = allowed_hosts(args, &serve)?;
    let mut plan = Plan {
        serve,
        admin,
        reuse_port: args.serve.reuse_port == Some(true),
        produce,
        consume,
        consuming,
        balance,
        registry,
        mqtt,
        scripts,
        script_limits: script::limits(args)?,
        folder: args.script.folder.clone(),
        stages: args.stages.order.clone(),
        print,
        window: Limits {
            events: args.window.history.max(1),
            bytes: args.window.history_bytes.unwrap_or(16 << 20) as u64,
            age: args.window.history_age,
        },
        journal,
        policy,
        wait_readers: args.window.wait_readers,
        pin_grace: args.window.pin_grace.unwrap_or(30 * second),
        tuning: Tuning {
            ping_interval: limits.ping_interval.unwrap_or(25 * second),
            keep_alive: limits.keep_alive.unwrap_or(15 * second),
            backlog: args.window.reader_backlog.map(|bytes| bytes as u64),
            max_message,
            block_timeout: args.window.block_timeout,
        },
        rules: Rules {
            accept_publish,
            deflate: args.limits.deflate == Some(true),
            envelope: args.serve.envelope.is_some(),
            publish_by_right: false,
            allow_origin: args.serve.allow_origin.clone(),
            allow_host,
            max_message,
            handshake_timeout: limits.handshake_timeout.unwrap_or(10 * second),
            proxied: args.serve.proxy_protocol == Some(true),
            max_connections,
        },
        drain_spread: limits.drain_spread.unwrap_or_default(),
        drain_timeout: limits.drain_timeout.unwrap_or(10 * second),
        timeout: args.print.timeout,
        tls,
        keys,
    };
    // Where ids are kept, nothing can stand between them.
    plan.rules.publish_by_right = !plan.keys.paths().is_empty() && !plan.keeps_ids() && plan.registry.is_none();
    Ok(plan)
}

fn check_stages(stages: &[StageArg]) -> Planned<()> {
    for stage in stages {
        let checked = match stage {
            StageArg::Match(text) => Match::parse(text).map(drop).map_err(|error| format!("--match {error}")),
            StageArg::Filter(text) => Program::compile(text).map(drop).map_err(|error| format!("--filter {error}")),
            StageArg::Map(text) => Program::compile(text).map(drop).map_err(|error| format!("--map {error}")),
            StageArg::Dedupe(pointer) if !pointer.is_empty() && !pointer.starts_with('/') => {
                Err(format!("--dedupe `{pointer}` is not a JSON pointer: type for instance /id"))
            }
            _ => Ok(()),
        };
        checked.map_err(Refusal)?;
    }
    Ok(())
}

/// What the log's level and form are to be.
pub fn logging(args: &Args) -> (tracing::Level, LogFormat) {
    let level = match (args.process.quiet == Some(true), args.process.verbose) {
        (true, _) => tracing::Level::ERROR,
        (false, 0) => tracing::Level::INFO,
        (false, 1) => tracing::Level::DEBUG,
        (false, _) => tracing::Level::TRACE,
    };
    (level, args.process.log_format.unwrap_or_default())
}

impl Plan {
    /// Whether there are certificates, keys, a list of back ends or scripts, which are read again on request.
    pub fn reads_again(&self) -> bool {
        let lists = self.balance.as_ref().is_some_and(|balance| balance.file.is_some());
        self.tls.is_some() || !self.keys.paths().is_empty() || lists || self.has_scripts()
    }

    /// Whether a topic of back ends may be served from a log here.
    pub fn streams(&self) -> bool {
        self.balance.as_ref().is_some_and(|balance| balance.mode != Mode::Relay)
    }

    fn has_scripts(&self) -> bool {
        !self.scripts.is_empty() || self.stages.iter().any(|stage| matches!(stage, StageArg::Script(_)))
    }

    /// Whether jq programs run, which take a large stack.
    pub fn runs_programs(&self) -> bool {
        let is_program = |stage: &StageArg| matches!(stage, StageArg::Filter(_) | StageArg::Map(_));
        self.stages.iter().any(is_program) || self.print.as_ref().is_some_and(|print| print.until.is_some())
    }

    /// Whether what is supplied here is read at a path of its own.
    pub fn has_topic(&self) -> bool {
        let named = self.serve.as_ref().is_none_or(|serve| serve.topic);
        named && (self.balance.is_none() || self.streams())
    }

    /// LINKS 2: exactly one upstream, no other input, and stages that leave ids alone.
    pub fn keeps_ids(&self) -> bool {
        let one_input = self.consume.len() == 1 || self.streams();
        let only = one_input && self.produce.is_none() && !self.rules.accept_publish;
        only && self.stages.iter().all(StageArg::is_pure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str) -> Planned<Plan> {
        let words = std::iter::once("wsevent").chain(line.split(' ').filter(|word| !word.is_empty()));
        plan(&crate::cli::parse(words.map(Into::into)).expect(line), 1024)
    }

    #[test]
    fn roles_follow_from_the_options() {
        type Check = fn(&Plan) -> bool;
        let table: [(&str, Check); 20] = [
            ("", |p| p.produce == Some(Producer::Random) && !p.rules.accept_publish),
            ("", |p| p.serve.as_ref().is_some_and(|s| s.address == "localhost:8080" && s.path == "/events")),
            ("-serve-address localhost:8081", |p| p.serve.as_ref().is_some_and(|s| s.port == 8081)),
            ("--serve :9090/a/b", |p| p.serve.as_ref().is_some_and(|s| s.host.is_empty() && s.path == "/a/b")),
            ("--serve ws://h:1/x", |p| {
                p.serve.as_ref().is_some_and(|s| s.host == "h" && s.port == 1 && s.path == "/x")
            }),
            ("-consume-path events -consume-address localhost:8080 -no-produce", |p| {
                p.consume[0].as_str() == "ws://localhost:8080/events" && p.produce.is_none()
            }),
            ("--consume localhost:8080", |p| p.consume[0].as_str() == "ws://localhost:8080/events"),
            ("--consume localhost:8080/", |p| p.consume[0].as_str() == "ws://localhost:8080/"),
            ("--consume http://h/x?y=1", |p| p.consume[0].as_str() == "http://h/x?y=1"),
            ("--no-produce", |p| p.produce.is_none() && p.rules.accept_publish),
            ("--produce -", |p| p.policy == Some(Policy::Block)),
            ("--produce - --accept-publish", |p| p.policy.is_none()),
            ("--produce exec:date", |p| p.policy.is_none()),
            ("--balance a:1,b:1", |p| {
                p.balance.as_ref().is_some_and(|b| b.members.len() == 2)
                    && p.produce.is_none()
                    && !p.rules.accept_publish
            }),
            ("--registry -heartbeat-timeout 500ms", |p| {
                p.registry.as_ref().is_some_and(|r| r.patience.heartbeat_timeout == Duration::from_millis(500))
                    && p.produce.is_none()
                    && !p.rules.accept_publish
            }),
            ("--registry", |p| p.mqtt.listen.as_ref().is_some_and(|door| door.port == 1883 && door.optional)),
            ("--registry --mqtt-listen off", |p| p.mqtt.listen.is_none()),
            ("--mqtt-publish mqtts://u:p@h", |p| p.mqtt.publish.as_ref().is_some_and(|url| url.port() == Some(8883))),
            ("--mqtt-listen :0", |p| p.mqtt.listen.as_ref().is_some_and(|door| door.port == 0 && !door.optional)),
            ("--produce - --no-serve --map .a", |p| p.serve.is_none() && p.print.is_some()),
        ];
        for (line, check) in table {
            let plan = meant(line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
            assert!(check(&plan), "{line}: {plan:?}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_what_to_type_instead() {
        let table = [
            ("--cursor-file c", "--consume"),
            ("--consume ws://a/b --consume-path x", "--consume-path"),
            ("--serve :1 --serve-path x", "--serve-path"),
            ("--no-serve --serve :1", "--no-serve"),
            ("--no-serve --no-produce", "--consume"),
            ("--produce - --no-produce", "drop one"),
            ("--framing nul", "--produce"),
            ("--count 3", "--no-serve"),
            ("--since now", "--consume"),
            ("--consume ftp://a/b", "wss"),
            ("--consume ws://", "`ws://`"),
            ("--serve 8080", "localhost:8080"),
            ("--serve ::1:80", "brackets"),
            ("--serve :1/-/x", "/-/"),
            ("--produce tcp:1", "exec:COMMAND"),
            ("--filter .a|", "--filter"),
            ("--match []", "--match"),
            ("--no-serve --until .a|", "--until"),
            ("--consume a/b --consume a/c --cursor-file f", "--cursor-file"),
            ("--consume a/b -H nonsense", "Name: value"),
            ("--consume http://a/b --echo", "ws"),
            ("--no-produce --accept-publish=false", "--accept-publish"),
            ("--balance a:1 --consume b:1", "--consume"),
            ("--balance a:1 --filter .a", "stages"),
            ("--balance a:1,http://b:1/events", "whole servers"),
            ("--balance ftp://a", "https"),
            ("--balance a:1 --no-serve", "--no-serve"),
            ("--balance a:1 --balance-mode stream", "http://H:P/PATH"),
            ("--registry --users u", "--jwt-secret-file"),
            ("--registry --protect-writes", "--jwt-secret-file"),
            ("--users u", "--registry"),
            ("--registry --accept-publish", "--accept-publish"),
            ("--registry --produce -", "--produce"),
            ("--registry --serve :1/x", "/events"),
            ("--registry --heartbeat-timeout 0s", "30s"),
            ("--mqtt-listen 1883", "localhost:8080"),
            ("--mqtt-topic a/b", "--registry"),
            ("--mqtt-publish localhost:1883", "mqtt://"),
            ("--mqtt-publish http://h", "mqtt://"),
            ("--mqtt-publish mqtt://h/topic", "mqtt://"),
            ("--consume a/b --no-serve --mqtt-publish mqtt://h", "--no-serve"),
            ("--registry --mqtt-topic a/+", "maxine"),
            ("--consume a/b --no-serve --mqtt-listen :1883", "--no-serve"),
            ("--journal-sync always", "--journal DIR"),
            ("--consume a/b --no-serve --journal d", "--cursor-file"),
            ("--balance a:1 --balance-file f", "one of them"),
            ("--balance a:1/x --balance-proxy-protocol", "--balance-mode relay"),
            ("--balance a:1 --sticky-cookie a;b", "--sticky-cookie"),
            ("--balance a:1/x --journal d", "--consume ws://H:P/events --journal DIR"),
            ("--balance registry+http://a:1", "SERVICE"),
            ("--balance registry+http://a:1/web,b:1", "alone"),
            ("--balance registry+http://a:1/web --balance-file f", "one of them"),
            ("--balance registry+http://a:1/web --balance-mode stream", "http://H:P/PATH"),
            ("--balance a:1 --balance-registry-token-file f", "registry+"),
        ];
        for (line, hint) in table {
            let refusal = meant(line).err().unwrap_or_else(|| panic!("not refused: {line}"));
            assert!(refusal.0.contains(hint), "{line}: {refusal}");
        }
    }
}
