//! What a client says on the registry's WebSocket, and what it hears besides events: answers have a `type`, events an
//! `event`, and that is how clients tell them apart.

use super::interest::{Interest, MAX_FILTERS, Wrong};
use crate::proto::dialog::{Dialog, Said};
use serde_json::{Map, Value, json};

/// One client's.
#[derive(Default)]
pub struct Conversation {
    interest: Interest,
}

impl Dialog for Conversation {
    fn hear(&mut self, message: &[u8]) -> Vec<Said> {
        let Ok(Value::Object(message)) = serde_json::from_slice(message) else { return vec![invalid()] };
        let mut said = Vec::new();
        if message.contains_key("auth") {
            said.push(answer(json!({ "type": "authenticated", "user": { "role": "anonymous" } })));
        }
        said.extend(self.ask(&message));
        if said.is_empty() { vec![invalid()] } else { said }
    }
}

impl Conversation {
    /// One of subscribe, unsubscribe and refresh.
    fn ask(&mut self, message: &Map<String, Value>) -> Vec<Said> {
        if let Some(wanted) = message.get("subscribe") {
            let added = self.interest.add(wanted);
            return self.answer(added, json!({ "type": "subscribed", "filter": wanted }));
        }
        if let Some(unwanted) = message.get("unsubscribe") {
            let removed = self.interest.remove(unwanted);
            return self.answer(removed, json!({ "type": "unsubscribed" }));
        }
        match message.get("refresh_token") {
            Some(Value::Bool(true)) => vec![error("Not authenticated")],
            _ => Vec::new(),
        }
    }

    /// The filter is in force before the client hears that it is.
    fn answer(&self, changed: Result<(), Wrong>, done: Value) -> Vec<Said> {
        match changed {
            Ok(()) => {
                vec![Said::See(self.interest.to_match()), answer(done)]
            }
            Err(Wrong::Form) => vec![invalid()],
            Err(Wrong::TooMany) => vec![error(&format!("Too many filters: {MAX_FILTERS} at most"))],
        }
    }
}

fn answer(value: Value) -> Said {
    Said::Text(value.to_string())
}

fn error(message: &str) -> Said {
    answer(json!({ "type": "error", "message": message }))
}

fn invalid() -> Said {
    error("Invalid message format")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(said: Vec<Said>) -> Vec<String> {
        let text = |said| match said {
            Said::Text(text) => Some(text),
            Said::See(_) => None,
        };
        said.into_iter().filter_map(text).collect()
    }

    #[test]
    fn answers_come_behind_what_they_confirm() {
        let mut client = Conversation::default();
        let said = client.hear(br#"{"subscribe":{"serviceName":"a"}}"#);
        assert!(matches!(&said[..], [Said::See(_), Said::Text(text)]
            if text == r#"{"type":"subscribed","filter":{"serviceName":"a"}}"#));
        let both = texts(client.hear(br#"{"auth":"x","subscribe":true,"unsubscribe":true}"#));
        assert_eq!(both.len(), 2);
        assert!(both[0].contains("authenticated") && both[1] == r#"{"type":"subscribed","filter":true}"#);
        assert_eq!(texts(client.hear(br#"{"unsubscribe":true}"#)), [r#"{"type":"unsubscribed"}"#]);
        assert!(texts(client.hear(br#"{"refresh_token":true}"#))[0].contains("Not authenticated"));
    }

    #[test]
    fn nonsense_is_answered() {
        let mut client = Conversation::default();
        for message in ["", "x", "5", "[]", "null", "{}", r#"{"subscribe":null}"#, r#"{"refresh_token":1}"#, "\u{1}"] {
            let said = texts(client.hear(message.as_bytes()));
            assert_eq!(said, [r#"{"type":"error","message":"Invalid message format"}"#], "{message}");
        }
        assert_eq!(client.interest, Interest::Unsaid);
    }
}
