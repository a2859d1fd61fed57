//! Programs as tutorials show them: in our words below `tests/clients/tutorial`, and as they are printed, where that is at
//! hand. They name well-known ports; `world.cjs` and `world.py` put others in their places.

use crate::common::{Running, Scratch, Wsevent, find_program, root};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// A printed tutorial.
#[derive(Clone, Copy)]
pub struct Tutorial(pub &'static str);

impl Tutorial {
    /// Its programs in this language, in order; `None` where the file is not at hand, which is said loudly.
    pub fn programs(self, language: &str) -> Option<Vec<String>> {
        let shelf = std::env::var_os("WSEVENT_SEEDS").map_or_else(|| root().join("../shared/seeds"), PathBuf::from);
        let file = shelf.join(self.0);
        let Ok(text) = fs::read_to_string(&file) else {
            eprintln!(
                "SKIPPED: {} is not there (WSEVENT_SEEDS says where); only our own words are run",
                file.display()
            );
            return None;
        };
        let (fence, mut programs) = (format!("```{language}"), Vec::new());
        for part in text.split(&fence).skip(1) {
            programs.push(part.split("```").next().unwrap_or_default().to_owned());
        }
        Some(programs)
    }
}

/// A program to be run, and what it needs around it.
pub struct Program {
    scratch: Scratch,
    file: PathBuf,
    args: Vec<String>,
    token: Option<String>,
    helpers: &'static str,
    over_mqtt: bool,
}

impl Program {
    /// One in our words.
    pub fn own(name: &str) -> Self {
        Program::at(Scratch::new(), root().join("tests/clients/tutorial").join(name))
    }

    /// One as it is printed.
    pub fn printed(text: &str, ending: &str) -> Self {
        let scratch = Scratch::new();
        let file = scratch.file(&format!("printed.{ending}"), text);
        Program::at(scratch, file.into())
    }

    fn at(scratch: Scratch, file: PathBuf) -> Self {
        Program { scratch, file, args: Vec::new(), token: None, helpers: "", over_mqtt: false }
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Functions that it calls and does not have.
    pub fn helpers(mut self, names: &'static str) -> Self {
        self.helpers = names;
        self
    }

    /// It speaks MQTT with the registry.
    pub fn over_mqtt(mut self) -> Self {
        self.over_mqtt = true;
        self
    }

    /// Runs it beside a registry.
    pub fn run(&self, registry: &Running) -> Running {
        let python = self.file.extension().is_some_and(|ending| ending == "py");
        let line = if python { python_line() } else { self.node_line() };
        let mqtt = self.over_mqtt.then(|| format!(",1883={}", registry.port_of("mqtt")));
        let ports = format!("8080={},3000=0{}", registry.port(), mqtt.unwrap_or_default());
        let line = line.arg(&self.file).args(&self.args).env("PORTS", &ports).env("HELPERS", self.helpers);
        self.token.iter().fold(line, |line, token| line.env("TOKEN", token)).start()
    }

    fn node_line(&self) -> Wsevent {
        let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
        let packages = root().join("tests/clients/node_modules");
        for package in ["ws", "express", "mqtt"] {
            assert!(packages.join(package).is_dir(), "the npm package {package} is missing: scripts/test installs it");
        }
        let aliases = self.aliases();
        let path = format!("{}:{}", aliases.display(), packages.display());
        Wsevent::program(node).arg("--require").arg(world("world.cjs")).env("NODE_PATH", &path)
    }

    /// Where our package has the names that programs ask for, as after `npm install NAME@npm:wsevent-client`.
    fn aliases(&self) -> PathBuf {
        let aliases = self.scratch.path("node_modules");
        fs::create_dir_all(&aliases).expect("a directory");
        for name in ["wsevent-client", "maxine-client"] {
            let _ = symlink(root().join("clients/javascript"), aliases.join(name));
        }
        aliases
    }
}

fn world(name: &str) -> PathBuf {
    root().join("tests/clients/tutorial").join(name)
}

/// The tests' own Python, else the system's.
fn python_line() -> Wsevent {
    let knows = |python: &PathBuf| {
        let tried = Command::new(python).args(["-c", "import websockets.asyncio.client"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let own = root().join("target/clients/venv/bin/python");
    let found = [own, Path::new("python3").into()].into_iter().find(knows);
    let found = found.expect("the Python package websockets is missing: run scripts/test, which installs it");
    Wsevent::program(found).arg(world("world.py"))
}
