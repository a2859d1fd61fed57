//! What a client says on the registry's WebSocket, and what it hears besides events: answers have a `type`, events an
//! `event`, and that is how clients tell them apart.
//!
//! Where access is controlled, nothing is heard before a good token, and anything else than one ends the connection.

use super::{
    access::{Access, Member, RESERVED},
    interest::{Interest, MAX_FILTERS, Wrong},
};
use crate::{
    id::Since,
    matcher::Match,
    proto::{
        auth,
        dialog::{Dialog, Said},
    },
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Instant};

/// One client's.
pub struct Conversation {
    access: Option<Arc<Access>>,
    path: String,
    member: Option<Member>,
    interest: Interest,
}

impl Conversation {
    /// About the topic at this path. A `member` is known already.
    pub fn new(access: Option<Arc<Access>>, path: &str, member: Option<Member>) -> Self {
        Conversation { access, path: path.to_owned(), member, interest: Interest::default() }
    }
}

impl Dialog for Conversation {
    fn begin(&mut self) -> Vec<Said> {
        match (&self.access, self.member.take()) {
            (None, _) => Vec::new(),
            (Some(_), Some(member)) => self.welcome(member),
            (Some(access), None) => {
                let nothing = Match::any(Vec::new());
                vec![Said::See(Some(nothing)), Said::Await(Some(Instant::now() + access.deadline))]
            }
        }
    }

    fn hear(&mut self, message: &[u8]) -> Vec<Said> {
        let message = match serde_json::from_slice(message) {
            Ok(Value::Object(message)) => message,
            _ => Map::new(),
        };
        let mut said = match message.get("auth") {
            Some(token) => self.authenticate(token),
            None if self.access.is_some() && self.member.is_none() => return refused("auth_required"),
            None => Vec::new(),
        };
        if !matches!(said.last(), Some(Said::Refuse)) {
            said.extend(self.ask(&message));
        }
        if said.is_empty() { vec![invalid()] } else { said }
    }
}

impl Conversation {
    fn authenticate(&mut self, token: &Value) -> Vec<Said> {
        let Some(access) = &self.access else {
            return vec![answer(json!({ "type": "authenticated", "user": { "role": "anonymous" } }))];
        };
        match token.as_str().and_then(|token| access.admit(token, &self.path)) {
            Some(member) => self.welcome(member),
            None => refused("auth_failed"),
        }
    }

    fn welcome(&mut self, member: Member) -> Vec<Said> {
        let said = answer(json!({ "type": "authenticated", "user": member.shown() }));
        let expires = Said::Expire(member.ends.map(auth::instant_of));
        self.member = Some(member);
        vec![Said::Await(None), expires, self.see(), said]
    }

    /// One of subscribe, unsubscribe, resume and refresh.
    fn ask(&mut self, message: &Map<String, Value>) -> Vec<Said> {
        if let Some(wanted) = message.get("subscribe") {
            let mut interest = self.interest.clone();
            let added = interest.add(wanted);
            if interest.names(RESERVED.0) && !self.member.as_ref().is_some_and(|member| member.has_role(RESERVED.1)) {
                return vec![error("Insufficient permissions")];
            }
            self.interest = interest;
            return self.answer(added, json!({ "type": "subscribed", "filter": wanted }));
        }
        if let Some(unwanted) = message.get("unsubscribe") {
            let removed = self.interest.remove(unwanted);
            return self.answer(removed, json!({ "type": "unsubscribed" }));
        }
        if let Some(position) = message.get("resume") {
            return resume(position);
        }
        match message.get("refresh_token") {
            Some(Value::Bool(true)) => self.refresh(),
            _ => Vec::new(),
        }
    }

    /// The filter is in force before the client hears that it is.
    fn answer(&self, changed: Result<(), Wrong>, done: Value) -> Vec<Said> {
        match changed {
            Ok(()) => vec![self.see(), answer(done)],
            Err(Wrong::Form) => vec![invalid()],
            Err(Wrong::TooMany) => vec![error(&format!("Too many filters: {MAX_FILTERS} at most"))],
        }
    }

    fn see(&self) -> Said {
        Said::See(self.interest.to_match())
    }

    /// The new token lets it stay for longer. It has an `event`, too: handlers are registered by that name.
    fn refresh(&mut self) -> Vec<Said> {
        let (Some(access), Some(member)) = (&self.access, &self.member) else {
            return vec![error("Not authenticated")];
        };
        let renewed = access.renew(member).and_then(|token| Some((access.admit(&token, &self.path)?, token)));
        let Some((member, token)) = renewed else { return vec![error("Token refresh failed")] };
        let expires = Said::Expire(member.ends.map(auth::instant_of));
        self.member = Some(member);
        vec![expires, answer(json!({ "type": "token_refreshed", "event": "token_refreshed", "token": token }))]
    }
}

/// On behind an event that it has seen on another connection, or from the oldest one on.
fn resume(position: &Value) -> Vec<Said> {
    match position.as_str().map(Since::parse) {
        Some(Ok(since @ (Since::After(_) | Since::Oldest))) => {
            vec![Said::From(since), answer(json!({ "type": "resumed" }))]
        }
        _ => vec![error("Invalid position")],
    }
}

fn refused(why: &str) -> Vec<Said> {
    vec![answer(json!({ "type": why })), Said::Refuse]
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

    fn client() -> Conversation {
        Conversation::new(None, "/events", None)
    }

    fn texts(said: Vec<Said>) -> Vec<String> {
        let text = |said| match said {
            Said::Text(text) => Some(text),
            _ => None,
        };
        said.into_iter().filter_map(text).collect()
    }

    #[test]
    fn answers_come_behind_what_they_confirm() {
        let mut client = client();
        let said = client.hear(br#"{"subscribe":{"serviceName":"a"}}"#);
        assert!(matches!(&said[..], [Said::See(_), Said::Text(text)]
            if text == r#"{"type":"subscribed","filter":{"serviceName":"a"}}"#));
        let both = texts(client.hear(br#"{"auth":"x","subscribe":true,"unsubscribe":true}"#));
        assert_eq!(both.len(), 2);
        assert!(both[0].contains("authenticated") && both[1] == r#"{"type":"subscribed","filter":true}"#);
        assert_eq!(texts(client.hear(br#"{"unsubscribe":true}"#)), [r#"{"type":"unsubscribed"}"#]);
        assert!(texts(client.hear(br#"{"refresh_token":true}"#))[0].contains("Not authenticated"));
        assert!(texts(client.hear(br#"{"resume":"nowhere"}"#))[0].contains("Invalid position"));
    }

    #[test]
    fn nonsense_is_answered() {
        let mut client = client();
        for message in ["", "x", "5", "[]", "null", "{}", r#"{"subscribe":null}"#, r#"{"refresh_token":1}"#, "\u{1}"] {
            let said = texts(client.hear(message.as_bytes()));
            assert_eq!(said, [r#"{"type":"error","message":"Invalid message format"}"#], "{message}");
        }
        assert_eq!(client.interest, Interest::Unsaid);
    }

    #[test]
    fn reserved_names_are_not_for_everybody() {
        let mut client = client();
        for filter in [r#"{"event":"admin_event"}"#, r#""admin_x""#, r#"{"event":["a","admin_b"]}"#] {
            let said = texts(client.hear(format!(r#"{{"subscribe":{filter}}}"#).as_bytes()));
            assert_eq!(said, [r#"{"type":"error","message":"Insufficient permissions"}"#], "{filter}");
        }
        assert_eq!(client.interest, Interest::Unsaid);
    }
}
