//! Shell manners: data on stdout and nothing else, exit codes, the end of input, signals, files, definitions.

mod common;

use common::{
    Done, Running, Scratch, Wsevent, bash, binary, eventually, find_program,
    raw::{self, Frame, Raw, Server, header_of},
    reader::Reader,
    run,
};
use serde_json::Value;
use std::{fs, process::Command};

/// Serves these lines and goes on serving.
fn serving(lines: &str) -> Running {
    let running = Wsevent::line("--produce - --keep-open").input(lines).serve();
    running.has("held_events", lines.lines().count() as u64);
    running
}

/// A consumer of what `from` serves.
fn consume(from: &Running, options: &str) -> Wsevent {
    Wsevent::new(["--consume", &from.ws_url(), "--no-serve"]).args(options.split_whitespace())
}

/// stdin through the program to stdout.
fn pipe(options: &[&str], input: &[u8]) -> Done {
    Wsevent::line("--produce - --no-serve").args(options).input(input).run()
}

fn assert_ended(done: &Done, code: i32, stdout: &str) {
    assert_eq!((done.code, done.stdout.as_str()), (code, stdout), "stderr: {}", done.stderr);
}

fn refused_address() -> String {
    Server::new().address()
}

// --- standard output -------------------------------------------------------------------------------------------------

#[test]
fn stdout_is_data_only() {
    let producer = serving("a\nb\n");
    let printed = consume(&producer, "-vv --since oldest --count 2").run();
    assert_ended(&printed, 0, "a\nb\n");
    assert!(printed.stderr.contains("connected"), "the log is on stderr: {}", printed.stderr);
    assert_eq!(producer.stdout(), "", "a server prints nothing");
}

#[test]
fn raw_output_adds_a_line_feed_only_where_one_is_missing() {
    let ended = pipe(&["--framing", "nul"], b"with\n\0without\0two\n\n\0\0");
    assert_ended(&ended, 0, "with\nwithout\ntwo\n\n\n");
}

#[test]
fn raw_output_keeps_bytes() {
    let mut running = Wsevent::line("--produce - --no-serve").input(&b"\xff\x00\xfe\r\n\xc3\xa4\n"[..]).start();
    assert_eq!(running.wait(), 0);
    assert_eq!(running.stdout_bytes(), b"\xff\x00\xfe\r\n\xc3\xa4\n");
}

#[test]
fn ndjson_output_has_one_object_per_event() {
    let ended = pipe(&["--output", "ndjson"], b"{\"a\":1}\ntwo \"words\"\n\xff\xfe\n");
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let data: Vec<_> = lines.iter().map(|line| line["data"].as_str()).collect();
    assert_eq!(data, [Some("{\"a\":1}"), Some("two \"words\""), None]);
    assert_eq!(lines[2]["data_base64"], "//4=");
    let ids: Vec<_> =
        lines.iter().filter_map(|line| line["id"].as_str()).filter_map(|id| id.rsplit_once('-')).collect();
    assert_eq!(ids.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(ids.iter().all(|(epoch, _)| *epoch == ids[0].0 && epoch.len() == 23), "{ids:?}");
    assert!(lines.iter().all(|line| line["time"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000)));
}

#[test]
fn sse_output_is_an_event_stream() {
    let ended = pipe(&["--output", "sse", "--framing", "nul"], b"one\0two\nlines\0");
    let blocks: Vec<&str> = ended.stdout.split_terminator("\n\n").collect();
    assert_eq!(blocks.len(), 2, "{}", ended.stdout);
    assert!(blocks[0].starts_with("id: e") && blocks[0].ends_with("-1\ndata: one"), "{}", blocks[0]);
    assert!(blocks[1].ends_with("-2\ndata: two\ndata: lines"), "{}", blocks[1]);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let done = bash("yes line | $wsevent --produce - --no-serve | head -n 2; echo ${PIPESTATUS[1]}");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("line\nline\n0\n", ""));
}

#[test]
fn a_consumer_whose_pipe_closes_ends_too() {
    let producer = Wsevent::line("").serve();
    let line = format!("$wsevent --consume {} --no-serve -q | head -n 1; echo ${{PIPESTATUS[0]}}", producer.ws_url());
    let done = bash(&line);
    assert!(done.stdout.ends_with("\n0\n") && done.stderr.is_empty(), "{done:?}");
}

// --- when a consumer ends --------------------------------------------------------------------------------------------

#[test]
fn count_ends_after_n_events() {
    let producer = serving("1\n2\n3\n4\n5\n");
    assert_ended(&consume(&producer, "--since oldest --count 3").run(), 0, "1\n2\n3\n");
    assert_ended(&consume(&producer, "--since oldest --count 0").run(), 0, "");
    assert_ended(&pipe(&["--count", "2"], b"1\n2\n3\n"), 0, "1\n2\n");
}

#[test]
fn timeout_ends_with_124() {
    let producer = serving("1\n");
    assert_ended(&consume(&producer, "--since oldest --timeout 300ms").run(), 124, "1\n");
    let unreachable = Wsevent::line("--no-serve --timeout 200ms --consume").arg(refused_address()).run();
    assert_ended(&unreachable, 124, "");
}

#[test]
fn a_server_may_have_a_timeout_too() {
    assert_eq!(Wsevent::line("--timeout 100ms").serve().wait(), 124);
}

#[test]
fn until_prints_the_event_that_ends_it() {
    let input = b"{\"n\":1}\nno JSON\n{\"n\":2}\n{\"n\":3}\n";
    assert_ended(&pipe(&["--until", ".n == 2"], input), 0, "{\"n\":1}\nno JSON\n{\"n\":2}\n");
    assert_ended(&pipe(&["--until", ".n == 9"], b"{\"n\":1}\n"), 0, "{\"n\":1}\n");
}

/// So many lines are more than a pipe holds.
const MANY: usize = 2000;

fn numbered(count: usize, line: impl Fn(String) -> String) -> String {
    (0..count).map(|n| line(format!("{n:0100}"))).collect()
}

