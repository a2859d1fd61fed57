//! Scripts: what they name is served, what they send arrives, what they do wrong is their own.

mod common;
mod link;
mod scripted;

use common::{Scratch, Wsevent, raw};
use link::Sse;
use scripted::{FIRST, Scripted, next, said};
use serde_json::json;

const SECOND: &str = r#"
const told = routeRegistry.registerStreamRoute("/events");
routeRegistry.registerStreamRoute("/quiet");
let count = 0;
function trigger(context) {
  count += 1;
  const { who } = context.request.form;
  return routeRegistry.sendStreamMessage("/events", { count, who, told });
}
routeRegistry.registerRoute("/trigger", "trigger", "POST");
"#;

#[test]
fn a_stream_and_a_route_in_the_first_style() {
    let app = Scripted::serve(FIRST);
    let (mut stream, mut socket) = (app.sse("/events"), raw::Raw::websocket(&app.url("/events")));
    assert_eq!(stream.answer.header("content-type"), Some("text/event-stream"));
    let answer = app.form("/trigger", "who=me");
    assert_eq!(said(&answer), (200, "sent to me".into()));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    let event = next(&mut stream);
    assert_eq!((&event["type"], &event["message"]), (&json!("event"), &json!("It happened")));
    assert!(event["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{event}");
    assert_eq!(socket.read_message().expect("an event").text(), event.to_string());
    assert_eq!(said(&app.post("/trigger")), (200, "sent to all".into()));
}

#[test]
fn a_stream_and_a_route_in_the_second_style() {
    let app = Scripted::serve(SECOND);
    let mut stream = app.sse("/events");
    let result = "Broadcast to '/events': 1 successful, 0 failed (1 matching)";
    assert_eq!(said(&app.form("/trigger", "who=me&who=you")), (200, result.into()));
    assert_eq!(next(&mut stream), json!({"count": 1, "who": "you", "told": "Stream '/events' registered"}));
    app.post("/trigger");
    assert_eq!(next(&mut stream), json!({"count": 2, "told": "Stream '/events' registered"}), "variables stay");
    assert!(app.streams("/quiet"));
}

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let app = Scripted::serve(FIRST);
    assert_eq!(app.get("/nowhere").status, 404);
    let wrong = app.get("/trigger");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(Sse::try_open(&app.url("/trigger"), "").expect("an answer").answer.status, 405);
    let body = format!("x={}", "y".repeat(10 << 20));
    assert_eq!(app.form("/trigger", &body).status, 413);
    assert_eq!(app.send("/trigger", "multipart/form-data; boundary=b", "no part").status, 400);
    assert_eq!(app.form("/trigger", "who=still").text(), "sent to still");
}

#[test]
fn a_script_that_does_not_load_ends_the_start_with_its_place() {
    let scratch = Scratch::new();
    for (source, place) in [
        ("let a = 1;\nlet b = ;\n", "app.js:2:9: SyntaxError"),
        ("\n  missing();\n", "app.js:2:3: ReferenceError: missing"),
        ("registerWebStream('events');", "app.js:1:1: TypeError: a path must"),
        ("while (true) {}", "took longer than 300ms"),
        ("let hoard = []; while (true) hoard.push('x'.repeat(1e6) + hoard.length);", "bytes of memory"),
        ("function deep() { return 1 + deep(); }\ndeep();", "app.js:1"),
    ] {
        let file = scratch.file("app.js", source);
        let run = Wsevent::line("--script-timeout 300ms --script-memory 8MiB --serve-address localhost:0");
        let done = run.args(["--script", &file]).run();
        assert_eq!(done.code, 78, "{source}: {}", done.stderr);
        assert!(done.stderr.contains(place), "{source}: {}", done.stderr);
    }
    assert_eq!(Wsevent::line("--script /nowhere/app.js").run().code, 78);
}

/// Evaluates what is posted, and answers its JSON, or 400 with the exception.
const EVAL: &str = r#"
function run(req) {
  try {
    return { body: JSON.stringify((0, eval)(req.body)) ?? "undefined" };
  } catch (error) {
    return { status: 400, body: `${error instanceof Error} ${error.name}: ${error.message}` };
  }
}
register("/run", "run", "post");
registerWebStream("/s");
"#;

