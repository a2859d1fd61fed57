//! From words to options: both dash spellings, the environment, the config file.

use super::{Args, options::StageArg};
use clap::{CommandFactory, FromArgMatches, parser::ValueSource};
use std::{ffi::OsString, path::PathBuf};

/// The variables that keep their names, and the options they stand for.
const SEED_VARIABLES: [(&str, &str); 7] = [
    ("SERVE_ENDPOINT", "serve"),
    ("SERVE_ADDRESS", "serve_address"),
    ("SERVE_PATH", "serve_path"),
    ("CONSUME_ENDPOINT", "consume"),
    ("CONSUME_ADDRESS", "consume_address"),
    ("CONSUME_PATH", "consume_path"),
    ("NO_PRODUCE", "no_produce"),
];

/// What says the same in two ways: the whole, and its parts.
const SHORT_FORMS: [(&str, [&str; 2]); 2] =
    [("serve", ["serve_address", "serve_path"]), ("consume", ["consume_address", "consume_path"])];

/// The command with its environment variables.
pub fn command() -> clap::Command {
    let command = with_environment(Args::command());
    command.mut_subcommand("check-token", with_environment)
}

fn with_environment(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let own = |name: &str| format!("WSEVENT_{}", name.to_uppercase());
    names.iter().filter(|name| !matches!(name.as_str(), "help" | "version")).fold(command, |command, name| {
        let seed =
            SEED_VARIABLES.iter().find(|(variable, option)| option == name && std::env::var_os(variable).is_some());
        let variable = seed.map_or_else(|| own(name), |(variable, _)| (*variable).to_owned());
        command.mut_arg(name, |arg| arg.env(variable).hide_env(true))
    })
}

/// The command as it is shown to people: switches without the value that only scripts give them.
pub fn presented() -> clap::Command {
    let command = Args::command();
    let is_switch = |arg: &&clap::Arg| arg.is_require_equals_set();
    let switches: Vec<_> = command.get_arguments().filter(is_switch).map(|arg| arg.get_id().clone()).collect();
    switches.into_iter().fold(command, |command, id| {
        command.mut_arg(id, |arg| {
            let arg = arg.num_args(0).require_equals(false).action(clap::ArgAction::SetTrue);
            arg.value_parser(clap::value_parser!(bool)).hide_possible_values(false).default_missing_value(None)
        })
    })
}

/// Gives a second hyphen to `-NAME` and `-NAME=value`: whatever is longer than one letter and no cluster of the short
/// options.
pub fn from_go_spelling(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_name = |text: &str| {
        let name = text.split('=').next().unwrap_or("");
        let starts_like_one = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase());
        starts_like_one && !name.chars().all(|c| "qvhV".contains(c))
    };
    let respell = |arg: OsString| match arg.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(text) if is_name(text) => format!("--{text}").into(),
        _ => arg,
    };
    args.into_iter().map(respell).collect()
}

/// Why there are no arguments.
#[derive(Debug)]
pub enum Rejected {
    /// The help was asked for, long or short.
    Help(bool),
    /// clap's answer, also `--version`.
    Usage(clap::Error),
    /// The config file.
    Config(String),
}

/// Reads the arguments (the first is the program's name), the environment and the config file.
///
/// # Errors
/// See [`Rejected`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Rejected> {
    let args = from_go_spelling(args);
    let mut matches = command().try_get_matches_from(args.clone()).map_err(|error| rejected(error, &args))?;
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let command = with_config(command(), path).map_err(Rejected::Config)?;
        // Without the file the same arguments were fine.
        let wrong = |error: clap::Error| Rejected::Config(format!("--config {}: {error}", path.display()));
        matches = command.try_get_matches_from(args).map_err(wrong)?;
    }
    let mut args = Args::from_arg_matches(&matches).map_err(Rejected::Usage)?;
    args.stages.order = stage_order(&matches);
    drop_weaker(&mut args, &matches);
    Ok(args)
}

fn rejected(error: clap::Error, args: &[OsString]) -> Rejected {
    use clap::error::ErrorKind::DisplayHelp;
    let of_command =
        args.get(1).and_then(|arg| arg.to_str()).is_some_and(|arg| command().find_subcommand(arg).is_some());
    match error.kind() {
        DisplayHelp if !of_command => Rejected::Help(std::env::args_os().any(|arg| arg == "--help" || arg == "-help")),
        _ => Rejected::Usage(error),
    }
}

/// Stages by where they stood on the command line.
fn stage_order(matches: &clap::ArgMatches) -> Vec<StageArg> {
    let mut stages: Vec<(usize, StageArg)> = typed(matches, "matches", StageArg::Match)
        .chain(typed(matches, "filter", StageArg::Filter))
        .chain(typed(matches, "map", StageArg::Map))
        .chain(typed(matches, "dedupe", StageArg::Dedupe))
        .chain(typed(matches, "sample", StageArg::Sample))
        .chain(typed(matches, "throttle", StageArg::Throttle))
        .chain(typed(matches, "stage_script", StageArg::Script))
        .collect();
    if matches.get_one::<bool>("hop_prefix") == Some(&true) {
        stages.push((matches.index_of("hop_prefix").unwrap_or(0), StageArg::HopPrefix));
    }
    stages.sort_by_key(|(at, _)| *at);
    stages.into_iter().map(|(_, stage)| stage).collect()
}

