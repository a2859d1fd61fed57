//! Pages in chromium, and what becomes of them.

use crate::common::{Running, Wsevent, eventually, find_program, root};
use serde_json::Value;

/// One browser with any number of pages, each by a name without blanks.
pub struct Browser(Running);

impl Browser {
    pub fn start() -> Self {
        let clients = root().join("tests/clients");
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        for needed in [chromium.clone().into(), clients.join("node_modules/playwright-core")] {
            assert!(needed.exists(), "{} is missing: run scripts/test, which installs it", needed.display());
        }
        let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
        Browser(Wsevent::program(node).arg(clients.join("pages.mjs")).env("CHROMIUM", &chromium).piped().start())
    }

    pub fn open(&mut self, name: &str, url: &str) {
        self.0.write(format!("{name} {url}\n"));
    }

    pub fn close(&mut self, name: &str) {
        self.0.write(format!("{name}\n"));
    }

    /// What a page has told so far, each as its words with blanks between them.
    fn told(&self, name: &str) -> Vec<String> {
        let text = |word: &Value| word.as_str().map_or_else(|| word.to_string(), String::from);
        let stdout = self.0.stdout();
        let lines = stdout.lines().filter_map(|line| serde_json::from_str::<Vec<Value>>(line).ok());
        let mine = lines.filter(|words| words[0] == name);
        mine.map(|words| words[1..].iter().map(text).collect::<Vec<_>>().join(" ")).collect()
    }

    /// How often a page has told something with this in it.
    pub fn count(&self, name: &str, part: &str) -> usize {
        self.told(name).iter().filter(|told| told.contains(part)).count()
    }

    /// Waits until a page has told something with this in it.
    pub fn tells(&self, name: &str, part: &str) {
        eventually(&format!("{name}: {part}"), || (self.count(name, part) > 0).then_some(()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return eprintln!("--- the pages told:\n{}", self.0.stdout());
        }
        self.0.close_stdin();
        self.0.wait();
    }
}