/// Runs a consumer whose standard output is read only after this many seconds. Returns the lines and the exit code.
fn read_late(seconds: u32, line: &str) -> (String, String) {
    let done = bash(&format!("$wsevent --no-serve -q {line} | {{ sleep {seconds}; wc -l; }}; echo ${{PIPESTATUS[0]}}"));
    let mut words = done.stdout.split_whitespace().map(String::from);
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

const EVENT_STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const LINES: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n";

/// Servers that say so many events of each kind and close: their URLs.
fn servers_that_end(count: usize) -> Vec<String> {
    let sse = EVENT_STREAM.to_owned() + &numbered(count, |n| format!("data: {{\"n\":\"{n}\"}}\n\n"));
    let ndjson = LINES.to_owned() + &numbered(count, |n| format!("{{\"n\":\"{n}\"}}\n"));
    let websocket = Server::new();
    let address = websocket.address();
    std::thread::spawn(move || {
        loop {
            let (mut raw, _) = websocket.accept_websocket("");
            for n in 0..count {
                let _ = raw.try_send(Frame::from_server(raw::TEXT, format!("{{\"n\":\"{n:0100}\"}}")).to_bytes());
            }
        }
    });
    let [sse, ndjson] = [sse, ndjson].map(|bytes| Server::new().answer_all(bytes));
    vec![format!("sse+http://{sse}/"), format!("ndjson+http://{ndjson}/"), format!("ws://{address}/")]
}

#[test]
fn what_came_before_an_upstream_is_given_up_is_printed_first() {
    for url in servers_that_end(MANY) {
        for stages in ["", "--map .n --filter true"] {
            let ended = read_late(1, &format!("--retries 0 {stages} --consume {url}"));
            assert_eq!(ended, ("2000".into(), "69".into()), "{url} {stages}");
        }
        let counted = read_late(1, &format!("--retries 0 --count 2000 --consume {url}"));
        assert_eq!(counted, ("2000".into(), "0".into()), "{url}");
    }
}

#[test]
fn what_came_before_an_upstream_is_given_up_counts() {
    for url in servers_that_end(1) {
        for (options, code) in [("--count 1", 0), ("--until true", 0), ("--count 2", 69), ("--until false", 69)] {
            let line = ["--no-serve", "--retries", "0", "--consume", &url];
            let done = Wsevent::new(line).args(options.split_whitespace()).run();
            assert_ended(&done, code, &numbered(1, |n| format!("{{\"n\":\"{n}\"}}\n")));
        }
    }
}

#[test]
fn what_came_over_a_link_that_is_given_up_is_printed_first() {
    let mut producer = serving(&numbered(MANY, |n| n + "\n"));
    let line = format!("--retries 0 --since oldest --consume {}", producer.ws_url());
    let consumer = std::thread::spawn(move || read_late(3, &line));
    producer.has("readers", 1);
    std::thread::sleep(std::time::Duration::from_secs(1));
    producer.kill9();
    assert_eq!(consumer.join().expect("a consumer"), ("2000".into(), "69".into()));
}

#[test]
fn what_came_from_one_upstream_is_printed_though_another_is_given_up() {
    let (first, second) = (Server::new(), Server::new());
    let urls = format!("--consume sse+http://{}/ --consume sse+http://{}/", first.address(), second.address());
    let consumer = std::thread::spawn(move || read_late(2, &format!("--retries 0 {urls}")));
    let ((mut one, _), (mut other, _)) = (first.accept(), second.accept());
    one.send(EVENT_STREAM.to_owned() + &numbered(MANY, |n| format!("data: {n}\n\n")));
    std::thread::sleep(std::time::Duration::from_millis(700));
    other.send(EVENT_STREAM.to_owned() + "data: last\n\n");
    drop(other);
    assert_eq!(consumer.join().expect("a consumer"), ("2001".into(), "69".into()));
    drop(one);
}

#[test]
fn what_came_before_a_command_fails_counts() {
    let produce =
        |options: &[&str]| Wsevent::new(["--no-serve", "--produce", "exec:seq 3; exit 1"]).args(options).run();
    for _ in 0..5 {
        assert_ended(&produce(&["--count", "3"]), 0, "1\n2\n3\n");
        assert_ended(&produce(&["--until", ". == 3"]), 0, "1\n2\n3\n");
        assert_ended(&produce(&[]), 1, "1\n2\n3\n");
    }
}

#[test]
fn what_came_before_the_timeout_or_a_signal_is_printed_first() {
    let producer = serving(&numbered(MANY, |n| n + "\n"));
    let line = format!("--since oldest --consume {}", producer.ws_url());
    assert_eq!(read_late(2, &format!("{line} --timeout 1s")), ("2000".into(), "124".into()));
    assert_eq!(read_late(2, &format!("{line} --timeout 1s --count 2000")), ("2000".into(), "0".into()));
    let stopped = bash(&format!(
        "{{ $wsevent --no-serve -q {line} & sleep 1; kill $!; wait $!; echo $? >&2; }} | {{ sleep 2; wc -l; }}"
    ));
    assert_eq!((stopped.stdout.trim(), stopped.stderr.trim()), ("2000", "143"));
}

#[test]
fn a_standard_output_that_takes_nothing_delays_the_timeout_for_a_moment_only() {
    let producer = serving(&numbered(MANY, |n| n + "\n"));
    let mut command = Command::new(binary());
    command.args(["--no-serve", "--since", "oldest", "--timeout", "300ms", "--consume", &producer.ws_url()]);
    let mut stuck = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let ended = eventually("its end", || stuck.try_wait().expect("a status"));
    assert_eq!(ended.code(), Some(124));
}

#[test]
fn what_came_before_a_fault_of_the_upstream_counts() {
    let sse = format!("{EVENT_STREAM}data: good\n\ndata: {}\n\n", "x".repeat(5000));
    let ndjson = format!("{LINES}good\n{}", "x".repeat(5000));
    for (kind, bytes) in [("sse", sse), ("ndjson", ndjson)] {
        let url = format!("{kind}+http://{}/", Server::new().answer_all(bytes));
        let line = ["--no-serve", "--retries", "0", "--max-message", "100", "--consume", &url];
        assert_ended(&Wsevent::new(line).args(["--count", "1"]).run(), 0, "good\n");
        assert_ended(&Wsevent::new(line).run(), 69, "good\n");
    }
}

#[test]
fn the_last_line_of_another_servers_ndjson_needs_no_line_feed_if_it_is_whole() {
    for (last, printed) in [("{\"n\":2}", "{\"n\":1}\n{\"n\":2}\n"), ("{\"n\":", "{\"n\":1}\n")] {
        let address = Server::new().answer_all(format!("{LINES}{{\"n\":1}}\n{last}"));
        let url = format!("ndjson+http://{address}/");
        assert_ended(&Wsevent::new(["--no-serve", "--retries", "0", "--consume", &url]).run(), 69, printed);
    }
}

// --- where a consumer begins -----------------------------------------------------------------------------------------

#[test]
fn since_takes_every_documented_form() {
    let producer = serving("1\n2\n3\n4\n");
    let all = consume(&producer, "--since oldest --count 4 --output ndjson").run().stdout;
    let events: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let second = events[1]["id"].as_str().expect("an id");
    let before = events[0]["time"].as_u64().expect("a time") - 1000;
    for (since, printed) in [
        ("oldest", "1\n2\n3\n4\n"),
        ("last:2", "3\n4\n"),
        ("last:99", "1\n2\n3\n4\n"),
        ("1h", "1\n2\n3\n4\n"),
        (second, "3\n4\n"),
        (&before.to_string(), "1\n2\n3\n4\n"),
    ] {
        let options = format!("--since {since} --timeout 10s --count {}", printed.lines().count());
        assert_ended(&consume(&producer, &options).run(), 0, printed);
    }
    for since in ["now", "last:0", "32503680000000", "1ms"] {
        assert_ended(&consume(&producer, &format!("--since {since} --timeout 200ms")).run(), 124, "");
    }
}

#[test]
fn since_that_nobody_understands_is_a_usage_error() {
    for since in ["yesterday", "last:", "last:x", "-1", ""] {
        let done = Wsevent::new(["--no-serve", "--consume", "localhost:1", &format!("--since={since}")]).run();
        assert_eq!(done.code, 2, "{since:?}: {}", done.stderr);
        assert!(done.stderr.contains("last:N"), "{since:?}: {}", done.stderr);
    }
}

#[test]
fn a_cursor_file_goes_on_where_the_last_run_ended() {
    let (producer, scratch) = (serving("1\n2\n3\n4\n5\n6\n"), Scratch::new());
    let cursor = scratch.arg("cursor");
    let next = |options: &str| consume(&producer, options).args(["--cursor-file", &cursor]).run();
    assert_ended(&next("--since oldest --count 2"), 0, "1\n2\n");
    assert_ended(&next("--count 2"), 0, "3\n4\n");
    assert_ended(&next("--since oldest --count 1"), 0, "5\n");
    let id = scratch.read("cursor").expect("a cursor file");
    assert!(id.ends_with("-5\n"), "the id of the last printed event: {id:?}");
    assert_ended(&next("--timeout 300ms"), 124, "6\n");
    assert_ended(&next("--timeout 300ms"), 124, "");
    let files: Vec<_> = fs::read_dir(scratch.path("")).expect("the directory").flatten().collect();
    assert_eq!(files.len(), 1, "no temporary file is left: {files:?}");
}

#[test]
fn a_cursor_file_survives_kill_9_with_nothing_lost() {
    let (mut producer, scratch) = (Wsevent::line("--produce - --keep-open").piped().serve(), Scratch::new());
    let line = consume(&producer, "--since oldest").args(["--cursor-file", &scratch.arg("cursor")]);
    let mut consumer = line.clone().start();
    producer.write("1\n2\n3\n");
    consumer.lines(3);
    consumer.kill9();
    producer.write("4\n5\n");
    let mut seen = consumer.stdout();
    let again = line.start();
    eventually("the last event", || again.stdout().ends_with("5\n").then_some(()));
    seen.push_str(&again.stdout());
    assert!(["1\n2\n3\n4\n5\n"].contains(&first_sights(&seen).as_str()), "at least once, in order: {seen:?}");
}

/// Without the repetitions that *at least once* allows.
fn first_sights(lines: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for line in lines.lines() {
        if !seen.contains(&line) {
            seen.push(line);
        }
    }
    seen.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_cursor_file_remembers_another_servers_ids_as_they_are() {
    let (scratch, server) = (Scratch::new(), Server::new());
    let url = format!("sse+http://{}/events", server.address());
    let cursor = scratch.arg("cursor");
    let consume = |events: &str| {
        let line = ["--consume", &url, "--no-serve", "--count", "2", "--cursor-file", &cursor];
        let consumer = Wsevent::new(line).start();
        let (mut there, head) = server.accept();
        there.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}"));
        let mut consumer = consumer;
        assert_eq!(consumer.wait(), 0);
        (header_of(&head, "last-event-id"), consumer.stdout())
    };
    let events = |ids: [u32; 3]| ids.map(|id| format!("id: {id}\ndata: event {id}\n\n")).concat();
    assert_eq!(consume(&events([7, 8, 9])), (None, "event 7\nevent 8\n".into()));
    assert_eq!(consume(&events([9, 10, 11])), (Some("8".into()), "event 9\nevent 10\n".into()));
    assert_eq!(scratch.read("cursor").as_deref(), Some("=10\n"));
}

#[test]
fn a_cursor_file_that_holds_nonsense_is_told() {
    let (producer, scratch) = (serving("1\n"), Scratch::new());
    let cursor = scratch.file("cursor", "nonsense\n");
    let done = consume(&producer, "--count 1").args(["--cursor-file", &cursor]).run();
    assert!(done.code != 0 && done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.contains("cursor"), "{}", done.stderr);
}

// --- the end of input ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn at_the_end_of_input_every_reader_gets_all_of_it_and_a_normal_close() {
    let mut producer = Wsevent::line("--produce - --wait-readers 3").piped().serve();
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Reader::open(producer.url()).await);
    }
    producer.write("a\nb");
    producer.close_stdin();
    for reader in &mut readers {
        let (events, goodbye) = reader.rest().await;
        assert_eq!(events, ["a", "b"], "the last line needs no line feed");
        assert_eq!(goodbye.map(|(code, _)| code), Some(1000));
    }
    assert_eq!(producer.wait(), 0);
}

