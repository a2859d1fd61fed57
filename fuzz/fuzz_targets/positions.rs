//! Ids, starts, durations, sizes: what is read is written as it was meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsevent::{
    id::{Id, Since},
    matcher::Match,
    topic::Policy,
    units,
};

fuzz_target!(|text: &str| {
    if let Some(id) = Id::parse(text) {
        assert_eq!(id.to_string().parse_id(), Some(id.clone()));
        let _ = (id.epoch.birth(), id.seq.before(), id.seq.after(), id.seq.covering());
        assert!(id.seq.before() < id.seq.after());
        assert!(id.seq.covering() >= id.seq && id.seq.after() > id.seq);
    }
    if let Ok(since) = Since::parse(text) {
        // A duration is written in whole milliseconds.
        if !matches!(since, Since::Ago(_)) {
            assert_eq!(Since::parse(&since.to_string()), Ok(since));
        } else {
            assert!(Since::parse(&since.to_string()).is_ok());
        }
    }
    let _ = (units::duration(text), units::size(text), Match::parse(text).map(|m| m.matches(text.as_bytes())));
    if let Ok(policy) = text.parse::<Policy>() {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
});

trait ParseId {
    fn parse_id(&self) -> Option<Id>;
}

impl ParseId for String {
    fn parse_id(&self) -> Option<Id> {
        Id::parse(self)
    }
}
