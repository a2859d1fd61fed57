//! Standard input, output and error as other programs leave them: closed, broken, full, without blocking.

mod common;

use common::{Running, Scratch, Wsevent, bash, binary, find_program, raw};
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

// --- standard output that does not block -----------------------------------------------------------------------------

/// What is printed into a full pipe that does not block and is read from a moment later, and the exit code.
fn printed_late(line: Wsevent) -> (Vec<u8>, i32) {
    let (reads, writes, filled) = full_pipe(false);
    let mut running = line.stdout_to(writes).start();
    thread::sleep(Duration::from_millis(500));
    let printed = rest_of(reads, filled);
    (printed, running.wait())
}

/// A thousand lines of 1,200 bytes: `000000 …`.
fn thousand_lines() -> Vec<u8> {
    (0..1000).flat_map(|n| format!("{n:06} {}\n", "x".repeat(1192)).into_bytes()).collect()
}

#[test]
fn a_pipe_that_does_not_block_gets_every_byte() {
    let (printed, code) = printed_late(Wsevent::line("--produce - --no-serve").input(thousand_lines()));
    assert_eq!((printed.len(), code), (1_200_000, 0));
    assert!(printed == thousand_lines());
}

#[test]
fn a_consumer_prints_every_event_in_every_form() {
    let producer = Wsevent::line("--produce - --keep-open").input(thousand_lines()).serve();
    producer.has("held_events", 1000);
    for (form, begin) in [("raw", ""), ("ndjson", "{\"id\":"), ("sse", "id: ")] {
        let line = Wsevent::line("--no-serve --since oldest --count 1000 --output").arg(form);
        let (printed, code) = printed_late(line.args(["--consume", &producer.ws_url()]));
        let text = String::from_utf8(printed).expect("text");
        assert_eq!(code, 0, "{form}");
        let before: Vec<&str> = text.split(&"x".repeat(1192)).collect();
        assert_eq!(before.len(), 1001, "{form}");
        assert!((0..1000).all(|n| before[n].ends_with(&format!("{n:06} "))), "{form}");
        assert!(text.starts_with(begin), "{form}: {text:.100}");
    }
}

#[test]
fn a_stamped_source_is_printed_whole() {
    let (printed, code) = printed_late(Wsevent::line("bench --emit --count 20000 --size 99"));
    assert_eq!((printed.len(), code), (2_000_000, 0));
}

#[test]
fn definitions_are_printed_whole() {
    for what in ["--help", "-V", "man", "completions bash", "--check", "bench --help"] {
        let blocking = Wsevent::line(what).run();
        let (printed, code) = printed_late(Wsevent::line(what));
        assert_eq!((String::from_utf8_lossy(&printed).into_owned(), code), (blocking.stdout, 0), "{what}");
    }
}

#[test]
fn output_that_the_device_refuses_is_a_failure() {
    for what in ["--help", "-V", "man", "completions bash", "--check", "bench --emit --count 1"] {
        let done = Wsevent::line(what).stdout_to(full_device()).run();
        assert_eq!(done.code, 1, "{what}: {}", done.stderr);
        assert!(done.stderr.contains("No space left"), "{what}: {}", done.stderr);
    }
}

#[test]
fn a_stamped_source_ends_quietly_with_its_reader() {
    let done = bash("timeout 20 $wsevent bench --emit | head -n 1; echo ${PIPESTATUS[0]}");
    assert!(done.stdout.ends_with("\n0\n") && done.stderr.is_empty(), "{done:?}");
}

// --- standard input that does not block ------------------------------------------------------------------------------

/// An input that does not block, and into which these pieces are written with pauses between them.
fn paused(pieces: Vec<Vec<u8>>) -> PipeReader {
    let (reads, mut writes) = io::pipe().expect("a pipe");
    ioctl_fionbio(&reads, true).expect("a flag");
    thread::spawn(move || {
        for piece in pieces {
            thread::sleep(Duration::from_millis(200));
            let _ = writes.write_all(&piece);
        }
        thread::sleep(Duration::from_millis(200));
    });
    reads
}

#[test]
fn an_input_that_does_not_block_is_read_to_its_end() {
    let pieces = || vec![b"one\nt".to_vec(), b"wo\n".to_vec(), thousand_lines(), b"three".to_vec()];
    let mut running = Wsevent::line("--produce - --no-serve").stdin_from(paused(pieces())).start();
    assert_eq!(running.wait(), 0, "{}", running.stderr());
    let printed = running.stdout_bytes();
    assert_eq!(printed.len(), 1_200_014);
    assert!(printed.starts_with(b"one\ntwo\n000000 ") && printed.ends_with(b"x\nthree\n"));
    let hub = Wsevent::line("--produce - --keep-open").stdin_from(paused(pieces())).serve();
    hub.has("events", 1003);
}

#[test]
fn secrets_are_read_from_an_input_that_does_not_block() {
    let hashed = Wsevent::line("hash-password").stdin_from(paused(vec![b"hid".to_vec(), b"den\n".to_vec()])).run();
    assert!(hashed.code == 0 && hashed.stdout.starts_with("$argon2id$"), "{hashed:?}");
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "0123456789abcdef0123456789abcdef");
    let check = Wsevent::new(["check-token", "--jwt-secret-file", &secret]);
    let checked = check.stdin_from(paused(vec![b"no".to_vec(), b" token\n".to_vec()])).run();
    assert!(checked.code == 77 && checked.stderr.contains("the token is refused"), "{checked:?}");
}

// --- terminals -------------------------------------------------------------------------------------------------------

/// Runs the program on a terminal that does not block; prints how many bytes came out of it, and the exit code.
const ON_A_TERMINAL: &str = r#"
import os, pty, subprocess, sys, threading, time, tty
master, slave = pty.openpty()
tty.setraw(slave)
os.set_blocking(slave, False)
source = slave if sys.argv[1] == "in" else open(sys.argv[1], "rb")
process = subprocess.Popen(sys.argv[2:], stdin=source, stdout=slave, stderr=subprocess.DEVNULL)
os.close(slave)
if sys.argv[1] == "in":
    for word in (b"one\n", b"two\n"):
        time.sleep(0.3)
        os.write(master, word)
time.sleep(0.5)
count = 0
while True:
    try:
        count += len(os.read(master, 4096))
    except OSError:
        break
print(count, process.wait())
"#;

fn on_a_terminal(args: &[&str]) -> String {
    let python = find_program("python3").expect("python3");
    let line = Wsevent::program(python).args(["-c", ON_A_TERMINAL, args[0]]).arg(binary()).args(&args[1..]);
    let done = line.run();
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout
}

#[test]
fn a_terminal_that_does_not_block_gets_and_gives_every_byte() {
    let scratch = Scratch::new();
    let input = scratch.file("input", thousand_lines());
    assert_eq!(on_a_terminal(&[&input, "--produce", "-", "--no-serve"]), "1200000 0\n");
    assert_eq!(on_a_terminal(&["in", "--produce", "-", "--no-serve", "--count", "2"]), "8 0\n");
}