#[test]
fn printf_into_a_server_reaches_who_comes_later() {
    let mut producer = Wsevent::line("--produce -").input("a\nb").serve();
    let mut consumer = consume(&producer, "").start();
    assert_eq!((consumer.wait(), consumer.stdout().as_str()), (0, "a\nb\n"));
    assert_eq!(producer.wait(), 0);
}

#[test]
fn the_end_travels_through_hops() {
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let hop = Wsevent::new(["--consume", &producer.ws_url()]).serve();
    let mut consumer = consume(&hop, "").start();
    producer.write("a\nb\n");
    consumer.lines(2);
    producer.close_stdin();
    assert_eq!((producer.wait(), consumer.wait()), (0, 0));
    assert_eq!(consumer.stdout(), "a\nb\n");
}

#[test]
fn event_stream_readers_get_the_end_too() {
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let url = producer.url().to_owned();
    let mut consumers = ["sse+", "ndjson+"]
        .map(|kind| Wsevent::new(["--no-serve", "--since", "oldest", "--consume", &format!("{kind}{url}")]).start());
    producer.write("a\nb\n");
    consumers.iter().for_each(|consumer| drop(consumer.lines(2)));
    producer.close_stdin();
    assert_eq!(producer.wait(), 0);
    for consumer in &mut consumers {
        assert_eq!((consumer.wait(), consumer.stdout().as_str()), (0, "a\nb\n"), "{}", consumer.stderr());
    }
}

