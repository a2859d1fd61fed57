//! Scripts: JavaScript files that name streams and routes, answer requests and send events.
//!
//! Each has an engine and a thread of its own ([`thread`]), with a bound on time and memory ([`vm`]). What it sees of the
//! world is the prelude `host.js`, whose few calls out of the engine end in [`host`]. A changed file is a new version: what
//! it names again goes on, what it does not is gone, and one that does not load leaves the old one in service.

pub mod answer;
pub mod claims;
pub mod fault;
pub mod forms;
pub mod host;
pub mod http;
pub mod request;
pub mod resolver;
pub mod routes;
pub mod runner;
pub mod stage;
pub mod thread;
#[cfg_attr(not(feature = "script"), path = "vm_absent.rs")]
pub mod vm;

use crate::{files::Watched, graphql::Subscriptions, streams::Streams};
use claims::{Claims, Ledger};
use fault::{Fault, Limits, Source};
use host::{Outside, Registered};
use resolver::Current;
use routes::Found;
use runner::Figures;
use stage::ScriptStage;
use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};
use thread::Engine;

/// Whether this program was built with an engine.
pub const IS_THERE: bool = cfg!(feature = "script");
/// The target of what scripts log themselves.
pub const CONSOLE: &str = "wsevent::script::console";
/// What a script may use, for editors (TypeScript).
pub const TYPES: &str = include_str!("host.d.ts");

/// One version of a script, for as long as anybody calls it.
pub struct Version {
    engine: Engine,
    registered: Arc<Registered>,
}

/// A script file, in the version that holds now.
pub struct Script {
    /// As it is named everywhere.
    pub name: String,
    /// What all its versions have done.
    pub figures: Arc<Figures>,
    /// What each version may use.
    pub limits: Limits,
    version: Arc<Watched<Version>>,
}

impl Script {
    /// Loads a file.
    ///
    /// # Errors
    /// Why it cannot be read, or does not load.
    fn open(path: PathBuf, limits: Limits, ledger: &Arc<Ledger>, world: &World) -> io::Result<Self> {
        let (name, figures) = (path.display().to_string(), Arc::<Figures>::default());
        let (ledger, world, counted) = (ledger.clone(), world.clone(), figures.clone());
        let current = Current::default();
        let known = current.clone();
        let load = move || {
            let source = Source::read(&path)?;
            let streams = Claims::new(ledger.clone());
            let registered = Arc::new(Registered { routes: Default::default(), streams });
            let host = Outside {
                name: source.name.clone(),
                streams: world.streams.clone(),
                subscriptions: world.subscriptions.clone(),
                current: current.clone(),
                registered: registered.clone(),
                max_message: world.max_message,
                warned: AtomicBool::new(false),
            };
            let engine = Engine::start(source, limits, Arc::new(host), counted.clone())?;
            Ok(Version { engine, registered })
        };
        let version = Arc::new(Watched::open(vec![PathBuf::from(&name)], load)?);
        let _ = known.set(Arc::downgrade(&version));
        Ok(Script { name, figures, limits, version })
    }

    /// How many streams its version names.
    pub fn streams(&self) -> usize {
        self.version.get().registered.streams.len()
    }

    /// How many routes its version names.
    pub fn routes(&self) -> usize {
        self.version.get().registered.routes.read().unwrap_or_else(|p| p.into_inner()).len()
    }

    /// Its version, to be read again when the file changes.
    pub fn watched(&self) -> Arc<Watched<Version>> {
        self.version.clone()
    }
}

/// What scripts act on.
#[derive(Clone)]
pub struct World {
    /// Where they send.
    pub streams: Arc<Streams>,
    /// Where they send by name.
    pub subscriptions: Arc<Subscriptions>,
    /// Bytes that one event may have.
    pub max_message: usize,
}

/// All scripts of a process.
#[derive(Default)]
pub struct Scripts {
    files: Vec<Script>,
    stages: Vec<ScriptStage>,
}

impl Scripts {
    /// Loads the files, beside the stages that are there.
    ///
    /// # Errors
    /// The first that does not load.
    pub fn open(files: &[PathBuf], limits: Limits, stages: Vec<ScriptStage>, world: &World) -> io::Result<Self> {
        let ledger = Arc::new(Ledger::new(world.streams.clone(), world.subscriptions.clone()));
        let open = |path: &PathBuf| Script::open(path.clone(), limits, &ledger, world);
        Ok(Scripts { files: files.iter().map(open).collect::<Result<_, _>>()?, stages })
    }

    /// Those that name streams and routes: of two routes with one path and method, the later script's counts.
    pub fn files(&self) -> &[Script] {
        &self.files
    }

    /// Those that stand in front of the topic.
    pub fn stages(&self) -> &[ScriptStage] {
        &self.stages
    }

    /// Who answers a request, and in which version; the last script that names the route.
    fn find(&self, path: &str, method: &str) -> Option<(&Script, Arc<Version>, Found)> {
        let mut other = None;
        for script in self.files.iter().rev() {
            let version = script.version.get();
            let found = version.registered.routes.read().unwrap_or_else(|p| p.into_inner()).find(path, method);
            match found {
                Found::Handler(_) => return Some((script, version, found)),
                Found::Other(_) => other = other.or(Some((script, version, found))),
                Found::Nothing => {}
            }
        }
        other
    }
}

impl Version {
    async fn call(&self, entry: &'static str, argument: String) -> Result<String, Fault> {
        self.engine.call(entry, argument).await
    }
}
