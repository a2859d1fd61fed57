//! The house has one direction: edges know the core, the core knows nobody (docs/ARCHITECTURE.md).

use std::{fs, path::Path};

/// Modules by layer, lowest first: a module may use its own layer and those before it.
const LAYERS: [&[&str]; 5] = [
    &["id", "units", "panics"],
    &[
        "event", "pins", "log", "recorder", "tally", "topic", "topics", "matcher", "wanted", "audience", "roll",
        "streams",
    ],
    &[
        "stdio", "logging", "link", "journal", "net", "inbound", "sys", "files", "tls", "token", "stage", "site",
        "proto", "source", "balance", "registry", "graphql", "script", "bench",
    ],
    &["cli", "manual", "plan"],
    &["app", "trace"],
];

/// Words that must not stand in the core's code: it opens no socket, reads no flag, names no protocol.
const FOREIGN_TO_THE_CORE: [&str; 6] = ["TcpStream", "hyper", "clap::", "std::env", "Sse", "Ndjson"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
            let module = name.components().next().expect("a name").as_os_str().to_string_lossy();
            found.push((module.trim_end_matches(".rs").into(), fs::read_to_string(&path).expect("is text")));
        }
    }
    found
}

/// What a file uses of this crate: `use crate::a::…` and `use crate::{a::…, b::…}`.
fn used_modules(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(std::mem::take(&mut item)),
                    c if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            used.push(item);
        } else {
            used.push(rest.into());
        }
    }
    let name = |item: String| item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    used.into_iter().map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn no_arrow_points_back() {
    let mut wrong = Vec::new();
    for (module, text) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let Some(own) = layer(&module) else {
            assert!(matches!(module.as_str(), "main" | "lib"), "{module} belongs to no layer: add it to LAYERS");
            continue;
        };
        for used in used_modules(&text) {
            if layer(&used).is_some_and(|other| other > own) {
                wrong.push(format!("{module} uses {used}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_core_names_no_edge() {
    for (module, text) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        if layer(&module).is_some_and(|layer| layer <= 1) {
            for word in FOREIGN_TO_THE_CORE {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                assert!(!code.into_iter().any(|line| line.contains(word)), "{module} names {word}");
            }
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::B;\nuse crate::{c, d::{E, F}, g::H};\nlet x = crate::i::j();";
    assert_eq!(used_modules(text), ["a", "c", "d", "g", "i"]);
}