#[test]
fn empty_input_is_an_end_as_well() {
    let mut producer = Wsevent::line("--produce -").input("").serve();
    let mut reader = Raw::websocket(&producer.ws_url());
    assert_eq!(reader.read_close().map(|close| close.close_code()), Some(1000));
    assert_eq!(producer.wait(), 0);
    assert_ended(&pipe(&[], b""), 0, "");
}

#[test]
fn keep_open_stays() {
    let mut producer = serving("a\n");
    assert_ended(&consume(&producer, "--since oldest --count 1").run(), 0, "a\n");
    assert_eq!(producer.ended(), None);
}

// --- exit codes ------------------------------------------------------------------------------------------------------

#[test]
fn durations_of_centuries_are_long_and_no_fault() {
    for option in
        ["--ping-interval", "--keep-alive", "--pin-grace", "--handshake-timeout", "--history-age", "--timeout"]
    {
        let producer = Wsevent::new([option, "200000d"]).serve();
        // The second one comes when the clocks inside have ticked.
        assert_eq!(consume(&producer, "--count 15").run().code, 0, "{option}");
        assert_eq!(consume(&producer, "--count 1").run().code, 0, "{option}");
    }
}

#[test]
fn contradictions_are_usage_errors_that_say_what_to_type() {
    for (line, hint) in [
        ("--cursor-file c", "--consume"),
        ("--consume ws://a/b --consume-path x", "--consume-path"),
        ("--count 3", "--no-serve"),
        ("--no-serve --no-produce", "--consume"),
        ("--produce - --no-produce", "drop one"),
        ("--serve 8080", "localhost:8080"),
        ("--filter .a|", "--filter"),
        ("--bogus", "--help"),
        ("--since oldest", "--consume"),
        ("--framing words --produce -", "nul"),
        ("--output xml --no-serve --produce -", "ndjson"),
        ("--history-bytes many", "64KiB"),
        ("--timeout soon", "500ms"),
        ("--slow-reader shoot", "drop-oldest"),
    ] {
        let done = Wsevent::line(line).run();
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(hint), "{line} should hint at {hint}: {}", done.stderr);
    }
}

#[test]
fn a_mistyped_option_is_named_whole_in_both_spellings() {
    for typed in ["--serve-adress", "-serve-adress"] {
        let done = Wsevent::new([typed, "localhost:0"]).run();
        assert_eq!(done.code, 2);
        assert!(done.stderr.contains("serve-adress") && done.stderr.contains("--serve-address"), "{}", done.stderr);
    }
}

#[test]
fn an_unreachable_upstream_is_69_once_the_retries_are_over() {
    for retries in ["0", "2"] {
        let done = Wsevent::new(["--no-serve", "--retries", retries, "--retry-max", "10ms"])
            .args(["--consume", &refused_address()])
            .run();
        assert_ended(&done, 69, "");
        assert_eq!(done.stderr.matches("cannot connect").count(), 1, "one line per change: {}", done.stderr);
    }
}

#[test]
fn a_server_fault_is_unreachable_too() {
    let address =
        Server::new().answer_all("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for scheme in ["ws", "http"] {
        let url = format!("{scheme}://{address}/events");
        assert_eq!(Wsevent::new(["--no-serve", "--retries", "0", "--consume", &url]).run().code, 69, "{scheme}");
    }
}

#[test]
fn an_answer_that_is_no_stream_is_76() {
    let producer = serving("a\n");
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let page = Server::new().answer_all(page);
    let garbage = Server::new().answer_all("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    for url in [
        format!("ws://{}/wrong-path", producer.address()),
        format!("http://{}/wrong-path", producer.address()),
        format!("ws://{page}/events"),
        format!("http://{page}/events"),
        format!("ws://{garbage}/events"),
    ] {
        let done = Wsevent::new(["--no-serve", "--consume", &url]).run();
        assert_eq!(done.code, 76, "{url}: {}", done.stderr);
    }
}

