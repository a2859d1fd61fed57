//! What stands in front of a topic's log: events in, events out, never waiting.

pub mod failures;
pub mod flow;
pub mod jq;
pub mod prefix;
