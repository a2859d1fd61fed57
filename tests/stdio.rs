//! Standard input, output and error as other programs leave them: closed, broken, full, without blocking.

mod common;

use common::{Running, Scratch, Wsevent, binary, raw};
use rustix::io::ioctl_fionbio;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    path::Path,
    thread,
    time::Duration,
};

/// Starts the program with standard streams closed as the shell closes them.
fn closing(streams: &str) -> Wsevent {
    let line = format!("exec \"$0\" \"$@\" {streams}");
    Wsevent::program("sh").args(["-c".into(), line.into(), binary().into_os_string()])
}

/// A device that has no room.
fn full_device() -> File {
    File::options().write(true).open("/dev/full").expect("a device")
}

/// A pipe without room for a byte, and what fills it.
fn full_pipe(blocks: bool) -> (PipeReader, PipeWriter, usize) {
    let (reads, mut writes) = io::pipe().expect("a pipe");
    ioctl_fionbio(&writes, true).expect("a flag");
    let mut filled = 0;
    while let Ok(n) = writes.write(&[b'.'; 4096]) {
        filled += n;
    }
    ioctl_fionbio(&writes, !blocks).expect("a flag");
    (reads, writes, filled)
}

/// Everything until the last writer has gone, without what filled the pipe before.
fn rest_of(mut reads: PipeReader, filled: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    reads.read_to_end(&mut bytes).expect("reads");
    bytes.split_off(filled)
}

// --- standard error that takes nothing -------------------------------------------------------------------------------

/// Kinds of standard error that take nothing.
#[derive(Clone, Copy)]
enum Unwritable {
    Closed,
    FullDevice,
    BrokenPipe,
    /// Full, and whether writers block.
    FullPipe(bool),
}

impl Unwritable {
    /// The beginning of a command line with such a standard error, and what keeps it so.
    fn begin(self) -> (Wsevent, Option<PipeReader>) {
        let line = Wsevent::new::<&str>([]);
        match self {
            Unwritable::Closed => (closing("2>&-"), None),
            Unwritable::FullDevice => (line.stderr_to(full_device()), None),
            Unwritable::BrokenPipe => (line.stderr_to(io::pipe().expect("a pipe").1), None),
            Unwritable::FullPipe(blocks) => {
                let (reads, writes, _) = full_pipe(blocks);
                (line.stderr_to(writes), Some(reads))
            }
        }
    }
}

/// Other servers that roles need.
struct Neighbours {
    producer: Running,
    broker: Running,
    scratch: Scratch,
}

impl Neighbours {
    fn start() -> Self {
        let producer = Wsevent::line("--produce - --keep-open").input("1\n2\n3\n").serve();
        producer.has("held_events", 3);
        let broker = Wsevent::line("--no-produce --mqtt-listen localhost:0").serve();
        Neighbours { producer, broker, scratch: Scratch::new() }
    }

    /// The options of every role that serves.
    fn roles(&self) -> Vec<Vec<String>> {
        let (ws, http) = (self.producer.ws_url(), format!("http://{}", self.producer.address()));
        let script = "function say(req) { console.log('said'); return { status: 200, body: 'yes' }; }\n\
                      register('/say', 'say', 'GET');";
        let script = self.scratch.file("app.js", script);
        let broker = format!("mqtt://localhost:{}", self.broker.port_of("mqtt"));
        let role = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        vec![
            role(&[]),
            role(&["--no-produce"]),
            role(&["--consume", &ws]),
            role(&["--balance", &http]),
            role(&["--balance", &ws]),
            role(&["--registry"]),
            role(&["--script", &script]),
            role(&["--no-produce", "--mqtt-listen", "localhost:0", "--mqtt-publish", &broker]),
        ]
    }
}

/// Every role serves, and ends in order.
fn assert_serves_and_ends(stderr: Unwritable) {
    let neighbours = Neighbours::start();
    for role in neighbours.roles() {
        let (line, _keeps) = stderr.begin();
        let mut running = line.arg("-vv").args(&role).serve();
        for _ in 0..20 {
            let _stream = raw::Raw::connect("localhost", running.port());
            assert_eq!(running.own("healthz").status, 200, "{role:?}");
        }
        if role.contains(&"--script".to_owned()) {
            assert_eq!(raw::get(&format!("http://{}/say", running.address())).text(), "yes");
        }
        running.signal("TERM");
        assert_eq!(running.wait(), 143, "{role:?}");
    }
}

/// A consumer prints everything, and what is wrong ends with its own exit code.
fn assert_prints_and_fails(stderr: Unwritable) {
    let producer = Wsevent::line("--produce - --keep-open").input("1\n2\n3\n").serve();
    producer.has("held_events", 3);
    let url = producer.ws_url();
    let nobody = format!("ws://{}/x", raw::Server::new().address());
    let table: [(&[&str], i32, &str); 5] = [
        (&["-vv", "--consume", &url, "--no-serve", "--since", "oldest", "--count", "3"], 0, "1\n2\n3\n"),
        (&["--nonsense"], 2, ""),
        (&["--since", "oldest"], 2, ""),
        (&["--config", "/nonexistent"], 78, ""),
        (&["--consume", &nobody, "--no-serve", "--retries=0"], 69, ""),
    ];
    for (args, code, printed) in table {
        let (line, _keeps) = stderr.begin();
        let done = line.args(args).run();
        assert_eq!((done.code, done.stdout.as_str()), (code, printed), "{args:?}");
    }
}