fn run(app: &Scripted, code: &str) -> (u16, String) {
    said(&app.send("/run", "text/plain", code))
}

#[test]
fn every_name_answers_as_its_generation_does() {
    let app = Scripted::serve(EVAL);
    let nobody = |path: &str| format!("\"Broadcast to '{path}': 0 successful, 0 failed (0 matching)\"");
    let (s, none) = (nobody("/s"), nobody("/none"));
    for (code, result) in [
        ("registerWebStream('/a')", "undefined"),
        ("register('/b', 'run')", "undefined"),
        ("writeLog(5)", "undefined"),
        ("sendStreamMessage({})", "undefined"),
        ("sendStreamMessage('/s')", "undefined"),
        ("console.log(1, 'two', {three: 3})", "undefined"),
        ("routeRegistry.registerStreamRoute('/a')", "\"Stream '/a' registered\""),
        ("routeRegistry.registerRoute('/b', 'run', 'put')", "\"Route PUT '/b' registered to run\""),
        ("sendStreamMessage('/s', 1)", &s),
        ("routeRegistry.sendStreamMessage('/none', {})", &none),
        ("routeRegistry.sendStreamMessageFiltered('/s', {}, '{\"a\":1}')", &s),
        ("routeRegistry.sendStreamMessageFiltered('/s', {})", &s),
        ("routeRegistry.sendStreamMessageToConnections('/s', {}, null)", &s),
        ("sendStreamMessageToConnections('/s', {}, '')", &s),
        ("sendStreamMessageFiltered('/s', {}, {a: true})", &s),
        ("sendStreamMessageToPath('/s', 'x')", &s),
        ("typeof graphQLRegistry.registerSubscription('n', 'type Subscription { n: String }', 'nobody')", "\"string\""),
        ("typeof sendSubscriptionMessage('n', {a: 1})", "\"string\""),
        ("typeof sendSubscriptionMessageToConnections('n', 'x', '{}')", "\"string\""),
        ("Object.keys(globalThis).includes('register')", "false"),
    ] {
        assert_eq!(run(&app, code), (200, result.to_owned()), "{code}");
    }
    app.says("1 two {\"three\":3}");
}

#[test]
fn what_is_wrong_throws_and_reaches_nobody() {
    let app = Scripted::serve_with(EVAL, "--max-message 1KiB");
    let mut stream = app.sse("/s");
    for (code, error) in [
        ("registerWebStream()", "TypeError: a path must be"),
        ("registerWebStream('events')", "TypeError: a path must be"),
        ("registerWebStream(5)", "TypeError: a path must be"),
        ("registerWebStream('/' + 'x'.repeat(200))", "RangeError: a path has at most 200"),
        ("routeRegistry.registerStreamRoute('')", "TypeError: a path must be"),
        ("routeRegistry.registerStreamRoute('/a b')", "Error: stream path"),
        ("register('b', 'run', 'GET')", "TypeError: a path must be"),
        ("register('/b', '', 'GET')", "TypeError: a handler's name"),
        ("register('/b', () => {}, 'GET')", "TypeError: a handler's name"),
        ("register('/b', 'run', 5)", "TypeError: a method"),
        ("register('/-/b', 'run')", "Error: the path"),
        ("routeRegistry.sendStreamMessage('s', {})", "TypeError: a path must be"),
        ("routeRegistry.sendStreamMessage('/s')", "TypeError: what is sent"),
        ("sendStreamMessage(() => 1)", "TypeError: what is sent"),
        ("sendStreamMessage(Symbol('x'))", "TypeError: what is sent"),
        ("sendStreamMessage(10n)", "TypeError: "),
        ("const loop = {}; loop.loop = loop; sendStreamMessage(loop)", "TypeError: "),
        ("sendStreamMessage('x'.repeat(1025))", "Error: an event of 1025 bytes is larger than 1024"),
        ("sendStreamMessageFiltered('/s', 1, '{')", "Error: the filter"),
        ("sendStreamMessageFiltered('/s', 1, '[]')", "Error: the filter"),
        ("sendStreamMessageFiltered('/s', 1, 'null')", "Error: the filter"),
        ("sendStreamMessageFiltered('/s', 1, '{\"a\":null}')", "Error: the filter"),
        ("sendStreamMessageFiltered('/s', 1, [])", "TypeError: a filter"),
        ("sendStreamMessageFiltered('/s', 1, 5)", "TypeError: a filter"),
        ("setTimeout(() => 1)", "ReferenceError: "),
        ("JSON.parse('['.repeat(1e5))", "RangeError: "),
        ("__wsevent = 1; if (__wsevent !== 1) throw new TypeError('kept')", "TypeError: kept"),
    ] {
        let (status, body) = run(&app, code);
        assert_eq!(status, 400, "{code}: {body}");
        assert!(body.starts_with(&format!("true {error}")), "{code}: {body}");
    }
    run(&app, "sendStreamMessage('last')");
    assert_eq!(next(&mut stream), json!("last"), "nothing came before");
}

