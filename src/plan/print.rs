//! What is printed, and how.

use super::{Planned, Refusal, refuse};
use crate::{
    cli::Args,
    proto::{
        cloudevents::Envelope,
        print::{Output, Print},
    },
    stage::jq::Program,
};

pub(super) fn printing(args: &Args, serves: bool) -> Planned<Option<Print>> {
    let print = &args.print;
    if serves {
        let asked = [
            ("--output", print.output.is_some()),
            ("--count", print.count.is_some()),
            ("--until", print.until.is_some()),
        ];
        return match asked.iter().find(|(_, asked)| *asked) {
            Some((option, _)) => refuse(format!("{option} is about printed events: add --no-serve")),
            None => Ok(None),
        };
    }
    if let Some(program) = &print.until {
        Program::compile(program).map_err(|error| Refusal(format!("--until {error}")))?;
    }
    let output = match (print.output, args.serve.envelope) {
        (Some(_), Some(_)) => return refuse("--envelope prints one CloudEvent per line: leave --output out"),
        (None, Some(Envelope::CloudEvents)) => Output::CloudEvents,
        (output, None) => output.unwrap_or_default(),
    };
    Ok(Some(Print { output, count: print.count, until: print.until.clone() }))
}