#[test]
fn a_refusal_is_77() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let address = Server::new().answer_all(answer);
        for scheme in ["ws", "http"] {
            let url = format!("{scheme}://{address}/events");
            assert_eq!(Wsevent::new(["--no-serve", "--consume", &url]).run().code, 77, "{scheme} {status}");
        }
    }
    let producer = serving("a\n");
    let foreign = consume(&producer, "").args(["-H", "Origin: http://evil.example"]).run();
    assert_eq!(foreign.code, 77, "{}", foreign.stderr);
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let producer = serving("a\n");
    let done = Wsevent::new(["--serve", &producer.address()]).run();
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains(&producer.port().to_string()), "{}", done.stderr);
}

#[test]
fn signals_exit_with_128_and_their_number() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut producer = Wsevent::line("").serve();
        producer.signal(name);
        assert_eq!(producer.wait(), code);
        let producer = serving("a\n");
        let mut consumer = consume(&producer, "--since oldest").start();
        consumer.lines(1);
        consumer.signal(name);
        assert_eq!(consumer.wait(), code);
    }
}

#[test]
fn a_serving_process_keeps_trying() {
    let address = Server::new().answer_all("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let mut hop = Wsevent::new(["--consume", &address, "--retry-max", "10ms"]).serve();
    hop.said("403");
    assert_eq!(hop.own("readyz").status, 503);
    assert_eq!(hop.own("healthz").status, 200);
    assert_eq!(hop.ended(), None);
}

// --- signals ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn sigterm_drains() {
    let mut producer = Wsevent::line("--produce - --keep-open").piped().serve();
    let (mut reader, port) = (Reader::open(producer.url()).await, producer.port());
    let mut stream = Raw::connect("localhost", port);
    stream.send(format!("GET /events HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/event-stream\r\n\r\n"));
    stream.read_until("\n\n");
    producer.write("last words\n");
    assert_eq!(reader.text().await, "last words");
    producer.signal("TERM");
    let (events, goodbye) = reader.rest().await;
    assert_eq!((events.len(), goodbye.map(|(code, _)| code)), (0, Some(1012)));
    let rest = String::from_utf8_lossy(&stream.read_to_end()).into_owned();
    assert!(rest.contains("data: last words\n") && rest.contains("retry: "), "{rest}");
    assert!(rest.ends_with("0\r\n\r\n"), "the chunked body is ended properly: {rest}");
    assert_eq!(producer.wait(), 143);
}

#[test]
fn a_second_signal_ends_at_once() {
    for (second, code) in [("INT", 130), ("TERM", 143)] {
        let mut producer = Wsevent::line("--drain-spread 1h").serve();
        let mut readers: Vec<Raw> = (0..30).map(|_| Raw::websocket(&producer.ws_url())).collect();
        producer.signal("INT");
        eventually("the listener to close", || std::net::TcpStream::connect(("localhost", producer.port())).err());
        assert_eq!(producer.ended(), None, "still says goodbye");
        producer.signal(second);
        assert_eq!(producer.wait(), code);
        readers.clear();
    }
}

#[test]
fn a_reader_that_does_not_read_cannot_hold_up_a_drain() {
    let mut producer = Wsevent::line("--produce - --drain-timeout 300ms").piped().serve();
    let _stalled = Raw::websocket(&producer.ws_url());
    let mut stdin = producer.take_stdin();
    let flood = std::thread::spawn(move || {
        let block = "x".repeat(1 << 16) + "\n";
        while std::io::Write::write_all(&mut stdin, block.as_bytes()).is_ok() {}
    });
    let is_full = || producer.topic()["held_bytes"].as_u64() >= Some(15 << 20);
    eventually("a full window", || is_full().then_some(()));
    producer.signal("TERM");
    assert_eq!(producer.wait(), 143);
    flood.join().expect("the flood ends with its reader");
}

// --- what is produced ------------------------------------------------------------------------------------------------

#[test]
fn a_pipe_runs_the_stages_in_the_order_typed() {
    let input = b"{\"n\":1,\"kind\":\"a\"}\n{\"n\":2,\"kind\":\"b\"}\nno JSON\n{\"n\":3,\"kind\":\"a\"}\n";
    assert_ended(&pipe(&["--match", "{\"kind\":\"a\"}", "--map", ".n"], input), 0, "1\n3\n");
    assert_ended(&pipe(&["--map", ".n", "--filter", ". > 1"], input), 0, "2\n3\n");
    assert_ended(&pipe(&["--filter", ".n > 1", "--map", "{m: (.n * 2)}"], input), 0, "{\"m\":4}\n{\"m\":6}\n");
    assert_ended(&pipe(&["--map", ".[]"], b"[1,2,3]\n[]\n[4]\n"), 0, "1\n2\n3\n4\n");
}

#[test]
fn a_match_is_equality_of_all_fields_and_the_empty_one_matches_everything() {
    let input = b"{\"a\":1,\"b\":\"x\"}\n{\"a\":1}\n[1]\ntext\n";
    assert_ended(&pipe(&["--match", "{\"a\":1,\"b\":\"x\"}"], input), 0, "{\"a\":1,\"b\":\"x\"}\n");
    assert_ended(&pipe(&["--match", "{}"], input), 0, std::str::from_utf8(input).expect("text"));
}

#[test]
fn framing_says_where_an_event_ends() {
    let ndjson = |framing: &str, input: &[u8]| -> Vec<String> {
        let done = pipe(&["--framing", framing, "--output", "ndjson"], input);
        let data = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["data"].as_str().map(String::from);
        done.stdout.lines().map(|line| data(line).expect("data")).collect()
    };
    assert_eq!(ndjson("line", b"a\r\n\nb"), ["a\r", "", "b"]);
    assert_eq!(ndjson("nul", b"a\nb\0c\0"), ["a\nb", "c"]);
    assert_eq!(ndjson("json", b"{\"a\":\n 1} [2]\n\"x\" 3"), ["{\"a\":\n 1}", "[2]", "\"x\"", "3"]);
    assert_eq!(ndjson("json", b"nonsense\n{\"a\":1}\n"), ["{\"a\":1}"]);
}