#[test]
fn strings_are_sent_as_they_are_and_the_rest_as_json() {
    let app = Scripted::serve(EVAL);
    let mut stream = raw::Raw::websocket(&app.url("/s"));
    for (code, text) in [
        ("sendStreamMessage('{\"a\": 1}')", "{\"a\": 1}"),
        ("sendStreamMessage('')", ""),
        (
            "sendStreamMessage({a: undefined, b: new Date(0), c: [undefined]})",
            "{\"b\":\"1970-01-01T00:00:00.000Z\",\"c\":[null]}",
        ),
        ("sendStreamMessage({toJSON: () => 'own'})", "\"own\""),
        ("sendStreamMessage(null)", "null"),
        ("sendStreamMessage('\\ud800 half \\u0000')", "\u{fffd} half \0"),
        ("sendStreamMessage({half: '\\ud800'})", "{\"half\":\"\\ud800\"}"),
    ] {
        assert_eq!(run(&app, code).0, 200, "{code}");
        assert_eq!(stream.read_message().expect("an event").text(), text, "{code}");
    }
}

#[test]
fn a_handler_sees_the_request_in_both_places() {
    let app = Scripted::serve(
        "const echo = (context) => ({ body: { ...context, same: context.request.form === context.form } });
         register('/echo/*', 'echo', 'POST'); register('/echo', 'echo', 'PUT'); register('/echo', 'echo');",
    );
    let kind = "X-One: 1\r\nX-One: 2\r\nContent-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n";
    let answer = raw::request("POST", &app.url("/echo/%C3%A9?a=1&a=2+3&b&&__proto__=p"), kind, b"f=%2B&g=");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    for place in [&seen, &seen["request"]] {
        assert_eq!((&place["path"], &place["method"]), (&json!("/echo/%C3%A9"), &json!("POST")));
        assert_eq!(place["query"], json!({"a": "2 3", "b": "", "__proto__": "p"}));
        assert_eq!(place["form"], json!({"f": "+", "g": ""}));
        assert_eq!((&place["body"], &place["headers"]["x-one"]), (&json!("f=%2B&g="), &json!("1, 2")));
    }
    assert_eq!((&seen["same"], &seen["kind"], &seen["args"]), (&json!(true), &json!("httpRoute"), &json!(null)));
    assert!(seen["scriptUri"].as_str().is_some_and(|file| file.ends_with("app.js")) && seen["handlerName"] == "echo");
    let bare: serde_json::Value = serde_json::from_slice(&app.get("/echo").body).expect("JSON");
    assert_eq!((&bare["query"], &bare["form"], bare.get("body")), (&json!({}), &json!({}), None));
    let part = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n";
    let form = app.send("/echo/form", "multipart/form-data; boundary=b", part);
    assert!(form.text().contains("\"form\":{\"a\":\"1\"}"), "{}", form.text());
    assert_eq!(raw::request("PUT", &app.url("/echo"), "Content-Type: application/json\r\n", b"{}").status, 200);
}

