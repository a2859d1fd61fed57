//! What the tests drive: the program as a user starts it, and clients that share no code with it.
//!
//! [`Wsevent`] is a command line, [`Running`] the process that it became: captured, addressed by its ready file,
//! killed on `Drop`. [`raw`] speaks bytes, [`reader`] is a WebSocket client of somebody else's making.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod door;
pub mod raw;
pub mod reader;

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up: a bound for broken things, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The variables that the program reads beside `WSEVENT_*`.
const VARIABLES: [&str; 7] = [
    "SERVE_ENDPOINT",
    "SERVE_ADDRESS",
    "SERVE_PATH",
    "CONSUME_ENDPOINT",
    "CONSUME_ADDRESS",
    "CONSUME_PATH",
    "NO_PRODUCE",
];

/// The program under test: `WSEVENT_BIN`, else what cargo built.
pub fn binary() -> PathBuf {
    std::env::var_os("WSEVENT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_wsevent").into()).into()
}

/// Asks until the answer is there.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that goes away with its owner.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("wsevent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path as an argument.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8 path").to_owned()
    }

    /// Writes a file and returns its path as an argument.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).expect("write a scratch file");
        self.arg(name)
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the process gets on standard input.
#[derive(Clone)]
enum Input {
    Nothing,
    /// These bytes, then the end.
    Bytes(Arc<Vec<u8>>),
    /// What [`Running::write`] says, until [`Running::close_stdin`].
    Piped,
}

/// Where standard streams go instead of through pipes of ours; a process that is started again has pipes.
#[derive(Clone, Default)]
struct Streams {
    stdin: Option<Arc<OwnedFd>>,
    stdout: Option<Arc<OwnedFd>>,
    stderr: Option<Arc<OwnedFd>>,
}

fn stream(fd: Option<Arc<OwnedFd>>, otherwise: Stdio) -> Stdio {
    fd.map_or(otherwise, |fd| fd.try_clone().expect("another descriptor").into())
}

/// A command line of the program.
#[derive(Clone)]
pub struct Wsevent {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    input: Input,
    streams: Streams,
}

impl Wsevent {
    pub fn new<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Self {
        Wsevent::program(binary()).args(args)
    }

