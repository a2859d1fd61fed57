//! A program that runs scripts, and what its tests ask of it.

#![allow(dead_code)]

pub mod browser;
pub mod guide;

use crate::{
    common::{
        Running, Scratch, Wsevent, eventually,
        raw::{self, Answer},
    },
    link::Sse,
};
use serde_json::{Value, json};

/// A stream and a route in the first style.
pub const FIRST: &str = r#"
registerWebStream("/events");
function trigger(req) {
  sendStreamMessage({ type: "event", message: "It happened", at: new Date().toISOString() });
  return { status: 200, body: "sent to " + (req.form.who || "all") };
}
register("/trigger", "trigger", "POST");
"#;

/// A served script, and where its file lies.
pub struct Scripted {
    pub running: Running,
    pub scratch: Scratch,
}

impl Scripted {
    /// Serves one script.
    pub fn serve(source: &str) -> Self {
        Scripted::serve_with(source, "")
    }

    /// With more options.
    pub fn serve_with(source: &str, options: &str) -> Self {
        let scratch = Scratch::new();
        let file = scratch.file("app.js", source);
        let running = Wsevent::line(options).args(["--script", &file]).serve();
        Scripted { running, scratch }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address())
    }

    pub fn sse(&self, path: &str) -> Sse {
        Sse::open(&self.url(path))
    }

    pub fn get(&self, path: &str) -> Answer {
        raw::get(&self.url(path))
    }

    /// Whether a GET of the path is a stream.
    pub fn streams(&self, path: &str) -> bool {
        let answer = Sse::try_open(&self.url(path), "").expect("an answer").answer;
        answer.status == 200 && answer.header("content-type") == Some("text/event-stream")
    }

    pub fn post(&self, path: &str) -> Answer {
        raw::request("POST", &self.url(path), "Content-Length: 0\r\n", b"")
    }

    /// Posts a form as a browser does.
    pub fn form(&self, path: &str, fields: &str) -> Answer {
        self.send(path, "application/x-www-form-urlencoded", fields)
    }

    pub fn send(&self, path: &str, kind: &str, body: &str) -> Answer {
        raw::request("POST", &self.url(path), &format!("Content-Type: {kind}\r\n"), body.as_bytes())
    }

    /// Changes the script, and waits until the new text holds.
    pub fn change(&self, source: &str) {
        let before = self.said("read again");
        self.scratch.file("app.js", source);
        eventually("the new script", || (self.said("read again") > before).then_some(()));
    }

    /// How often the log has this text.
    pub fn said(&self, text: &str) -> usize {
        self.running.stderr().matches(text).count()
    }

    /// Waits until the log has this text.
    pub fn says(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || (self.said(text) > 0).then_some(()));
    }
}

/// Posts `{to, data, filter}` to a script's `/send`, and what it answers.
pub fn send(app: &Scripted, to: &str, data: impl Into<Value>, filter: Value) -> String {
    let what = json!({ "to": to, "data": data.into(), "filter": filter.to_string() });
    app.send("/send", "application/json", &what.to_string()).text()
}

/// Sends until so many readers got it.
pub fn reach(app: &Scripted, to: &str, data: impl Into<Value>, filter: Value, readers: usize) {
    let (data, got) = (data.into(), format!(": {readers} successful, 0 failed"));
    eventually(&format!("{readers} readers of {to}"), || {
        send(app, to, data.clone(), filter.clone()).contains(&got).then_some(())
    });
}

/// The next event's data, as JSON.
pub fn next(stream: &mut Sse) -> Value {
    let (_, data) = stream.event().expect("an event");
    serde_json::from_str(&data).unwrap_or(Value::String(data))
}

/// Status and body.
pub fn said(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text())
}