#[test]
fn what_a_handler_returns_is_answered() {
    let app = Scripted::serve(
        "const results = {
           nothing: () => {}, text: () => 'text', bare: () => ({ body: 'b' }), json: () => ({ status: 201, body: { a: 1 } }),
           bytes: () => ({ bodyBase64: 'AAE=' }), page: () => ({ body: '<p>', contentType: 'text/html' }),
           more: () => ({ status: 302, headers: { Location: '/x', 'Content-Length': '99' } }), later: async () => 'later',
           chain: () => Promise.resolve(1).then((n) => Promise.resolve(`n${n}`)),
           lost: () => { (async () => { throw new Error('lost'); })(); return 'text'; }, number: () => 5, list: () => [1], status: () => ({ status: 99 }), header: () => ({ headers: { 'a b': 'c' } }),
           never: () => new Promise(() => {}), rejects: async () => { throw new Error('secret'); }, throws: () => { throw 5; },
         };
         function result(req) { return results[req.query.of](); }
         register('/result', 'result'); register('/missing', 'nobody');",
    );
    let text = Some("text/plain; charset=UTF-8");
    for (of, status, kind, body) in [
        ("nothing", 200, text, ""),
        ("text", 200, text, "text"),
        ("bare", 200, text, "b"),
        ("json", 201, Some("application/json"), "{\"a\":1}"),
        ("bytes", 200, Some("application/octet-stream"), "\0\x01"),
        ("page", 200, Some("text/html"), "<p>"),
        ("more", 302, text, ""),
        ("later", 200, text, "later"),
        ("chain", 200, text, "n1"),
        ("lost", 200, text, "text"),
    ] {
        let answer = app.get(&format!("/result?of={of}"));
        assert_eq!((answer.status, answer.header("content-type"), &*answer.text()), (status, kind, body), "{of}");
    }
    for of in ["number", "list", "status", "header", "never", "rejects", "throws", "absent"] {
        let answer = app.get(&format!("/result?of={of}"));
        assert_eq!(answer.status, 500, "{of}");
        assert!(answer.text().starts_with("{\"error\":\"the handler result ") && !answer.text().contains("secret"));
    }
    assert_eq!(app.get("/missing").status, 500);
    app.says("nobody waited for what failed: Error: lost");
    app.says("nobody waited");
    app.says("Error: secret");
    assert_eq!((app.said("nobody waited"), app.said("Error: secret")), (1, 1), "{}", app.running.stderr());
    app.says("app.js:7:");
    assert_eq!(raw::request("HEAD", &app.url("/result?of=text"), "", b"").body, b"");
}

#[test]
fn calls_that_go_wrong_disturb_nobody() {
    let scratch = Scratch::new();
    let wild = scratch.file(
        "wild.js",
        "let calls = 0; const hoard = []; registerWebStream('/wild');
         function loop() { while (true) calls += 1; }
         function bomb() { while (true) hoard.push('x'.repeat(1e5) + hoard.length); }
         function deep() { return deep() + 1; }
         function jobs() { const again = () => { Promise.resolve().then(again); }; again(); return 'left'; }
         function regexp() { return String(/^(a+)+$/.test('a'.repeat(40) + 'b')); }
         function fine() { calls += 1; return 'fine'; }
         for (const name of ['loop', 'bomb', 'deep', 'jobs', 'regexp', 'fine']) register('/' + name, name);",
    );
    let calm = scratch.file("calm.js", FIRST);
    let line = Wsevent::line("--script-timeout 300ms --script-memory 8MiB");
    let running = line.args(["--script", &wild, "--script", &calm]).serve();
    let app = Scripted { running, scratch };
    let mut stream = app.sse("/events");
    for (path, why) in [
        ("/loop", "took longer than 300ms"),
        ("/bomb", "bytes of memory"),
        ("/deep", "failed"),
        ("/jobs", "took longer than 300ms"),
        ("/regexp", "took longer than 300ms"),
    ] {
        let answer = std::thread::scope(|scope| {
            let wild = scope.spawn(|| app.get(path));
            assert_eq!(app.form("/trigger", "who=calm").text(), "sent to calm", "beside {path}");
            assert_eq!(next(&mut stream)["type"], "event", "beside {path}");
            wild.join().expect("an answer")
        });
        assert_eq!(answer.status, 500, "{path}: {}", answer.text());
        assert!(answer.text().contains(why), "{path}: {}", answer.text());
        assert_eq!(app.get("/fine").text(), "fine", "after {path}");
    }
    app.says("begun anew");
    assert!(app.said("begun anew") > 0, "the hoard: {}", app.running.stderr());
    let status: serde_json::Value = serde_json::from_slice(&app.running.own("status").body).expect("JSON");
    let figures = &status["scripts"][0];
    assert_eq!((&figures["calls"], &figures["errors"], &figures["timeouts"]), (&json!(10), &json!(5), &json!(3)));
    assert_eq!(
        (&figures["streams"], &figures["routes"], &figures["memory_limit"]),
        (&json!(1), &json!(6), &json!(8 << 20))
    );
    assert!(figures["memory"].as_u64().is_some_and(|memory| (1..8 << 20).contains(&memory)), "{figures}");
    let metrics = app.running.own("metrics").text();
    assert!(
        metrics.contains("wsevent_script_timeouts_total{script=") && metrics.contains("wild.js\"} 3\n"),
        "{metrics}"
    );
}

