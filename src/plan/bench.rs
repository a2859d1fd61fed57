//! What a measurement is to do.

use super::{Planned, Refusal, consume::credentials, refuse, upstream};
use crate::{
    bench::{Pace, Settings, Sourcing, stamp},
    cli::Bench,
};
use std::time::Duration;
use url::Url;

/// How long it takes, unless that is said.
const DURATION: Duration = Duration::from_secs(10);
/// Of an event, unless that is said.
const SIZE: usize = 100;

/// What `bench` measures.
///
/// # Errors
/// What cannot be measured.
pub fn benching(typed: &Bench) -> Planned<Settings> {
    check_roles(typed)?;
    let url = typed.url.as_deref().map(target).transpose()?;
    let source = sourcing(typed)?;
    if source.is_none() && (typed.rate.is_some() || typed.size.is_some() || typed.count.is_some()) {
        return refuse("--rate, --size and --count are about a source: add --emit or --publish URL");
    }
    Ok(Settings {
        readers: if url.is_some() { typed.readers } else { 0 },
        url,
        credentials: credentials(&typed.client)?,
        stalled: typed.stalled,
        connect_rate: typed.connect_rate,
        duration: typed.duration.or((!typed.emit).then_some(DURATION)),
        pids: typed.pid.clone(),
        source,
    })
}

/// What can be consumed, or a broker's topic as `nats://H:P/TOPIC` or `mqtt://H:P/TOPIC`.
fn target(text: &str) -> Planned<Url> {
    let port = match text.split_once("://") {
        Some(("nats", _)) => 4222,
        Some(("mqtt", _)) => 1883,
        _ => return upstream(text),
    };
    let mut url = Url::parse(text).map_err(|error| Refusal(format!("`{text}` is not a URL: {error}")))?;
    if url.host_str().is_none_or(str::is_empty) || url.path().len() < 2 {
        return refuse(format!("`{text}` names no topic of a broker: type for instance nats://localhost:4222/events"));
    }
    if url.port().is_none() {
        let _ = url.set_port(Some(port));
    }
    Ok(url)
}

fn check_roles(typed: &Bench) -> Planned<()> {
    let reads = typed.url.is_some();
    if !reads && !typed.emit && typed.publish.is_none() {
        return refuse("nothing to do: name a URL to read, or add --emit or --publish URL");
    }
    if reads && typed.emit {
        return refuse("--emit only prints lines: read the URL with another `wsevent bench`, or use --publish URL");
    }
    if !reads && typed.verify {
        return refuse("--verify looks at what readers get: name a URL to read");
    }
    if typed.window.is_some() && (!reads || typed.publish.is_none()) {
        return refuse("--window waits for readers: name a URL to read, and add --publish URL");
    }
    if reads && typed.readers <= typed.stalled {
        return refuse("--stalled are some of the --readers: at least one must read");
    }
    Ok(())
}

fn sourcing(typed: &Bench) -> Planned<Option<Sourcing>> {
    if !typed.emit && typed.publish.is_none() {
        return Ok(None);
    }
    let pace = match (typed.rate, typed.window) {
        (Some(rate), _) if rate.is_finite() && rate > 0.0 => Pace::Rate(rate),
        (Some(_), _) => return refuse("--rate is a number of events a second: type for instance 40"),
        (None, Some(window)) => Pace::Window(window as usize),
        (None, None) => Pace::Free,
    };
    let size = typed.size.unwrap_or(SIZE);
    if size < stamp::LEN {
        return refuse(format!("--size {size} has no room for the stamp: type at least {}", stamp::LEN));
    }
    Ok(Some(Sourcing { to: typed.publish.as_deref().map(target).transpose()?, pace, size, count: typed.count }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};

    fn planned(line: &str) -> Planned<Settings> {
        let args = format!("wsevent bench {line}");
        let args = cli::parse(args.split_whitespace().map(Into::into)).expect(line);
        let Some(Command::Bench(typed)) = args.command else { panic!("{line}") };
        benching(&typed)
    }

    #[test]
    fn refusals_say_what_to_type() {
        let table = [
            ("", "name a URL"),
            (":1/x --emit", "--publish URL"),
            ("--emit --verify", "name a URL"),
            (":1/x --window 4", "--publish URL"),
            ("--publish :1/x --window 4", "name a URL"),
            (":1/x --readers 0", "at least one"),
            (":1/x --readers 5 --stalled 5", "at least one"),
            (":1/x --rate 5", "--emit"),
            ("--emit --rate 0", "for instance 40"),
            ("--emit --size 20", "at least 38"),
            ("ftp://x/y", "ftp"),
            ("--publish ftp://x/y", "ftp"),
        ];
        for (line, hint) in table {
            let refusal = planned(line).map(|_| ()).expect_err(line).to_string();
            assert!(refusal.contains(hint), "{line}: {refusal}");
        }
    }

    #[test]
    fn what_is_not_typed_follows() {
        let reading = planned(":1/x --readers 5").expect("fine");
        assert_eq!((reading.readers, reading.duration, reading.source.is_none()), (5, Some(DURATION), true));
        let emitting = planned("--emit --size 1KiB").expect("fine");
        assert_eq!((emitting.readers, emitting.duration), (0, None));
        let source = emitting.source.expect("a source");
        assert!(source.to.is_none() && source.pace == Pace::Free && source.size == 1024);
        let both = planned(":1/x --publish http://a:1/x --window 16").expect("fine");
        assert_eq!(both.source.map(|source| source.pace), Some(Pace::Window(16)));
    }
}
