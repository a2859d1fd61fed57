//! What lies beside scripts: the files of `--static`, checks without serving, the types for editors.

mod common;
mod link;
mod scripted;

use common::{Scratch, Wsevent, raw};
use scripted::{FIRST, Scripted, said};

#[test]
fn files_are_served_where_nothing_else_is() {
    let scratch = Scratch::new();
    for dir in ["www/sub", "www/.git", "secret"] {
        std::fs::create_dir_all(scratch.path(dir)).expect("a directory");
    }
    scratch.file("www/index.html", "<p>home");
    scratch.file("www/sub/index.html", "<p>sub");
    scratch.file("www/sub/a b.js", "x".repeat(200_000));
    scratch.file("www/.git/config", "hidden");
    scratch.file("secret/file", "outside");
    std::os::unix::fs::symlink(scratch.path("secret"), scratch.path("www/link")).expect("a link");
    let script = "registerWebStream('/sub/live'); register('/index.html', 'page'); const page = () => 'by the script';";
    let app = Scripted::serve_with(script, &format!("--static {}", scratch.arg("www")));
    let home = app.get("/?x=y");
    assert_eq!((said(&home), home.header("content-type")), ((200, "<p>home".into()), Some("text/html; charset=utf-8")));
    assert_eq!(app.get("/index.html").text(), "by the script");
    let moved = app.get("/sub");
    assert_eq!((moved.status, moved.header("location")), (308, Some("/sub/")));
    assert_eq!(app.get("/sub/").text(), "<p>sub");
    assert_eq!(app.get("/sub/a%20b.js").body.len(), 200_000);
    assert!(app.streams("/sub/live"));
    for path in [
        "/nothing",
        "/../secret/file",
        "/%2e%2e/secret/file",
        "/..%2fsecret/file",
        "/link/file",
        "/.git/config",
        "//sub",
        "/sub/a%20b.js/",
    ] {
        assert_eq!(app.get(path).status, 404, "{path}");
    }
    let held = format!("If-Modified-Since: {}\r\n", home.header("last-modified").expect("a date"));
    let again = raw::request("GET", &app.url("/"), &held, b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = raw::request("HEAD", &app.url("/sub/a%20b.js"), "", b"");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("200000"), 0));
    assert_eq!(app.post("/sub/").status, 404);
}

#[test]
fn a_check_tells_what_is_wrong_and_serves_nothing() {
    let scratch = Scratch::new();
    let good = scratch.file("good.js", FIRST);
    let done = Wsevent::new(["--script", &good, "--check"]).run();
    assert_eq!(
        (done.code, done.stdout.contains("good.js"), done.stdout.contains(":3000/")),
        (0, true, true),
        "{done:?}"
    );
    let bad = scratch.file("bad.js", "\n\nfunction (");
    for option in ["--script", "--stage-script"] {
        let done = Wsevent::new([option, &bad, "--check"]).run();
        assert_eq!(done.code, 78);
        assert!(done.stderr.contains("bad.js:3:10: SyntaxError"), "{}", done.stderr);
    }
    let types = Wsevent::new(["types"]).run();
    assert!(types.code == 0 && types.stdout.contains("declare const routeRegistry"), "{types:?}");
}