#[test]
fn every_role_goes_on_without_standard_error() {
    assert_serves_and_ends(Unwritable::Closed);
    assert_prints_and_fails(Unwritable::Closed);
}

#[test]
fn every_role_goes_on_where_standard_error_is_a_full_device() {
    assert_serves_and_ends(Unwritable::FullDevice);
    assert_prints_and_fails(Unwritable::FullDevice);
}

#[test]
fn every_role_goes_on_where_nobody_reads_standard_error_any_more() {
    assert_serves_and_ends(Unwritable::BrokenPipe);
    assert_prints_and_fails(Unwritable::BrokenPipe);
}

#[test]
fn every_role_goes_on_where_standard_error_is_full() {
    assert_serves_and_ends(Unwritable::FullPipe(true));
    assert_prints_and_fails(Unwritable::FullPipe(true));
}

#[test]
fn every_role_goes_on_where_standard_error_is_full_and_does_not_block() {
    assert_serves_and_ends(Unwritable::FullPipe(false));
    assert_prints_and_fails(Unwritable::FullPipe(false));
}

#[test]
fn closed_streams_are_nobodys_sockets() {
    let mut running = closing("<&- >&- 2>&-").arg("--no-produce").serve();
    for stream in 0..3 {
        let opened = fs::read_link(format!("/proc/{}/fd/{stream}", running.pid())).expect("open");
        assert_eq!(opened, Path::new("/dev/null"), "descriptor {stream}");
    }
    running.signal("TERM");
    assert_eq!(running.wait(), 143);
}

// --- what is dropped is counted --------------------------------------------------------------------------------------

/// Logs ten lines of eight kilobytes per request: more than may wait, in forty of them.
const TALKER: &str = "let n = 0;
function talk(req) {
  for (let i = 0; i < 10; i += 1) { console.log(`line ${n} ${'x'.repeat(8000)}`); n += 1; }
  return { status: 200, body: 'talked' };
}
register('/talk', 'talk', 'POST');";

fn metric(running: &Running, name: &str) -> u64 {
    let text = running.own("metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// The number of a talker's line.
fn number(line: &Value) -> Option<u64> {
    line["fields"]["message"].as_str()?.strip_prefix("line ")?.split(' ').next()?.parse().ok()
}

#[test]
fn log_lines_that_an_unread_pipe_has_no_room_for_are_counted_and_told() {
    let (scratch, (reads, writes)) = (Scratch::new(), io::pipe().expect("a pipe"));
    let line = Wsevent::line("--log-format json --script").arg(scratch.file("app.js", TALKER));
    let mut running = line.stderr_to(writes).serve();
    let talk = || assert_eq!(raw::post(&format!("http://{}/talk", running.address()), "").text(), "talked");
    (0..40).for_each(|_| talk());
    let dropped = metric(&running, "wsevent_log_dropped_lines_total");
    let status: Value = serde_json::from_slice(&running.own("status").body).expect("JSON");
    assert!(0 < dropped && dropped < 400 && status["log"]["dropped_lines"] == dropped, "{dropped}: {status}");

    let mut lines = BufReader::new(reads).lines().map(|line| line.expect("reads"));
    let mut next = || serde_json::from_str::<Value>(&lines.next().expect("a line")).expect("whole lines");
    let mut numbers = Vec::new();
    let notice = loop {
        match next() {
            line if line["level"] == "ERROR" => break line,
            line => numbers.extend(number(&line)),
        }
    };
    assert_eq!(notice["fields"]["dropped_lines"], dropped, "{notice}");
    assert_eq!(numbers, (0..400 - dropped).collect::<Vec<_>>(), "those that found room, in order");
    talk();
    assert_eq!((0..10).map(|_| number(&next())).collect::<Vec<_>>(), (400..410).map(Some).collect::<Vec<_>>());
    running.signal("TERM");
    assert_eq!(running.wait(), 143);
}

#[test]
fn log_lines_that_the_device_refuses_are_counted() {
    let running = Wsevent::line("--no-produce").stderr_to(full_device()).serve();
    assert!(metric(&running, "wsevent_log_dropped_lines_total") >= 1, "the one that says where it serves");
    let heard = Wsevent::line("--no-produce").serve();
    assert_eq!(metric(&heard, "wsevent_log_dropped_lines_total"), 0);
}

#[test]
fn last_words_wait_for_a_slow_reader_of_standard_error() {
    let (reads, writes, filled) = full_pipe(true);
    let mut running = Wsevent::line("--nonsense").stderr_to(writes).start();
    thread::sleep(Duration::from_millis(200));
    let said = String::from_utf8(rest_of(reads, filled)).expect("text");
    assert!(said.contains("--nonsense") && said.ends_with('\n'), "{said}");
    assert_eq!(running.wait(), 2);
}