    /// Another program, driven the same way.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        let (args, env, streams) = (Vec::new(), Vec::new(), Streams::default());
        Wsevent { program: program.into(), args, env, input: Input::Nothing, streams }
    }

    /// A command line whose words hold no blanks.
    pub fn line(line: &str) -> Self {
        Wsevent::new(line.split_whitespace())
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With more behind the last argument.
    pub fn with_last(mut self, more: &str) -> Self {
        if let Some(last) = self.args.last_mut() {
            last.push(more);
        }
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Standard input: these bytes, then its end.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(Arc::new(bytes.into()));
        self
    }

    /// Standard input stays open: see [`Running::write`].
    pub fn piped(mut self) -> Self {
        self.input = Input::Piped;
        self
    }

    /// Standard input is this.
    pub fn stdin_from(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.streams.stdin = Some(Arc::new(fd.into()));
        self
    }

    /// Standard output is this, and not captured.
    pub fn stdout_to(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.streams.stdout = Some(Arc::new(fd.into()));
        self
    }

    /// Standard error is this, and not captured.
    pub fn stderr_to(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.streams.stderr = Some(Arc::new(fd.into()));
        self
    }

    /// Starts it as it stands.
    pub fn start(self) -> Running {
        Running::start(self, None)
    }

    /// Starts it with a ready file, on a free port unless an address was typed, and waits until it listens.
    pub fn serve(mut self) -> Running {
        let says_where = |arg: &OsString| {
            let arg = arg.to_string_lossy();
            let name = arg.split('=').next().unwrap_or_default().trim_start_matches('-');
            arg.starts_with('-') && matches!(name, "serve" | "serve-address")
        };
        let by_env = self.env.iter().any(|(name, _)| name.contains("SERVE_ADDRESS") || name.contains("SERVE_ENDPOINT"));
        if !by_env && !self.args.iter().any(says_where) {
            self = self.args(["--serve-address", "localhost:0"]);
        }
        if door::is_wanted() && !self.args.iter().any(|arg| arg == "--tls-cert") {
            self = self.args(door::args());
        }
        let scratch = Scratch::new();
        self = self.args(["--ready-file".into(), scratch.arg("ready")]);
        let mut running = Running::start(self, Some(scratch));
        running.await_ready();
        running
    }

    /// Starts it, waits for its end, and says what came of it.
    pub fn run(self) -> Done {
        let mut running = self.start();
        let code = running.wait();
        Done { code, stdout: running.stdout(), stderr: running.stderr() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WSEVENT_") || VARIABLES.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What a process left behind.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A started process. It is killed when this goes.
pub struct Running {
    line: Wsevent,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Captured,
    stderr: Captured,
    ready: Option<Scratch>,
    url: Option<String>,
    /// Where the URL points to, if this run is over TLS.
    door: Option<door::Door>,
    code: Option<i32>,
}

impl Running {
    fn start(mut line: Wsevent, ready: Option<Scratch>) -> Self {
        let (mut command, streams) = (line.command(), std::mem::take(&mut line.streams));
        let wants_input = !matches!(line.input, Input::Nothing);
        command.stdin(stream(streams.stdin, if wants_input { Stdio::piped() } else { Stdio::null() }));
        command.stdout(stream(streams.stdout, Stdio::piped())).stderr(stream(streams.stderr, Stdio::piped()));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", line.program.display()));
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = &line.input {
            let (bytes, mut stdin) = (bytes.clone(), stdin.take().expect("piped"));
            // The process may well end before it has read everything.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        Running { line, child, stdin, stdout, stderr, ready, url: None, door: None, code: None }
    }

    fn await_ready(&mut self) {
        let file = self.ready.as_ref().expect("started by serve()").path("ready");
        let url = eventually("the ready file", || {
            if let Some(status) = self.child.try_wait().expect("a child's status") {
                panic!("ended with {status} before it served: {:?}\n{}", self.line.args, self.stderr());
            }
            fs::read_to_string(&file).ok()
        });
        let url = url.lines().next().expect("a listener's URL");
        if door::is_wanted() && url.starts_with("https:") {
            let (_, port, path) = raw::split_url(url);
            let door = *self.door.get_or_insert_with(|| door::Door::open(port));
            self.url = Some(format!("http://localhost:{}{path}", door.port));
        } else {
            self.url = Some(url.to_owned());
        }
    }

    /// `http://localhost:PORT/path`, as the ready file says it.
    pub fn url(&self) -> &str {
        self.url.as_deref().expect("started by serve()")
    }

    /// `ws://localhost:PORT/path`.
    pub fn ws_url(&self) -> String {
        self.url().replacen("http", "ws", 1)
    }

    pub fn port(&self) -> u16 {
        raw::split_url(self.url()).1
    }

    /// The port of another listener, by the scheme of its line in the ready file.
    pub fn port_of(&self, scheme: &str) -> u16 {
        let ready = self.ready.as_ref().expect("started by serve()").read("ready").unwrap_or_default();
        let line = ready.lines().find(|line| line.starts_with(&format!("{scheme}://")));
        let line = line.unwrap_or_else(|| panic!("no {scheme} listener: {ready:?}"));
        line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// `localhost:PORT`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says more on standard input (of a [`Wsevent::piped`] process).
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("a piped process");
        stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush()).expect("write to the process");
    }

    /// Hands out standard input, for a thread that writes much.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("a piped process")
    }

    pub fn is_piped(&self) -> bool {
        self.stdin.is_some()
    }

    /// The end of standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Standard output so far.
    pub fn stdout_bytes(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    /// Standard output so far, without the first `at` bytes.
    pub fn stdout_from(&self, at: usize) -> Vec<u8> {
        self.stdout.shared.0.lock().expect("no panic").bytes[at..].to_vec()
    }

    /// Standard output so far, as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// The first `n` whole lines of standard output, once they are there.
    pub fn lines(&self, n: usize) -> Vec<String> {
        let whole = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() >= n;
        let bytes = self.stdout.until(whole).unwrap_or_else(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            panic!("no {n} lines on stdout, but {text:?}; stderr: {}", self.stderr())
        });
        String::from_utf8_lossy(&bytes).lines().take(n).map(String::from).collect()
    }

    /// Waits until standard error says this.
    pub fn said(&self, text: &str) {
        let found = self.stderr.until(|bytes| String::from_utf8_lossy(bytes).contains(text));
        found.unwrap_or_else(|bytes| panic!("stderr does not say {text:?}: {}", String::from_utf8_lossy(&bytes)));
    }

    /// Waits for its end; 128+n when a signal ended it.
    pub fn wait(&mut self) -> i32 {
        if let Some(code) = self.code {
            return code;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(code) = self.ended() {
                return code;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("still running after {PATIENCE:?}: {:?}\nstderr: {}", self.line.args, self.stderr())
    }

    /// Its exit code, if it has ended; its output is complete then.
    pub fn ended(&mut self) -> Option<i32> {
        if self.code.is_none() {
            self.code = self.child.try_wait().expect("a child's status").map(exit_code);
            if self.code.is_some() {
                self.stdout.join();
                self.stderr.join();
            }
        }
        self.code
    }

    /// Sends a signal by name: `INT`, `TERM`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: a small system has no other.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "send {name} to {}", self.pid());
    }

    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    /// Kills it if it still runs, and starts the same line again, on the same port; returns when it listens.
    /// What it printed before is forgotten.
    pub fn restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// The second half of [`Running::restart`], for a process that is dead already.
    pub fn start_again(&mut self) {
        let (port, mut line) = (self.door.map_or(self.port(), |door| door.behind), self.line.clone());
        for arg in &mut line.args {
            *arg = arg.to_string_lossy().replace("localhost:0", &format!("localhost:{port}")).into();
        }
        let ready = self.ready.take().expect("started by serve()");
        let _ = fs::remove_file(ready.path("ready"));
        let typed = std::mem::replace(&mut self.line, line.clone());
        let mut next = Running::start(line, Some(ready));
        next.door = self.door;
        next.await_ready();
        next.line = typed;
        *self = next;
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process's status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// A client's view: the own endpoint under `/-/`.
    pub fn own(&self, name: &str) -> raw::Answer {
        raw::get(&format!("http://{}/-/{name}", self.address()))
    }

    /// What `/-/status` says about the topic.
    pub fn topic(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_slice(&self.own("status").body).expect("JSON");
        status["topics"][0].clone()
    }

    /// Waits until the topic has so many `events`, `readers`, …
    pub fn has(&self, what: &str, count: u64) {
        eventually(&format!("{count} {what}"), || (self.topic()[what] == count).then_some(()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            return eprintln!("--- {:?} said:\n{}", self.line.args, self.stderr());
        }
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked at"), "{:?} panicked: {stderr}", self.line.args);
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A pipe that is read into memory as it comes.
struct Captured {
    shared: Arc<(Mutex<Content>, Condvar)>,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    ended: bool,
}

impl Captured {
    /// Nothing, where there is no pipe.
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        pipe.map_or_else(|| Captured::new(std::io::empty()), Captured::new)
    }

    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let shared: Arc<(Mutex<Content>, Condvar)> = Arc::default();
        let inside = shared.clone();
        thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            loop {
                let n = pipe.read(&mut block).unwrap_or(0);
                let mut content = inside.0.lock().expect("no panic");
                content.bytes.extend_from_slice(&block[..n]);
                content.ended = n == 0;
                inside.1.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Captured { shared }
    }

    fn bytes(&self) -> Vec<u8> {
        self.shared.0.lock().expect("no panic").bytes.clone()
    }

    /// All of it, once `enough` says so; what is there at the end or the deadline otherwise.
    fn until(&self, enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, Vec<u8>> {
        let (deadline, (content, changed)) = (Instant::now() + PATIENCE, &*self.shared);
        let mut content = content.lock().expect("no panic");
        loop {
            if enough(&content.bytes) {
                return Ok(content.bytes.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if content.ended || left.is_zero() {
                return Err(content.bytes.clone());
            }
            content = changed.wait_timeout(content, left).expect("no panic").0;
        }
    }

    /// Until the pipe is closed (a grandchild may hold it a little longer).
    fn join(&self) {
        let limit = Duration::from_secs(5);
        let content = self.shared.0.lock().expect("no panic");
        drop(self.shared.1.wait_timeout_while(content, limit, |content| !content.ended));
    }
}

/// Runs another program to its end: its exit code, standard output and standard error.
pub fn run(mut command: Command) -> Done {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: exit_code(out.status), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

/// Runs a line of bash in which `$wsevent` is the program.
pub fn bash(line: &str) -> Done {
    let mut command = Command::new("bash");
    command.arg("-c").arg(line).env("wsevent", binary());
    run(command)
}

/// Whether a program is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