#[test]
fn a_file_is_read_once() {
    let scratch = Scratch::new();
    let path = scratch.file("events", "one\ntwo");
    let done = Wsevent::new(["--no-serve", "--produce", &format!("file:{path}")]).run();
    assert_ended(&done, 0, "one\ntwo\n");
    let missing = Wsevent::new(["--no-serve", "--produce", &format!("file:{path}-missing")]).run();
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("events-missing"), "{}", missing.stderr);
}

#[test]
fn a_command_is_run_by_a_shell() {
    let run = |command: &str| Wsevent::new(["--no-serve", "--produce", &format!("exec:{command}")]).run();
    assert_ended(&run("for i in 1 2 3; do echo $i; done"), 0, "1\n2\n3\n");
    let said = run("echo oops >&2; echo data");
    assert_ended(&said, 0, "data\n");
    assert!(said.stderr.contains("oops"), "its stderr is ours: {}", said.stderr);
    let failed = run("seq 100000; exit 3");
    assert_eq!((failed.code, failed.stdout.lines().last()), (1, Some("100000")), "{}", failed.stderr);
    assert!(failed.stderr.contains("exit 3"), "{}", failed.stderr);
}

#[test]
fn a_command_does_not_outlive_the_process() {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new();
        let command = format!("exec:echo $$ >{}; sleep 1000 | cat", scratch.arg("pid"));
        let mut producer = Wsevent::new(["--produce", &command]).serve();
        let pid = eventually("the command", || scratch.read("pid").filter(|pid| pid.ends_with('\n')));
        producer.signal(signal);
        producer.wait();
        eventually("the command's end", || (!is_alive(pid.trim())).then_some(()));
    }
}

#[test]
fn a_command_ends_with_its_reader() {
    let scratch = Scratch::new();
    let command = format!("exec:echo $$ >{}; echo line; sleep 1000", scratch.arg("pid"));
    let done = Wsevent::new(["--no-serve", "--count", "1", "--produce", &command]).run();
    assert_ended(&done, 0, "line\n");
    let pid = scratch.read("pid").expect("the command's pid");
    eventually("the command's end", || (!is_alive(pid.trim())).then_some(()));
}

fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[test]
fn a_hub_publishes_what_is_posted() {
    let hub = Wsevent::line("--no-produce").serve();
    let consumer = consume(&hub, "--since oldest").start();
    assert_eq!(raw::post(hub.url(), "posted").status, 200);
    let many = raw::request("POST", hub.url(), "Content-Type: application/x-ndjson\r\n", b"{\"a\":1}\n\n{\"a\":2}\n");
    let answer: Value = serde_json::from_slice(&many.body).expect("JSON");
    assert_eq!((many.status, &answer["count"]), (200, &2.into()));
    let mut publisher = Raw::websocket(&hub.ws_url());
    publisher.send_frame(&Frame::new(raw::TEXT, "by WebSocket"));
    assert_eq!(consumer.lines(4), ["posted", "{\"a\":1}", "{\"a\":2}", "by WebSocket"]);
    assert_eq!(publisher.read_message().map(|frame| frame.text()).as_deref(), Some("by WebSocket"), "hears itself");
}

/// To be answered is to be subscribed, however the threads inside are scheduled.
#[test]
fn who_was_answered_hears_what_is_posted_next() {
    let hub = Wsevent::line("--no-produce").serve();
    let stream = |accept: &str| format!("GET /events HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", hub.address());
    for n in 0..300 {
        let (event, mut reader) = (format!("event {n}."), Raw::connect("localhost", hub.port()));
        match n % 4 {
            0 => reader = Raw::websocket(&hub.ws_url()),
            1 => reader.send(stream("text/event-stream")),
            2 => reader.send(stream("application/x-ndjson")),
            _ => {
                // A second request on its connection.
                reader.send(format!("HEAD /events HTTP/1.1\r\nHost: {}\r\n\r\n", hub.address()));
                reader.read_head();
                reader.send(stream("text/event-stream"));
            }
        }
        if n % 4 != 0 {
            assert_eq!(reader.read_head().status, 200);
        }
        raw::post(hub.url(), &event);
        reader.read_until(&event);
    }
}

#[test]
fn nobody_publishes_where_it_was_not_allowed() {
    let producer = serving("a\n");
    let answer = raw::post(producer.url(), "intruder");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
    let mut publisher = Raw::websocket(&producer.ws_url());
    publisher.send_frame(&Frame::new(raw::TEXT, "intruder"));
    publisher.send_frame(&Frame::new(raw::PING, "done"));
    while publisher.read_frame().expect("a pong").opcode != raw::PONG {}
    assert_ended(&consume(&producer, "--since oldest --timeout 200ms").run(), 124, "a\n");
}

// --- consuming, in detail --------------------------------------------------------------------------------------------

#[test]
fn headers_are_sent_upstream() {
    let server = Server::new();
    for scheme in ["ws", "http"] {
        let url = format!("{scheme}://user:secret@{}/events?a=b", server.address());
        let mut consumer =
            Wsevent::new(["--no-serve", "--consume", &url]).args(["-H", "X-One: 1", "-H", "x-two:2"]).start();
        let (_connection, head) = server.accept();
        assert_eq!(raw::header_of(&head, "x-one").as_deref(), Some("1"), "{head}");
        assert_eq!(raw::header_of(&head, "x-two").as_deref(), Some("2"), "{head}");
        assert_eq!(raw::header_of(&head, "authorization").as_deref(), Some("Basic dXNlcjpzZWNyZXQ="), "{head}");
        assert!(head.starts_with("GET /events?a=b HTTP/1.1\r\n"), "{head}");
        consumer.kill9();
        assert!(!consumer.stderr().contains("secret"), "{}", consumer.stderr());
    }
}

