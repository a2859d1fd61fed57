//! The container image as its script builds it: one static binary in an empty root, run by a user without rights.
//!
//! buildah runs it here, which needs no daemon; its containers share the host's network.

mod certs;
mod common;
mod names;

use certs::{
    Authority, Kind, installed,
    nginx::{Nginx, free_port},
};
use common::{Done, PATIENCE, Running, Scratch, Wsevent, root, run};
use names::name_server;
use serde_json::Value;
use std::{
    ops::Deref,
    path::PathBuf,
    process::{self, Command},
    sync::{
        Arc, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What the binary may weigh.
const GOAL: u64 = 12 << 20;

/// What works without overlay mounts, where those are not to be had.
static STORAGE: LazyLock<Option<&str>> = LazyLock::new(|| {
    let info = Wsevent::program(installed("buildah", "buildah")).args(["info"]).run();
    (info.code != 0).then_some("vfs")
});

fn buildah<'a>(args: impl IntoIterator<Item = &'a str>) -> Wsevent {
    let line = Wsevent::program(installed("buildah", "buildah")).args(args);
    STORAGE.iter().fold(line, |line, driver| line.env("STORAGE_DRIVER", driver))
}

/// What buildah answers.
fn ask(args: &[&str]) -> String {
    let done = buildah(args.iter().copied()).run();
    assert_eq!(done.code, 0, "buildah {args:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

/// Part of a name that nobody else uses.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The script, with `buildah` as its engine.
fn docker_build(args: &[&str]) -> Command {
    installed("buildah", "buildah");
    let mut script = Command::new(root().join("scripts/build/docker-build"));
    script.args(["--engine", "buildah"]).args(args);
    script
}

/// An image of this test run; it goes when the last test that uses it has ended.
struct Image {
    name: String,
    built: Done,
}

impl Image {
    fn get() -> Arc<Image> {
        static BUILT: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        built.upgrade().unwrap_or_else(|| {
            let image = Arc::new(Image::build(|script| script.arg("--prebuilt")));
            *built = Arc::downgrade(&image);
            image
        })
    }

    fn build(how: impl FnOnce(&mut Command) -> &mut Command) -> Image {
        let (repository, tag) = ("localhost/wsevent-test", unique());
        let mut script = docker_build(&[]);
        how(&mut script).args([repository, &tag]);
        let built = run(script);
        assert_eq!(built.code, 0, "{}", built.stderr);
        Image { name: format!("{repository}:{tag}"), built }
    }

    /// What an engine needs to know of it.
    fn config(&self) -> Value {
        let all: Value = serde_json::from_str(&ask(&["inspect", "--type", "image", &self.name])).expect("JSON");
        all["OCIv1"]["config"].clone()
    }

    /// Unpacks it; each entry of its root, and where the layers are now.
    fn unpack(&self) -> (Vec<String>, Scratch) {
        let scratch = Scratch::new();
        ask(&["push", "--quiet", &self.name, &format!("docker-archive:{}", scratch.arg("image.tar"))]);
        tar(&scratch, "image.tar");
        let manifest: Value = serde_json::from_str(&scratch.read("manifest.json").expect("a manifest")).expect("JSON");
        let layers = manifest[0]["Layers"].as_array().expect("layers");
        let entries = layers.iter().flat_map(|layer| tar(&scratch, layer.as_str().expect("a file's name")));
        (entries.collect(), scratch)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        buildah(["rmi", &self.name]).run();
    }
}

/// Unpacks a file, and says what was in it.
fn tar(scratch: &Scratch, file: &str) -> Vec<String> {
    let mut command = Command::new("tar");
    command.current_dir(scratch.path("")).args(["-xvf", file]);
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout.lines().map(String::from).collect()
}

/// A container of the image, which goes with its owner.
struct Container {
    name: String,
    image: Arc<Image>,
}

impl Container {
    fn new() -> Self {
        Container::with(&[])
    }

    /// With options for its network.
    fn with(options: &[&str]) -> Self {
        let (image, name) = (Image::get(), format!("wsevent-test-{}", unique()));
        ask(&[&["from", "--name", &name], options, &[&image.name]].concat());
        Container { name, image }
    }

    /// The image's program with these words behind it.
    fn wsevent(&self, line: &str) -> Wsevent {
        self.wsevent_with(&[], line)
    }

    /// With options for the run, such as a file to mount.
    fn wsevent_with(&self, options: &[&str], line: &str) -> Wsevent {
        let config = self.image.config();
        let entry = config["Entrypoint"].as_array().expect("an entry point").iter().filter_map(Value::as_str);
        let run = buildah(["run", "--isolation", "chroot"]).args(options.iter().copied());
        run.args([self.name.as_str(), "--"]).args(entry).args(line.split_whitespace())
    }

    /// Starts a line that serves.
    fn serve(&self, line: &str) -> Inside {
        let running = Inside(self.wsevent(line).start());
        running.said("serving");
        running
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        buildah(["rm", &self.name]).run();
    }
}

/// A process in a container: buildah ends it when it is asked to end, not when it is killed.
struct Inside(Running);

impl Deref for Inside {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.0
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.signal("TERM");
        }
        let deadline = Instant::now() + PATIENCE;
        while self.0.ended().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Asserts that it ended well, and says what it printed.
fn printed(line: Wsevent) -> String {
    let done = line.run();
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout
}

#[test]
fn the_script_prints_what_binary_and_image_weigh() {
    let image = Image::get();
    let (_, unpacked) = image.unpack();
    let bytes = unpacked.path("wsevent").metadata().expect("the binary").len();
    let lines: Vec<&str> = image.built.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("binary: ") && lines[0].ends_with(&format!("MiB ({bytes} bytes)")), "{}", lines[0]);
    assert!(lines[1].starts_with("image:  ") && lines[1].ends_with(&format!(" MB ({})", image.name)), "{}", lines[1]);
}

#[test]
fn the_binary_is_small() {
    let bytes = Image::get().unpack().1.path("wsevent").metadata().expect("the binary").len();
    assert!(bytes <= GOAL, "the stripped binary has {bytes} bytes: {} more than the goal of {GOAL}", bytes - GOAL);
}

#[test]
fn the_root_holds_the_binary_and_nothing_else() {
    let (entries, unpacked) = Image::get().unpack();
    assert_eq!(entries, ["wsevent"]);
    let mut readelf = Command::new(installed("readelf", "binutils"));
    readelf.args(["--wide", "--program-headers", "--section-headers", &unpacked.arg("wsevent")]);
    let headers = run(readelf).stdout;
    assert!(headers.contains(".text"), "{headers}");
    assert!(!headers.contains("INTERP"), "not static: {headers}");
    assert!(!headers.contains(".symtab") && !headers.contains(".debug"), "not stripped: {headers}");
}

#[test]
fn it_is_run_by_a_user_without_rights() {
    assert_eq!(Image::get().config()["User"], "65532:65532");
    let status = printed(Container::new().wsevent("--produce file:/proc/self/status --no-serve"));
    for line in ["Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000"] {
        assert!(status.lines().any(|found| found == line), "{line} is not in\n{status}");
    }
}

#[test]
fn it_serves_everybody_on_the_exposed_port() {
    let exposed = Image::get().config()["ExposedPorts"].clone();
    assert!(exposed.get("8080/tcp").is_some(), "{exposed}");
    let plan = printed(Container::new().wsevent("--check"));
    assert!(plan.contains("0.0.0.0:8080/events"), "{plan}");
}

#[test]
fn it_helps() {
    let container = Container::new();
    let help = printed(container.wsevent("--help"));
    assert!(help.contains("Usage: wsevent [OPTIONS]"), "{help}");
    assert_eq!(printed(container.wsevent("--version")), format!("wsevent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_producer_a_hop_and_a_consumer_run_in_containers() {
    let (first, second) = (free_port(), free_port());
    let containers = [Container::new(), Container::new(), Container::new()];
    let _producer = containers[0].serve(&format!("--serve localhost:{first}/events"));
    let _hop = containers[1].serve(&format!("--consume ws://localhost:{first}/events --serve localhost:{second}/copy"));
    let read = |url: String| {
        let line = format!("--consume {url} --no-serve --since oldest --count 5");
        printed(containers[2].wsevent(&line))
    };
    let events = read(format!("ws://localhost:{second}/copy"));
    assert!(events.starts_with(&format!("0: localhost:{first}: ")) && events.lines().count() == 5, "{events}");
    assert_eq!(events, read(format!("ws://localhost:{first}/events")));
}

#[test]
fn standard_input_reaches_it() {
    let line = "--produce - --no-serve --filter .n>1 --map .n";
    let events = printed(Container::new().wsevent(line).input("{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n"));
    assert_eq!(events, "2\n3\n");
}

/// A producer on the host, three events, and nginx with a private authority's certificate in front of it.
struct Site {
    authority: Authority,
    nginx: Nginx,
    _producer: Running,
}

const EVENTS: &str = "one\ntwo\nthree\n";

impl Site {
    fn new() -> Self {
        let authority = Authority::new();
        let producer = Wsevent::line("--produce - --keep-open --allow-host upstream.test").input(EVENTS).serve();
        let nginx = Nginx::serve(&authority.issue(Kind::Good), producer.port());
        Site { authority, nginx, _producer: producer }
    }

    /// A consumer in this container who trusts the authority.
    fn consumer(&self, container: &Container, scheme: &str, host: &str) -> Wsevent {
        let url = self.nginx.url(scheme, host);
        let mount = format!("{}:/ca.pem:ro", self.authority.ca());
        let line = format!("--consume {url} --ca /ca.pem --no-serve --since oldest --count 3 --retries 0");
        container.wsevent_with(&["--volume", &mount], &line)
    }
}

#[test]
fn it_reads_over_tls_from_a_private_authority() {
    let (site, container) = (Site::new(), Container::new());
    for scheme in ["wss", "https", "ndjson+https"] {
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(printed(site.consumer(&container, scheme, host)), EVENTS, "{scheme}://{host}");
        }
    }
}

#[test]
fn it_trusts_no_private_authority_by_itself() {
    let (site, container) = (Site::new(), Container::new());
    let url = site.nginx.url("wss", "localhost");
    let done = container.wsevent(&format!("--consume {url} --no-serve --retries 0")).run();
    assert_eq!((done.code, done.stdout.as_str()), (69, ""));
    assert!(done.stderr.contains("certificate: UnknownIssuer"), "{}", done.stderr);
}

#[test]
fn names_come_from_the_hosts_file_that_the_engine_mounts() {
    let (site, container) = (Site::new(), Container::with(&["--add-host", "upstream.test:127.0.0.1"]));
    assert_eq!(printed(site.consumer(&container, "wss", "upstream.test")), EVENTS);
}

#[test]
fn names_come_from_the_name_server_that_the_engine_mounts() {
    let Some(_name_server) = name_server("127.0.0.77", &["--host-record=upstream.test,127.0.0.1"]) else { return };
    let (site, container) = (Site::new(), Container::with(&["--dns", "127.0.0.77"]));
    assert_eq!(printed(site.consumer(&container, "wss", "upstream.test")), EVENTS);
    let unknown = site.consumer(&container, "wss", "nobody.test").run();
    assert_eq!(unknown.code, 69);
    assert!(unknown.stderr.contains("resolve nobody.test"), "{}", unknown.stderr);
}

#[test]
fn where_nothing_can_be_pulled_this_machine_builds_the_binary() {
    let scratch = Scratch::new();
    let blocked = scratch.file("registries.conf", "[[registry]]\nprefix = \"docker.io\"\nblocked = true\n");
    let image = Image::build(|script| script.env("CONTAINERS_REGISTRIES_CONF", blocked));
    assert!(image.built.stderr.contains("the base image cannot be pulled"), "{}", image.built.stderr);
    assert_eq!(image.unpack().0, ["wsevent"]);
}

#[test]
fn the_script_says_what_to_type_where_no_engine_runs() {
    let scratch = Scratch::new();
    let dirname: PathBuf = common::find_program("dirname").expect("coreutils");
    std::os::unix::fs::symlink(dirname, scratch.path("dirname")).expect("a link");
    let mut script = Command::new(common::find_program("bash").expect("bash"));
    script.arg(root().join("scripts/build/docker-build")).env("PATH", scratch.path(""));
    let done = run(script);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("sudo apt-get install buildah"), "{}", done.stderr);
}

#[test]
fn the_script_refuses_what_it_does_not_know() {
    for (args, reason) in [(["--fast"], "unknown option '--fast'"), (["--engine=x"], "unknown option '--engine=x'")] {
        let done = run(docker_build(&args));
        assert_eq!((done.code, done.stdout.as_str()), (1, ""));
        assert!(done.stderr.contains(reason), "{}", done.stderr);
    }
    let done = run(docker_build(&["--engine", "runner", "image"]));
    assert!(done.code == 1 && done.stderr.contains("'runner' is no engine"), "{}", done.stderr);
}
