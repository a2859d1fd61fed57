//! What curl reads: event streams, lines, and one page after the other.

use super::{End, Heard, Payload, Server};
use crate::common::{Running, Wsevent, eventually, raw::Answer};
use data_encoding::BASE64;
use serde_json::{Value, value::RawValue};
use std::collections::VecDeque;

/// What curl prints as it comes, the answer's head first.
pub struct Stream {
    pub curl: Running,
    at: usize,
}

impl Stream {
    pub fn open(curl: Wsevent) -> Self {
        Stream { curl: curl.start(), at: 0 }
    }

    /// Up to and with this text, without it; `None` at the end.
    fn until(&mut self, text: &str) -> Option<Vec<u8>> {
        eventually("more from curl", || {
            let ended = self.curl.ended().is_some();
            let rest = self.curl.stdout_from(self.at);
            match memchr::memmem::find(&rest, text.as_bytes()) {
                Some(end) => {
                    self.at += end + text.len();
                    Some(Some(rest[..end].to_vec()))
                }
                None => ended.then_some(None),
            }
        })
    }

    pub fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {}", self.curl.stderr()));
        Answer::parse(&String::from_utf8_lossy(&head))
    }

    pub fn rest(&mut self) -> Vec<u8> {
        self.curl.wait();
        self.curl.stdout_from(self.at)
    }

    fn end(&mut self) -> Heard {
        match self.curl.wait() {
            0 => Heard::End(End::Complete),
            code => Heard::End(End::Broken(code)),
        }
    }

    pub fn next_line(&mut self, position: &mut Option<String>) -> Heard {
        let Some(line) = self.until("\n") else { return self.end() };
        if line.starts_with(b"wsevent-end: ") {
            // curl prints trailer fields behind the body.
            return self.end();
        }
        let line: Value = serde_json::from_slice(&line).expect("a line of JSON");
        if let Some(gap) = line.get("gap") {
            *position = gap["to"].as_str().map(String::from);
            return Heard::Gap(gap["count"].as_u64());
        }
        *position = line["id"].as_str().map(String::from);
        Heard::Event(decoded(&line).expect("data"), line["type"].as_str().map(String::from))
    }

    pub fn next_block(&mut self, position: &mut Option<String>, said_retry: &mut bool) -> Heard {
        loop {
            let Some(block) = self.until("\n\n") else { return self.end() };
            let block = String::from_utf8(block).expect("UTF-8");
            let (mut kind, mut data, mut exact) = (None, Vec::new(), None);
            *said_retry = false;
            for line in block.split('\n') {
                match line.split_once(": ").unwrap_or((line, "")) {
                    ("id", value) => *position = Some(value.to_owned()),
                    ("event", value) => kind = Some(value.to_owned()),
                    ("data", value) => data.push(value),
                    ("wsevent", value) => exact = decoded(&serde_json::from_str(value).expect("JSON")),
                    ("retry", _) => *said_retry = true,
                    ("" | ":", _) => {}
                    other => panic!("a line of an event stream: {other:?}"),
                }
            }
            if kind.as_deref() == Some("gap") {
                let gap: Value = serde_json::from_str(&data.concat()).expect("JSON");
                return Heard::Gap(gap["count"].as_u64());
            }
            if !data.is_empty() {
                return Heard::Event(exact.unwrap_or_else(|| Payload::Text(data.join("\n"))), kind);
            }
        }
    }
}

/// `{"data":"…"}` or `{"data_base64":"…"}`.
fn decoded(value: &Value) -> Option<Payload> {
    let bytes = || BASE64.decode(value.get("data_base64")?.as_str()?.as_bytes()).ok();
    match value.get("data").and_then(Value::as_str) {
        Some(text) => Some(Payload::Text(text.to_owned())),
        None => Some(Payload::Binary(bytes()?)),
    }
}

/// One answer after the other.
pub struct Poll {
    ask: Wsevent,
    heard: VecDeque<Heard>,
}

impl Poll {
    pub fn open(server: &Server, query: &str, headers: &str) -> Result<(Self, Option<String>), Answer> {
        // A page without a start is the newest events: who wants what comes next needs the position alone.
        let more = if query.contains("since=") || headers.contains("Last-Event-ID") { "" } else { "limit=0" };
        let separator = if query.is_empty() { "?" } else { "&" };
        let first = answer(server.curl(&format!("{query}{separator}{more}"), headers, "application/json"));
        if first.status != 200 {
            return Err(first);
        }
        let rest = query.trim_start_matches('?').split('&').filter(|pair| !pair.starts_with("since="));
        let query: String = rest.flat_map(|pair| [pair, "&"]).collect();
        let mut headers: Vec<&str> = headers.split("\r\n").collect();
        headers.retain(|header| !header.starts_with("Last-Event-ID"));
        let ask = server.curl(&format!("?{query}poll=1&wait=10s&after="), &headers.join("\r\n"), "application/json");
        let mut poll = Poll { ask, heard: VecDeque::new() };
        let mut position = None;
        poll.take(&first, &mut position);
        Ok((poll, position))
    }

    pub fn next(&mut self, position: &mut Option<String>) -> Heard {
        while self.heard.is_empty() {
            let after = position.as_deref().expect("a position");
            let answer = answer(self.ask.clone().with_last(after));
            if answer.status != 200 {
                return Heard::End(End::Refused(answer.status));
            }
            self.take(&answer, position);
        }
        self.heard.pop_front().expect("something")
    }

    fn take(&mut self, answer: &Answer, position: &mut Option<String>) {
        *position = answer.header("wsevent-position").map(String::from);
        if let Some(gap) = answer.header("wsevent-gap") {
            let gap: Value = serde_json::from_str(gap).expect("JSON");
            self.heard.push_back(Heard::Gap(gap["count"].as_u64()));
        }
        let events: Vec<&RawValue> = serde_json::from_slice(&answer.body).expect("an array");
        let event = |raw: &RawValue| {
            let value: Value = serde_json::from_str(raw.get()).expect("JSON");
            let binary = decoded(&value).filter(|payload| matches!(payload, Payload::Binary(_)));
            // What is no JSON is told as a string.
            let text = || Payload::Text(value.as_str().map_or_else(|| raw.get().to_owned(), String::from));
            Heard::Event(binary.unwrap_or_else(text), None)
        };
        self.heard.extend(events.into_iter().map(event));
    }
}

/// Status 0 when there was none.
fn answer(curl: Wsevent) -> Answer {
    let mut stream = Stream::open(curl);
    match stream.until("\r\n\r\n") {
        Some(head) => Answer { body: stream.rest(), ..Answer::parse(&String::from_utf8_lossy(&head)) },
        None => Answer::default(),
    }
}
