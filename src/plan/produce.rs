//! What is produced, and who waits for whom then.

use super::{Planned, refuse};
use crate::{cli::Args, source::lines::Framing, topic::Policy};
use std::path::PathBuf;

/// What is produced.
#[derive(Debug, Clone, PartialEq)]
pub enum Producer {
    /// Dummy events.
    Random,
    /// Standard input.
    Stdin(Framing, KeepOpen),
    /// A file, once.
    File(PathBuf, Framing, KeepOpen),
    /// A command's output.
    Exec(String, Framing, KeepOpen),
}

/// Whether to go on serving when the input has ended.
pub type KeepOpen = bool;

pub(super) fn producing(args: &Args, nothing_consumed: bool) -> Planned<Option<Producer>> {
    let produce = &args.produce;
    let keep_open = produce.keep_open == Some(true);
    let Some(source) = &produce.produce else {
        if produce.framing.is_some() || keep_open {
            return refuse(
                "--framing and --keep-open are about an input: add --produce -, --produce file:PATH or exec:COMMAND",
            );
        }
        let random = nothing_consumed && produce.no_produce != Some(true);
        return Ok(random.then_some(Producer::Random));
    };
    if produce.no_produce == Some(true) {
        return refuse("--produce and --no-produce contradict each other: drop one");
    }
    let framing = produce.framing.unwrap_or(Framing::Line);
    match (source.as_str(), source.split_once(':')) {
        ("-", _) => Ok(Some(Producer::Stdin(framing, keep_open))),
        (_, Some(("exec", command))) if !command.is_empty() => {
            Ok(Some(Producer::Exec(command.into(), framing, keep_open)))
        }
        (_, Some(("file", path))) if !path.is_empty() => Ok(Some(Producer::File(path.into(), framing, keep_open))),
        _ => refuse(format!("cannot produce from `{source}`: type -, exec:COMMAND or file:PATH")),
    }
}

/// `block` is right for `cat file | wsevent`, never where peers may publish (LINKS 23).
pub(super) fn policy(args: &Args, produce: &Option<Producer>, accept_publish: bool) -> Option<Policy> {
    let input = matches!(produce, Some(Producer::Stdin(..) | Producer::File(..)));
    args.window.slow_reader.clone().or_else(|| (input && !accept_publish).then_some(Policy::Block))
}
