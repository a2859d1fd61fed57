//! The two worlds of results over SSE: frames with names, as graphql-sse has them (its PROTOCOL.md), and frames without,
//! which any `EventSource` hears as messages.

use super::{operation::Told, shape::errors};
use crate::id::Id;
use bytes::Bytes;

/// How a client wants its frames.
#[derive(Clone, Debug, PartialEq)]
pub enum Frames {
    /// `event: next` and `event: complete`.
    Named,
    /// `data:` only; the end is the end of the stream.
    Unnamed,
    /// Named, several operations in one stream: each says which it is of.
    Shared(String),
}

impl Frames {
    /// What is written, and whether it was the last. A client that was too slow hears nothing: it comes back by itself
    /// when a stream breaks off; where others go on beside it, it hears why.
    pub fn write(&self, told: Told) -> (Bytes, IsLast) {
        match told {
            Told::Next(id, result) => (self.next(id.as_ref(), &result), false),
            Told::Error(why) => (self.failure(&why), true),
            Told::Complete => (self.complete().into(), true),
            Told::Slow if matches!(self, Frames::Shared(_)) => (self.failure("too slow: events were lost"), true),
            Told::Slow => (Bytes::new(), true),
        }
    }

    /// An error, and then the end.
    pub fn failure(&self, why: &str) -> Bytes {
        [&self.next(None, &errors(why))[..], self.complete().as_bytes()].concat().into()
    }

    fn next(&self, id: Option<&Id>, result: &str) -> Bytes {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        // JSON as it was written may have several lines.
        let lines = |text: &str| text.split(['\n', '\r']).map(|line| format!("data: {line}\n")).collect::<String>();
        match self {
            Frames::Named => format!("{id}event: next\n{}\n", lines(result)).into(),
            Frames::Unnamed => format!("{id}{}\n", lines(result)).into(),
            Frames::Shared(operation) => {
                let operation = serde_json::Value::from(operation.as_str());
                format!("event: next\n{}\n", lines(&format!(r#"{{"id":{operation},"payload":{result}}}"#))).into()
            }
        }
    }

    fn complete(&self) -> String {
        match self {
            // No space behind the colon: who looks for `data: ` and parses what follows must not find nothing there.
            Frames::Named => "event: complete\ndata:\n\n".into(),
            Frames::Unnamed => String::new(),
            Frames::Shared(operation) => {
                format!("event: complete\ndata: {}\n\n", serde_json::json!({ "id": operation }))
            }
        }
    }
}

/// Nothing follows.
pub type IsLast = bool;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Seq};

    #[test]
    fn frames_are_what_each_client_reads() {
        let id = || Some(Id { epoch: Epoch::new(1, 2), seq: Seq::whole(7) });
        let result = || r#"{"data":{"a":1}}"#.to_owned();
        let named = id().map(|id| format!("id: {id}\nevent: next\ndata: {}\n\n", result())).expect("an id");
        let unnamed = id().map(|id| format!("id: {id}\ndata: {}\n\n", result())).expect("an id");
        let shared = Frames::Shared("x\"".into());
        let broken = |frames: &Frames| frames.write(Told::Error("no".into())).0;
        for (frames, told, text, last) in [
            (&Frames::Named, Told::Next(id(), result()), named.as_str(), false),
            (&Frames::Unnamed, Told::Next(id(), result()), &unnamed, false),
            (
                &shared,
                Told::Next(id(), result()),
                "event: next\ndata: {\"id\":\"x\\\"\",\"payload\":{\"data\":{\"a\":1}}}\n\n",
                false,
            ),
            (&Frames::Named, Told::Complete, "event: complete\ndata:\n\n", true),
            (&Frames::Unnamed, Told::Complete, "", true),
            (&shared, Told::Complete, "event: complete\ndata: {\"id\":\"x\\\"\"}\n\n", true),
            (&Frames::Unnamed, Told::Next(None, "{\n1}".into()), "data: {\ndata: 1}\n\n", false),
            (&Frames::Named, Told::Slow, "", true),
        ] {
            assert_eq!(frames.write(told), (text.to_owned().into(), last));
        }
        let error = r#"data: {"errors":[{"message":"no"}]}"#;
        assert_eq!(broken(&Frames::Unnamed), format!("{error}\n\n"));
        assert_eq!(broken(&Frames::Named), format!("event: next\n{error}\n\nevent: complete\ndata:\n\n"));
    }
}
