//! `--stage-script`: a script's `onEvent(event)` drops, changes or splits events, in the order of the other stages.
//!
//! It runs where the event is published, within its bound on time; the topic lets other work go on meanwhile.

use super::{
    fault::{Fault, Host, Limits, Source},
    host::say,
    runner::{Figures, Runner},
};
use crate::{
    event::{Attrs, Event},
    files::Watched,
    stage::failures::Failures,
    topic::Stage,
    units::now_ms,
};
use serde_json::{Value, json};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

/// A stage that is a script; made again when its file changes.
#[derive(Clone)]
pub struct ScriptStage {
    /// As it is named everywhere.
    pub name: String,
    /// What all its versions have done.
    pub figures: Arc<Figures>,
    /// What each version may use.
    pub limits: Limits,
    runner: Arc<Watched<Mutex<Runner>>>,
    failures: Arc<Mutex<Failures>>,
}

impl ScriptStage {
    /// Loads a file.
    ///
    /// # Errors
    /// Why it cannot be read, or does not load.
    pub fn open(path: PathBuf, limits: Limits) -> io::Result<Self> {
        let (name, figures) = (path.display().to_string(), Arc::<Figures>::default());
        let counted = figures.clone();
        let load = {
            let path = path.clone();
            move || {
                let source = Source::read(&path)?;
                let host = Arc::new(Logger(source.name.clone()));
                let runner = Runner::load(source, limits, host, counted.clone());
                runner.map(Mutex::new).map_err(io::Error::other)
            }
        };
        let runner = Arc::new(Watched::open(vec![path], load)?);
        Ok(ScriptStage { name, figures, limits, runner, failures: Arc::default() })
    }

    /// Its version, to be read again when the file changes.
    pub fn watched(&self) -> Arc<Watched<Mutex<Runner>>> {
        self.runner.clone()
    }

    fn run(&self, event: &Event) -> Result<Vec<Event>, Fault> {
        let attrs = event.attrs.as_deref();
        let argument = json!({
            "id": attrs.and_then(|attrs| attrs.id.as_deref()),
            "type": attrs.and_then(|attrs| attrs.kind.as_deref()),
            "time": attrs.and_then(|attrs| attrs.time).unwrap_or_else(now_ms),
            "payload": String::from_utf8_lossy(&event.payload),
        });
        let runner = self.runner.get();
        let made = runner.lock().unwrap_or_else(|p| p.into_inner()).call("onEvent", &argument.to_string())?;
        let made: Vec<Value> = serde_json::from_str(&made).map_err(|error| Fault::Threw(error.to_string()))?;
        made.iter().map(|made| become_of(event, made)).collect::<Result<_, _>>().map_err(Fault::Threw)
    }
}

/// The event with what the script said about it: no payload is the one that it had.
fn become_of(event: &Event, made: &Value) -> Result<Event, String> {
    let mut next = match made["payload"].as_str() {
        Some(payload) => Event { attrs: event.attrs.clone(), ..Event::new(payload.as_bytes().to_vec()) },
        None => event.clone(),
    };
    let kind = match made.get("type") {
        None => return Ok(next),
        Some(kind) => kind.as_str().filter(|kind| !kind.is_empty()),
    };
    if kind.is_some_and(|kind| kind.contains(char::is_control)) {
        return Err("an event's type is one line".into());
    }
    let known = next.attrs.as_deref().cloned().unwrap_or_default();
    if known.kind.as_deref() != kind {
        next.attrs = Some(Arc::new(Attrs { kind: kind.map(Into::into), ..known }));
    }
    Ok(next)
}

impl Stage for ScriptStage {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        match self.run(&event) {
            Ok(events) => out.extend(events),
            Err(fault) => {
                let mut failures = self.failures.lock().unwrap_or_else(|p| p.into_inner());
                failures.count("the script failed: dropped", &self.name, &fault.to_string());
            }
        }
    }

    /// A script may remember what came before.
    fn is_pure(&self) -> bool {
        false
    }

    fn errors(&self) -> Option<Arc<AtomicU64>> {
        Some(self.failures.lock().unwrap_or_else(|p| p.into_inner()).all.clone())
    }

    fn may_dawdle(&self) -> bool {
        true
    }
}

/// All that a stage's script has of the world is the log: it changes events and names nothing.
struct Logger(String);

impl Host for Logger {
    fn ask(&self, what: &str, args: &[String]) -> Result<Option<String>, String> {
        match (what, args) {
            ("log", [level, message]) => say(&self.0, level, message),
            _ => Ok(None),
        }
    }
}
