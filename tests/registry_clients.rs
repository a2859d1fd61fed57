//! The packages under `clients/` against a registry: what they hear, and that they come back.

mod common;
mod services;

use common::{Running, Scratch, Wsevent, eventually, find_program, root, run};
use services::{register, registry, signed_in};
use std::{path::PathBuf, process::Command};

fn client(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

fn javascript() -> Wsevent {
    let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
    let packages = client("node_modules");
    assert!(packages.join("ws").is_dir(), "the npm package ws is missing: run scripts/test, which installs it");
    Wsevent::program(node).env("NODE_PATH", packages.to_str().expect("UTF-8")).arg(client("registry_client.cjs"))
}

/// The tests' own Python, else the system's.
fn python() -> Wsevent {
    let knows = |python: &PathBuf| {
        let tried = Command::new(python).args(["-c", "import websockets.asyncio.client"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let own = root().join("target/clients/venv/bin/python");
    let found = [own, "python3".into()].into_iter().find(knows);
    let found = found.expect("the Python package websockets is missing: run scripts/test, which installs it");
    Wsevent::program(found).arg(client("registry_client.py"))
}

/// How often the client has said this.
fn said(client: &Running, line: &str) -> usize {
    client.stdout().lines().filter(|said| *said == line).count()
}

fn says(client: &Running, line: &str, times: usize) {
    eventually(line, || (said(client, line) >= times).then_some(()));
}

/// Listens, is disturbed, and listens again.
fn listens(program: Wsevent) {
    let scratch = Scratch::new();
    let (mut registry, token) = signed_in(&scratch, "");
    let url = format!("ws://{}", registry.address());
    let client = program.args([url, token]).start();
    let (by_service, by_node) = (
        r#"subscribed {"event":"service_registered","serviceName":"web"}"#,
        r#"subscribed {"event":"service_registered","nodeId":"api:localhost:9"}"#,
    );
    for times in 1..=2 {
        says(&client, by_service, times);
        says(&client, by_node, times);
        register(&registry, "api", 8);
        register(&registry, "web", 1);
        register(&registry, "api", 9);
        says(&client, "service_registered api:localhost:9", times);
        assert_eq!(said(&client, "service_registered web:localhost:1"), times);
        assert_eq!(said(&client, "service_registered api:localhost:8"), 0);
        says(&client, "refreshed", 1);
        if times == 1 {
            registry.restart();
        }
    }
    assert_eq!(said(&client, "refused"), 0);
}

#[test]
fn the_javascript_client_listens_and_comes_back() {
    listens(javascript());
}

#[test]
fn the_python_client_listens_and_comes_back() {
    listens(python());
}

/// Is away, and hears afterwards what happened meanwhile, once.
fn resumes(program: Wsevent) {
    let scratch = Scratch::new();
    let mut registry = registry(&format!("--journal {}", scratch.arg("journal")));
    let client = program.arg(format!("ws://{}", registry.address())).start();
    says(&client, r#"subscribed {"event":"service_registered","nodeId":"api:localhost:9"}"#, 1);
    register(&registry, "web", 1);
    says(&client, "service_registered web:localhost:1", 1);
    for round in 0..3 {
        registry.restart();
        // The client waits for half a second at least before it comes back.
        (2..=4).for_each(|port| register(&registry, "web", 10 * round + port));
        says(&client, &format!("service_registered web:localhost:{}", 10 * round + 4), 1);
        (2..=4).for_each(|port| {
            assert_eq!(said(&client, &format!("service_registered web:localhost:{}", 10 * round + port)), 1)
        });
    }
    assert_eq!(said(&client, "service_registered web:localhost:1"), 1);
    // Nothing is known of what was, and so it goes on from there.
    registry.kill9();
    std::fs::remove_dir_all(scratch.path("journal")).expect("a journal");
    registry.start_again();
    let mut ports = 500..;
    eventually("a new life", || {
        register(&registry, "web", ports.next()?);
        client.stdout().contains("web:localhost:5").then_some(())
    });
}

#[test]
fn the_javascript_client_resumes() {
    resumes(javascript());
}

#[test]
fn the_python_client_resumes() {
    resumes(python());
}

#[test]
fn the_python_package_is_built_as_it_stands() {
    let (scratch, own) = (Scratch::new(), root().join("target/clients/venv/bin/python"));
    let mut build = Command::new(own);
    build.args(["-m", "build", "--no-isolation", "--outdir", &scratch.arg("dist")]).arg(copied(&scratch));
    let built = run(build);
    assert_eq!(built.code, 0, "is the package build there? scripts/test installs it: {}", built.stderr);
    let mut list = Command::new("python3");
    list.args(["-m", "zipfile", "-l", &scratch.arg("dist/wsevent_client-0.1.0-py3-none-any.whl")]);
    let listed = run(list);
    for file in
        ["wsevent_client/__init__.py", "wsevent_client/aio.py", "wsevent_client/threaded.py", "wsevent_client/py.typed"]
    {
        assert!(listed.stdout.contains(file), "{file} is not in {}", listed.stdout);
    }
}

/// The Python package's sources, where a build may leave what it likes.
fn copied(scratch: &Scratch) -> String {
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(root().join("clients/python")).arg(scratch.path("python"));
    assert_eq!(run(copy).code, 0);
    scratch.arg("python")
}

#[test]
fn the_javascript_package_is_packed_as_it_stands() {
    let npm = find_program("npm").expect("npm is missing: run scripts/test, which installs it");
    let mut pack = Command::new(npm);
    let packed = pack.args(["pack", "--dry-run", "--json"]).current_dir(root().join("clients/javascript")).output();
    let packed = packed.expect("npm runs");
    let listed: serde_json::Value = serde_json::from_slice(&packed.stdout).expect("JSON");
    let mut files: Vec<&str> =
        listed[0]["files"].as_array().expect("files").iter().filter_map(|file| file["path"].as_str()).collect();
    files.sort_unstable();
    assert_eq!(files, ["README.md", "index.d.ts", "index.js", "package.json"]);
}