#[test]
fn a_changed_script_keeps_the_readers_of_what_it_keeps() {
    let app = Scripted::serve(
        "registerWebStream('/kept'); registerWebStream('/gone'); register('/a', 'a'); const a = () => 'one';",
    );
    let (mut kept, mut gone) = (app.sse("/kept"), app.sse("/gone"));
    app.change("registerWebStream('/kept'); registerWebStream('/new'); register('/b', 'b'); const b = () => { sendStreamMessage('two'); };");
    assert_eq!(app.get("/b").status, 200);
    assert_eq!(next(&mut kept), json!("two"));
    assert_eq!(gone.event(), None, "its readers are sent away");
    assert_eq!((app.streams("/gone"), app.streams("/new"), app.get("/a").status), (false, true, 404));
    app.scratch.file("app.js", "registerWebStream('/half'); oops(");
    common::bash(&format!("kill -HUP {}", app.running.pid()));
    app.says("not taken");
    app.says("app.js:1:");
    assert_eq!((app.streams("/half"), app.get("/b").status), (false, 200));
    assert_eq!(next(&mut kept), json!("two"), "what was there goes on");
}

#[test]
fn of_two_scripts_both_are_heard_and_the_later_route_counts() {
    let scratch = Scratch::new();
    let one = scratch.file("one.js", "registerWebStream('/one'); registerWebStream('/both'); register('/r', 'r'); const r = () => 'one'; register('/only', 'r');");
    let two = scratch.file("two.js", "registerWebStream('/two'); registerWebStream('/both'); register('/r', 'r'); function r() { sendStreamMessage(1); return 'two'; }");
    let running = Wsevent::new(["--script", &one, "--script", &two]).serve();
    let app = Scripted { running, scratch };
    let mut streams = ["/one", "/two", "/both"].map(|path| app.sse(path));
    assert_eq!((app.get("/r").text(), app.get("/only").text()), ("two".into(), "one".into()));
    streams.iter_mut().for_each(|stream| assert_eq!(next(stream), json!(1)));
    app.scratch.file("two.js", "register('/r', 'r'); const r = () => sendStreamMessage(2);");
    common::bash(&format!("kill -HUP {}", app.running.pid()));
    common::eventually("the second version", || (!app.streams("/two")).then_some(()));
    app.get("/r");
    assert_eq!(next(&mut streams[2]), json!(2), "the other script still names it");
}

#[test]
fn console_lines_go_to_the_log_by_their_level() {
    let script = "console.debug('d', 1); console.log('l\\nx'); console.info({i: 1}); console.warn('w'); console.error(new Error('e')); writeLog([5]);";
    for (options, lines) in [("", 5), ("-v", 6), ("-q", 0)] {
        let app = Scripted::serve_with(script, options);
        common::eventually("the log", || (app.said("app.js") >= app.said("app.js:1") + lines).then_some(()));
        let log = app.running.stderr();
        assert_eq!(log.matches("app.js").count() - log.matches("app.js:1").count(), lines, "{options}: {log}");
        assert!(
            lines == 0 || (log.contains("l\\nx") && log.contains("{\"i\":1}") && log.contains("Error: e")),
            "{log}"
        );
    }
}