#[test]
fn a_typed_header_replaces_ours() {
    let server = Server::new();
    for scheme in ["ws", "http"] {
        let url = format!("{scheme}://{}/events", server.address());
        let _consumer = Wsevent::new(["--no-serve", "--consume", &url, "-H", "Host: virtual.example"]).start();
        let head = server.accept().1.to_lowercase();
        let hosts: Vec<&str> = head.lines().filter(|line| line.starts_with("host:")).collect();
        assert_eq!(hosts, ["host: virtual.example"], "{head}");
    }
}

#[test]
fn echo_sends_every_message_back_with_its_opcode() {
    let server = Server::new();
    let consumer = Wsevent::new(["--no-serve", "--echo", "--consume", &server.address()]).start();
    let (mut connection, _) = server.accept_websocket("");
    for (opcode, payload) in
        [(raw::TEXT, &b"text"[..]), (raw::BINARY, b"\xff\x00"), (raw::TEXT, b""), (raw::BINARY, b"x")]
    {
        connection.send_frame(&Frame::from_server(opcode, payload));
        assert_eq!(connection.read_message(), Some(Frame::new(opcode, payload)));
    }
    consumer.lines(4);
    assert_eq!(consumer.stdout_bytes(), b"text\n\xff\x00\n\nx\n");
}

#[test]
fn a_plain_close_by_the_upstream_is_the_end_for_a_consumer() {
    let server = Server::new();
    let mut consumer = Wsevent::new(["--no-serve", "--consume", &server.address()]).start();
    let (mut connection, _) = server.accept_websocket("");
    connection.send_frame(&Frame::from_server(raw::TEXT, "last"));
    connection.send_frame(&Frame { masked: false, ..Frame::close(1000, "") });
    assert_eq!(consumer.wait(), 0);
    assert_eq!(consumer.stdout(), "last\n");
}

#[test]
fn a_lost_upstream_is_asked_again() {
    let server = Server::new();
    let consumer = Wsevent::new(["--no-serve", "--consume", &server.address(), "--retry-max", "10ms"]).start();
    for event in ["one", "two", "three"] {
        let (mut connection, _) = server.accept_websocket("");
        connection.send_frame(&Frame::from_server(raw::TEXT, event));
        eventually(event, || consumer.stdout().contains(event).then_some(()));
    }
    assert_eq!(consumer.lines(3), ["one", "two", "three"]);
}

#[test]
fn hop_prefix_names_the_host() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let done = pipe(&["--hop-prefix"], b"event\n");
    assert_ended(&done, 0, &format!("{}<- event\n", host.trim()));
}

// --- options from elsewhere ------------------------------------------------------------------------------------------

#[test]
fn check_validates_prints_the_plan_and_starts_nothing() {
    let taken = serving("a\n");
    let done = Wsevent::new(["--check", "--serve", &format!("{}/x", taken.address())])
        .args(["--consume", "ws://user:secret@h/y?token=secret", "--filter", ".a"])
        .run();
    assert_eq!(done.code, 0, "{}", done.stderr);
    for line in ["consume  ws://h/y", &format!("ws://{}/x", taken.address()), ".a"] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    assert!(!done.stdout.contains("secret"), "{}", done.stdout);
    assert_eq!(Wsevent::line("--check --cursor-file x").run().code, 2);
}

#[test]
fn options_beat_the_environment_which_beats_the_config_file_which_beats_defaults() {
    let scratch = Scratch::new();
    let config =
        scratch.file("config.toml", "history = 3\nserve-path = \"from-file\"\nserve-address = \"localhost:7\"\n");
    let plan = |line: Wsevent| line.args(["--check", "--config", &config]).run().stdout;
    let none = || Wsevent::line("");
    assert!(Wsevent::line("--check").run().stdout.contains("65536 events"));
    assert!(plan(none()).contains("3 events") && plan(none()).contains("ws://localhost:7/from-file"));
    assert!(plan(none().env("WSEVENT_HISTORY", "4")).contains("4 events"));
    assert!(plan(none().env("WSEVENT_HISTORY", "4").args(["-history=5"])).contains("5 events"));
    assert!(plan(none().env("SERVE_PATH", "env")).contains("localhost:7/env"));
    assert!(plan(none().env("SERVE_ENDPOINT", "h:9/whole")).contains("ws://h:9/whole"));
    assert!(plan(none().env("SERVE_PATH", "env").args(["--serve", "h:9/typed"])).contains("ws://h:9/typed"));
}

#[test]
fn lists_and_switches_come_from_files_and_variables_too() {
    let scratch = Scratch::new();
    let config = scratch.file(
        "config.toml",
        "consume = [\"localhost:1/a\", \"localhost:2/b\"]\nno-serve = true\ncount = 1\noutput = \"ndjson\"\nhistory-bytes = \"1MiB\"\n",
    );
    let plan = Wsevent::new(["--check", "--config", &config]).run();
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    for part in ["ws://localhost:1/a", "ws://localhost:2/b", "1048576 bytes", "Ndjson"] {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }
    let plan = Wsevent::line("--check").env("WSEVENT_NO_SERVE", "true").env("WSEVENT_PRODUCE", "-").run();
    assert!(plan.stdout.contains("standard input"), "{plan:?}");
}

#[test]
fn a_config_file_that_cannot_be_used_is_78() {
    let scratch = Scratch::new();
    for (text, hint) in [("serve-adress = 1", "serve-adress"), ("= broken", "config"), ("config = \"x\"", "config")] {
        let done = Wsevent::new(["--config", &scratch.file("config.toml", text)]).run();
        assert_eq!(done.code, 78, "{text}: {}", done.stderr);
        assert!(done.stderr.contains(hint) && done.stderr.contains("config.toml"), "{text}: {}", done.stderr);
    }
    let missing = Wsevent::new(["--config", &scratch.arg("missing.toml")]).run();
    assert_eq!(missing.code, 78, "{}", missing.stderr);
    let wrong_value = Wsevent::new(["--check", "--config", &scratch.file("config.toml", "history = \"many\"")]).run();
    assert_eq!(wrong_value.code, 78, "{}", wrong_value.stderr);
}

// --- the log ---------------------------------------------------------------------------------------------------------