/// An option's values with their places on the command line.
fn typed<'a, T: Clone + Send + Sync + 'static>(
    matches: &'a clap::ArgMatches,
    id: &'static str,
    make: fn(T) -> StageArg,
) -> impl Iterator<Item = (usize, StageArg)> + 'a {
    let values = matches.get_many::<T>(id).into_iter().flatten().cloned();
    matches.indices_of(id).into_iter().flatten().zip(values).map(move |(at, value)| (at, make(value)))
}

/// An option beats the environment, which beats the config file, also where one says in one piece what the other says
/// in two.
fn drop_weaker(args: &mut Args, matches: &clap::ArgMatches) {
    let strength = |id: &str| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(ValueSource::DefaultValue) => 1,
        _ => 0,
    };
    let no_serve = if args.serve.no_serve == Some(true) { strength("no_serve") } else { 0 };
    for (option, value) in [
        ("serve", &mut args.serve.serve),
        ("serve_address", &mut args.serve.serve_address),
        ("serve_path", &mut args.serve.serve_path),
    ] {
        if no_serve > strength(option) {
            *value = None;
        }
    }
    if strength("produce") > strength("no_produce") {
        args.produce.no_produce = None;
    } else if strength("no_produce") > strength("produce") && args.produce.no_produce == Some(true) {
        args.produce.produce = None;
    }
    for (whole, parts) in SHORT_FORMS {
        let strongest = parts.iter().map(|part| strength(part)).max().unwrap_or(0);
        match (whole, strength(whole).cmp(&strongest)) {
            ("serve", std::cmp::Ordering::Greater) => (args.serve.serve_address, args.serve.serve_path) = (None, None),
            ("serve", std::cmp::Ordering::Less) => args.serve.serve = None,
            ("consume", std::cmp::Ordering::Greater) => {
                (args.consume.consume_address, args.consume.consume_path) = (None, None);
            }
            ("consume", std::cmp::Ordering::Less) => args.consume.consume.clear(),
            _ => {}
        }
    }
}

/// The file's values become the options' defaults.
fn with_config(mut command: clap::Command, path: &std::path::Path) -> Result<clap::Command, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("read --config {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(&error))?;
    for (name, value) in table {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(&name)).map(|arg| arg.get_id().clone());
        let id = known.filter(|id| id != "config").ok_or_else(|| wrong(&format!("no option is named `{name}`")))?;
        let values = match value {
            toml::Value::Array(values) => values.iter().map(plain).collect(),
            other => vec![plain(&other)],
        };
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(switch) => switch.to_string(),
        // Nothing of ours takes a date or a table; the option's own parser says so.
        other => other.type_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Args {
        parse(line.split(' ').map(OsString::from)).expect(line)
    }

    #[test]
    fn the_definitions_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn one_hyphen_is_as_good_as_two() {
        let spelled = |line: &str| from_go_spelling(line.split(' ').map(OsString::from));
        let table = [
            ("wsevent -serve-address x", "wsevent --serve-address x"),
            ("wsevent -no-produce=false", "wsevent --no-produce=false"),
            ("wsevent -H a:b -v -vv -q", "wsevent -H a:b -v -vv -q"),
            ("wsevent --produce - -help", "wsevent --produce - --help"),
            ("wsevent -nonsense", "wsevent --nonsense"),
            ("wsevent -", "wsevent -"),
        ];
        for (typed, meant) in table {
            assert_eq!(spelled(typed), meant.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn switches_take_an_explicit_value() {
        assert_eq!(typed("wsevent -no-produce").produce.no_produce, Some(true));
        assert_eq!(typed("wsevent -no-produce=false").produce.no_produce, Some(false));
        assert_eq!(typed("wsevent").produce.no_produce, None);
    }

    #[test]
    fn stages_keep_the_order_in_which_they_were_typed() {
        let order = typed("wsevent --map .a --match {} --filter .b --hop-prefix --map .c").stages.order;
        let (map, filter) = (|s: &str| StageArg::Map(s.into()), |s: &str| StageArg::Filter(s.into()));
        assert_eq!(order, [map(".a"), StageArg::Match("{}".into()), filter(".b"), StageArg::HopPrefix, map(".c")]);
    }

    #[test]
    fn produce_takes_a_lone_hyphen() {
        assert_eq!(typed("wsevent --produce -").produce.produce.as_deref(), Some("-"));
        assert_eq!(typed("wsevent -produce - -no-serve").produce.produce.as_deref(), Some("-"));
    }
}