#[test]
fn a_script_beside_a_topic_of_the_process() {
    let app = Scripted::serve_with(
        "registerWebStream('/own');\nfunction init(context) { writeLog(`began in ${context.kind}`); }",
        "--accept-publish",
    );
    assert!(app.running.url().ends_with("/events"), "{}", app.running.url());
    assert_eq!(raw::post(app.running.url(), "x").status, 200);
    assert_eq!((app.streams("/own"), app.get("/events").text()), (true, "[\"x\"]".into()));
    app.says("began in init");
    app.change("register('/events', 'page'); const page = (req) => `${req.method} by the script`;");
    assert_eq!(app.get("/events").text(), "GET by the script", "its routes take the place of what is there");
    assert_eq!(raw::post(app.running.url(), "y").status, 405);
}

#[test]
fn who_brings_a_token_may_do_what_it_says() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "letmein\n");
    let app = Scripted::serve_with(
        "register('/r', 'r'); register('/r', 'r', 'DELETE'); const r = (req) => req.method;",
        &format!("--token-file {tokens}"),
    );
    for method in ["GET", "DELETE"] {
        assert_eq!(raw::request(method, &app.url("/r"), "", b"").status, 401);
        let answer = raw::request(method, &app.url("/r"), "Authorization: Bearer letmein\r\n", b"");
        assert_eq!(said(&answer), (200, method.into()));
    }
    let foreign = "Authorization: Bearer letmein\r\nOrigin: http://elsewhere.example\r\n";
    assert_eq!(raw::request("DELETE", &app.url("/r"), foreign, b"").status, 403);
}

#[test]
fn a_script_beside_a_registry_asks_for_tokens_as_ever() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "letmein\n");
    let options = format!("--registry --token-file {tokens}");
    let app =
        Scripted::serve_with("register('/r', 'r', 'POST'); register('/servers', 'r'); const r = () => 'r';", &options);
    let ask = |method: &str, path: &str, token: &str| raw::request(method, &app.url(path), token, b"").status;
    let token = "Authorization: Bearer letmein\r\n";
    assert_eq!((ask("POST", "/r", ""), ask("GET", "/servers", ""), ask("GET", "/services", "")), (401, 401, 200));
    assert_eq!((ask("POST", "/r", token), ask("GET", "/servers", token)), (200, 200));
}

#[test]
fn a_healthy_stream_among_scripts_that_never_behave() {
    let scratch = Scratch::new();
    let calm = scratch.file(
        "calm.js",
        "registerWebStream('/calm'); let n = 0;
         function beat() { n += 1; return routeRegistry.sendStreamMessage('/calm', n); }
         register('/beat', 'beat', 'POST');",
    );
    let loops = scratch.file("loops.js", "register('/loop', 'loop'); function loop() { while (true); }");
    let hoards = scratch.file(
        "hoards.js",
        "register('/hoard', 'hoard'); let all = []; function hoard() { while (true) all.push('x'.repeat(1e4) + all.length); }",
    );
    let throws = scratch.file("throws.js", "function onEvent() { throw new Error('never'); }");
    let line = Wsevent::line("--script-timeout 200ms --script-memory 4MiB --accept-publish --stage-script");
    let line = line.arg(&throws).args(["--script", &calm, "--script", &loops, "--script", &hoards]);
    let app = Scripted { running: line.serve(), scratch };
    let mut stream = app.sse("/calm");
    for n in 0..10 {
        std::thread::scope(|scope| {
            let wild = ["/loop", "/hoard"].map(|path| scope.spawn(|| app.get(path).status));
            assert_eq!(raw::post(app.running.url(), "dropped").status, 200);
            for beat in 1..=20 {
                assert!(app.post("/beat").text().contains("1 successful, 0 failed"));
                assert_eq!(next(&mut stream), json!(20 * n + beat));
            }
            for wild in wild {
                assert_eq!(wild.join().expect("an answer"), 500);
            }
        });
    }
    let status: serde_json::Value = serde_json::from_slice(&app.running.own("status").body).expect("JSON");
    let of =
        |path: &str| status["topics"].as_array().and_then(|all| all.iter().find(|one| one["path"] == path)).cloned();
    assert_eq!(of("/events").expect("a topic")["stage_errors"], 10);
    assert_eq!(of("/calm").expect("a stream")["events"], 200);
}