#[test]
fn quiet_says_only_errors() {
    let producer = serving("a\n");
    assert_eq!(consume(&producer, "-q --since oldest --count 1").run().stderr, "");
    let failed = Wsevent::new(["-q", "--no-serve", "--retries=0", "--consume", &refused_address()]).run();
    assert_eq!(failed.stderr.lines().count(), 1, "{}", failed.stderr);
}

#[test]
fn verbose_says_more() {
    let producer = serving("a\n");
    let lines = |options: &str| consume(&producer, options).run().stderr.lines().count();
    assert!(lines("-vv --since oldest --count 1") >= lines("--since oldest --count 1"));
}

#[test]
fn json_logs_are_one_object_per_line() {
    let producer = serving("a\n");
    let done = consume(&producer, "--log-format json --since oldest --count 1").run();
    assert!(!done.stderr.is_empty());
    for line in done.stderr.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object["timestamp"].is_string() && object["level"].is_string(), "{line}");
    }
}

#[test]
fn logs_in_a_file_have_no_colours() {
    let producer = serving("a\n");
    producer.said("serving");
    assert!(!producer.stderr().contains('\u{1b}'));
}

// --- definitions -----------------------------------------------------------------------------------------------------

#[test]
fn help_is_grouped_and_has_three_examples() {
    for flag in ["-h", "--help", "-help"] {
        let help = Wsevent::new([flag]).run();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{flag}");
        for heading in ["Serve:", "Consume:", "Produce:", "Limits:", "Examples:"] {
            assert!(help.stdout.contains(heading), "{flag}: {heading}");
        }
        let examples = help.stdout.split_once("Examples:\n").expect("examples").1;
        let commands =
            examples.split("\n\n").next().expect("a paragraph").lines().filter(|line| !line.starts_with("      "));
        assert_eq!(commands.count(), 3, "{examples}");
        assert!(help.stdout.lines().all(|line| line.chars().count() <= 120), "{flag} fits a terminal");
    }
    assert_eq!(Wsevent::line("--version").run().stdout, concat!("wsevent ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_examples_of_the_help_are_valid() {
    for line in
        ["", "--consume ws://localhost:8080/events --serve localhost:9090/copy", "--produce - --serve :8080/log"]
    {
        let done = Wsevent::line(line).arg("--check").run();
        assert_eq!(done.code, 0, "{line}: {}", done.stderr);
    }
}

/// What the shell says about the script, if the shell is here.
fn accepted_by(shell: &str, check: &str) {
    let script = Wsevent::new(["completions", shell]).run();
    assert_eq!(script.code, 0, "{}", script.stderr);
    assert!(script.stdout.contains("serve-address") && script.stdout.contains("cursor-file"), "{shell}");
    if find_program(shell).is_none() {
        eprintln!("{shell} is not installed: its script was generated, not tried (scripts/test installs it)");
        return;
    }
    let scratch = Scratch::new();
    let mut command = Command::new(shell);
    command.args(["-c", &check.replace("FILE", &scratch.file("completions", script.stdout))]);
    command.env("HOME", scratch.path(""));
    let done = run(command);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{shell}: {}", done.stdout);
}

#[test]
fn bash_accepts_its_completions() {
    accepted_by("bash", "bash -n FILE && source FILE && complete -p wsevent");
    let scratch = Scratch::new();
    let script = scratch.file("completions", Wsevent::line("completions bash").run().stdout);
    let ask = "COMP_WORDS=(wsevent --serve-a) COMP_CWORD=1; _wsevent wsevent --serve-a wsevent; echo ${COMPREPLY[*]}";
    assert_eq!(bash(&format!("source {script}; {ask}")).stdout, "--serve-address\n");
}

#[test]
fn zsh_accepts_its_completions() {
    accepted_by("zsh", "zsh -n FILE && autoload -Uz compinit && compinit -D -u && source FILE");
}

#[test]
fn fish_accepts_its_completions() {
    accepted_by(
        "fish",
        "fish --no-execute FILE; and source FILE; and complete -C 'wsevent --serve-a' | grep -q serve-address",
    );
}

#[test]
fn the_man_page_is_well_formed() {
    let page = Wsevent::line("man").run();
    assert_eq!(page.code, 0, "{}", page.stderr);
    assert!(page.stdout.contains(".TH wsevent 1"), "{}", &page.stdout[..200]);
    for option in ["serve\\-address", "cursor\\-file", "EXIT STATUS", "EXAMPLES", "ENVIRONMENT", "wsevent trace"] {
        assert!(page.stdout.contains(option), "{option}");
    }
    let scratch = Scratch::new();
    let file = scratch.file("wsevent.1", &page.stdout);
    for (reader, line) in [
        ("man", format!("LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings=w -E UTF-8 -l {file} >/dev/null")),
        ("mandoc", format!("mandoc -T lint -W error {file}")),
    ] {
        if find_program(reader).is_none() {
            eprintln!("{reader} is not installed: the page was not shown to it (scripts/test installs it)");
            continue;
        }
        let done = bash(&line);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{reader}: {}", done.stdout);
    }
}

#[test]
fn a_reader_of_definitions_may_hang_up() {
    let done = bash(
        "for what in 'man' 'completions bash' '--help' '--check'; do $wsevent $what | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}; done",
    );
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("0\n0\n0\n0\n", ""), "{}", binary().display());
}

// --- files -----------------------------------------------------------------------------------------------------------

#[test]
fn the_ready_file_appears_whole_with_the_chosen_port() {
    let scratch = Scratch::new();
    let running = Wsevent::new(["--serve", "localhost:0/x", "--ready-file", &scratch.arg("ready")]).start();
    let ready = eventually("the ready file", || scratch.read("ready"));
    let url = ready.strip_suffix('\n').expect("a whole line");
    assert_eq!(raw::get(url).status, 200, "it names what is served: {url}");
    drop(running);
    let nowhere = Wsevent::line("--serve-address localhost:0 --ready-file /nonexistent/ready").run();
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("/nonexistent/ready"), "{}", nowhere.stderr);
}
