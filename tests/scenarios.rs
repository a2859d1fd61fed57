//! The documented scenarios, each command line as it is written, in both dash spellings, with the documented ports.

mod common;

use common::{
    Running, Wsevent, binary, eventually,
    raw::{self, Frame, Raw, TEXT},
    reader::Reader,
    root,
};
use std::{
    io,
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The documented ports exist once: one test at a time.
static PORTS: Mutex<()> = Mutex::new(());

/// Takes the documented ports for one test.
fn ports(wanted: &[u16]) -> MutexGuard<'static, ()> {
    let turn = PORTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for port in wanted {
        let free = TcpListener::bind(("localhost", *port));
        assert!(free.is_ok(), "port {port} of the documented scenario is taken on this machine: free it first");
    }
    turn
}

/// A documented line, as written with one hyphen or spelled with two.
fn service(line: &str, hyphens: &str) -> Running {
    let spelled = |word: &str| match word.strip_prefix('-') {
        Some(name) => format!("{hyphens}{name}"),
        None => word.to_owned(),
    };
    let running = Wsevent::new(line.split_whitespace().map(spelled)).start();
    running.said("serving");
    running
}

fn wsclient(args: &[&str]) -> Running {
    let script = Wsevent::program(root().join("scripts/wsclient")).args(args);
    script.env("WSCLIENT", binary().to_str().expect("a path")).start()
}

fn wsclient_with_curl(args: &[&str]) -> Running {
    Wsevent::program(root().join("scripts/wsclient")).args(args).env("WSCLIENT", "curl").start()
}

/// The number of a dummy event, after checking its whole form: `<n>: <serve-address>: <10 letters>` and a line feed.
fn dummy_number(event: &str, address: &str) -> u64 {
    let parts = event.strip_suffix('\n').and_then(|line| line.split_once(&format!(": {address}: ")));
    let (number, letters) = parts.unwrap_or_else(|| panic!("not the documented form: {event:?}"));
    assert!(letters.len() == 10 && letters.bytes().all(|letter| letter.is_ascii_alphabetic()), "{event:?}");
    number.parse().expect("a number")
}

/// Scenario one of the pattern: clients consume over a reverse proxy.
#[test]
fn scenario_one_spreads_clients_over_three_producers() {
    // Ports below 1024 belong to root.
    let port = if TcpListener::bind("localhost:80").is_ok() { 80 } else { 8000 };
    let _turn = ports(&[port, 8080, 8081, 8082]);
    let _producers = [8080, 8081, 8082].map(|port| service(&format!("-serve-address localhost:{port}"), "-"));
    let proxy = Wsevent::program(root().join("scripts/wsproxy")).args([port.to_string()]);
    let proxy = proxy.env("WSPROXY", binary().to_str().expect("a path")).start();
    proxy.said("serving");
    let clients: Vec<Running> = (0..6).map(|_| wsclient(&[&port.to_string()])).collect();
    let mut shares = std::collections::BTreeMap::new();
    for client in &clients {
        let lines = client.lines(5);
        let producer = lines[0].split(": ").nth(1).expect("who said it").to_owned();
        let numbers: Vec<u64> = lines.iter().map(|line| dummy_number(&format!("{line}\n"), &producer)).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        *shares.entry(producer).or_insert(0) += 1;
    }
    let expected = ["localhost:8080", "localhost:8081", "localhost:8082"].map(|address| (address.to_owned(), 2));
    assert_eq!(shares.into_iter().collect::<Vec<_>>(), expected);
}

fn assert_dummies<S: AsRef<str>>(events: &[S], address: &str) {
    let numbers: Vec<u64> = events.iter().map(|event| dummy_number(event.as_ref(), address)).collect();
    let first = numbers.first().expect("events");
    let counted: Vec<u64> = (*first..).take(numbers.len()).collect();
    assert_eq!(numbers, counted, "numbered without a hole");
}

/// A reverse proxy in its simplest form: each connection goes to the next back end.
fn round_robin(listener: TcpListener, back_ends: &'static [&'static str]) -> Arc<AtomicUsize> {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(back_ends[counted.fetch_add(1, Ordering::SeqCst) % back_ends.len()])
            else {
                return;
            };
            let other_way = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            thread::spawn(move || io::copy(&mut &client, &mut &server));
            thread::spawn(move || io::copy(&mut &other_way.1, &mut &other_way.0));
        }
    });
    turns
}

#[test]
fn clients_consume_over_a_reverse_proxy() {
    let _turn = ports(&[8080, 8081, 8082]);
    // Port 80 as documented, where this user may listen on it.
    let proxy =
        TcpListener::bind("localhost:80").or_else(|_| TcpListener::bind("localhost:0")).expect("a proxy's port");
    let port = proxy.local_addr().expect("an address").port().to_string();
    let addresses = &["localhost:8080", "localhost:8081", "localhost:8082"];
    let turns = round_robin(proxy, addresses);
    for hyphens in ["-", "--"] {
        let _producers: Vec<Running> =
            addresses.iter().map(|address| service(&format!("-serve-address {address}"), hyphens)).collect();
        let first = turns.load(Ordering::SeqCst);
        for i in 0..3 {
            let client = wsclient(&[&port]);
            let lines: Vec<String> = client.lines(3).iter().map(|line| format!("{line}\n")).collect();
            assert_dummies(&lines, addresses[(first + i) % 3]);
        }
    }
}

#[test]
fn producers_serve_what_they_are_named_for() {
    let _turn = ports(&[8080, 8081, 8082]);
    for hyphens in ["-", "--"] {
        for address in ["localhost:8080", "localhost:8081", "localhost:8082"] {
            let _producer = service(&format!("-serve-address {address}"), hyphens);
            let mut reader = Raw::websocket(&format!("ws://{address}/events"));
            let events: Vec<String> = (0..5).map(|_| reader.read_message().expect("an event").text()).collect();
            assert_dummies(&events, address);
        }
    }
}

const PRODUCER: &str = "";
const FIRST_HOP: &str = "-consume-path events -consume-address localhost:8080 -serve-address localhost:9090 -serve-path proxy-events -no-produce";
const SECOND_HOP: &str = "-consume-path proxy-events -consume-address localhost:9090 -serve-address localhost:9999 -serve-path the-end -no-produce";

fn history(url: &str) -> (String, Vec<String>) {
    let answer = raw::get(&format!("{url}?since=oldest&limit=1000"));
    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    let events: Vec<String> = serde_json::from_slice(&answer.body).expect("an array of strings");
    (answer.header("wsevent-oldest").expect("Wsevent-Oldest").to_owned(), events)
}

#[test]
fn chained_services_pass_every_byte() {
    let _turn = ports(&[8080, 9090, 9999]);
    for hyphens in ["-", "--"] {
        let _chain = [PRODUCER, FIRST_HOP, SECOND_HOP].map(|line| service(line, hyphens));
        let mut direct = Raw::websocket("ws://localhost:8080/events");
        let first = direct.read_message().expect("an event").text();
        let end_consumer = wsclient(&["9999", "the-end"]);
        let lines = end_consumer.lines(10);

        let mut sent = vec![first];
        while sent.last().map(|event| event.trim_end()) != lines.last().map(String::as_str) {
            sent.push(direct.read_message().expect("an event").text());
        }
        let sent = sent[sent.len() - lines.len()..].concat();
        assert_eq!(sent, format!("{}\n", lines.join("\n")), "the payloads, line feeds included, unchanged");
        assert_dummies(&sent.split_inclusive('\n').collect::<Vec<_>>(), "localhost:8080");
    }
}

#[test]
fn every_hop_holds_the_same_events_under_the_same_ids() {
    let _turn = ports(&[8080, 9090, 9999]);
    let _chain = [PRODUCER, FIRST_HOP, SECOND_HOP].map(|line| service(line, "-"));
    Raw::websocket("ws://localhost:9999/the-end").read_message().expect("an event at the end of the chain");
    let (last_oldest, last) = history("http://localhost:9999/the-end");
    let (middle_oldest, middle) = history("http://localhost:9090/proxy-events");
    let (first_oldest, first) = history("http://localhost:8080/events");
    assert_eq!([&last_oldest, &middle_oldest], [&first_oldest, &first_oldest]);
    assert_eq!(last, first[..last.len()], "from the first event on, though the hops came later");
    assert_eq!(middle[..last.len()], last);
}

#[test]
fn the_chain_may_start_from_its_end() {
    let _turn = ports(&[8080, 9090, 9999]);
    let last = service(SECOND_HOP, "-");
    let end_consumer = wsclient(&["9999", "the-end"]);
    let _middle = service(FIRST_HOP, "-");
    let _first = service(PRODUCER, "-");
    let lines: Vec<String> = end_consumer.lines(3).iter().map(|line| format!("{line}\n")).collect();
    assert_dummies(&lines, "localhost:8080");
    drop(last);
}

#[test]
fn the_documented_variables_do_what_the_options_do() {
    let producer =
        Wsevent::new([""; 0]).env("SERVE_ADDRESS", "localhost:0").env("SERVE_PATH", "from-environment").serve();
    assert!(producer.url().ends_with("/from-environment"), "{}", producer.url());
    let hop = Wsevent::new([""; 0])
        .env("SERVE_ADDRESS", "localhost:0")
        .env("CONSUME_ADDRESS", &producer.address())
        .env("CONSUME_PATH", "/from-environment")
        .env("NO_PRODUCE", "true")
        .serve();
    let ends = Wsevent::new([""; 0])
        .env("SERVE_ENDPOINT", "localhost:0/short")
        .env("CONSUME_ENDPOINT", &format!("{}/events", hop.address()))
        .serve();
    assert!(ends.url().ends_with("/short"), "{}", ends.url());
    let event = Raw::websocket(&ends.ws_url()).read_message().expect("an event").text();
    dummy_number(&event, "localhost:0");
}

#[test]
fn options_beat_variables() {
    let producer = Wsevent::line("-serve-path typed -serve-address localhost:0")
        .env("SERVE_ADDRESS", "localhost:1")
        .env("SERVE_PATH", "environment")
        .env("WSEVENT_SERVE_PATH", "own-environment")
        .serve();
    assert!(producer.url().ends_with("/typed"), "{}", producer.url());
    let whole = Wsevent::line("--serve localhost:0/whole").env("SERVE_PATH", "environment").serve();
    assert!(whole.url().ends_with("/whole"), "{}", whole.url());
}

#[test]
fn short_forms_and_full_urls_mean_the_same() {
    let producer = Wsevent::line("--serve localhost:0/a/b --produce -").piped().serve();
    assert!(producer.url().ends_with("/a/b"), "{}", producer.url());
    let address = producer.address();
    let spellings = [
        format!("--consume {address}/a/b"),
        format!("--consume ws://{address}/a/b"),
        format!("--consume http://{address}/a/b"),
        format!("--consume sse+http://{address}/a/b"),
        format!("--consume ndjson+http://{address}/a/b"),
        format!("-consume={address}/a/b"),
        format!("--consume-address {address} --consume-path a/b"),
        format!("-consume-address={address} -consume-path=/a/b"),
    ];
    let mut producer = producer;
    producer.write("one\ntwo words\n");
    for spelling in spellings {
        let printed = Wsevent::line(&format!("{spelling} --no-serve --since oldest --count 2")).run();
        assert_eq!((printed.code, printed.stdout.as_str()), (0, "one\ntwo words\n"), "{spelling}: {}", printed.stderr);
    }
}

#[test]
fn a_path_is_the_same_with_and_without_its_leading_slash() {
    for path in ["the-end", "/the-end"] {
        let producer = Wsevent::line("--serve-path").arg(path).serve();
        let port = producer.port().to_string();
        for asked in ["the-end", "/the-end"] {
            let client = wsclient(&[&port, asked, "--count", "1"]);
            dummy_number(&format!("{}\n", client.lines(1)[0]), "localhost:0");
        }
    }
}

#[test]
fn a_path_may_have_letters_of_any_language() {
    let mut producer = Wsevent::line("--produce - --slow-reader disconnect --serve-path größe/日本").piped().serve();
    producer.write("one\n");
    let path = "größe/日本";
    let consumed = Wsevent::new(["--consume-address", &producer.address(), "--consume-path", path, "--no-serve"])
        .args(["--since", "oldest", "--count", "1"])
        .run();
    assert_eq!((consumed.code, consumed.stdout.as_str()), (0, "one\n"), "{}", consumed.stderr);
    for spelled in ["gr%C3%B6%C3%9Fe/%E6%97%A5%E6%9C%AC", "gr%c3%b6%c3%9fe/%e6%97%a5%e6%9c%ac"] {
        let url = format!("http://{}/{spelled}", producer.address());
        assert_eq!(raw::get(&url).status, 200, "{url}");
    }
}

#[test]
fn localhost_is_both_address_families() {
    let producer = Wsevent::line("--produce -").piped().serve();
    for host in ["127.0.0.1", "[::1]"] {
        let connected = TcpStream::connect(format!("{host}:{}", producer.port()));
        assert!(connected.is_ok(), "connect {host}: {connected:?}");
    }
}

#[test]
fn wsclient_prefers_the_program_and_has_the_documented_defaults() {
    let _turn = ports(&[8080]);
    let _producer = service("", "-");
    for args in [&[][..], &["8080"], &["8080", "events"], &["--count", "5"]] {
        let lines: Vec<String> = wsclient(args).lines(3).iter().map(|line| format!("{line}\n")).collect();
        assert_dummies(&lines, "localhost:8080");
    }
    let mut counted = wsclient(&["8080", "events", "--count", "2"]);
    assert_eq!((counted.wait(), counted.stdout().lines().count()), (0, 2));
}

/// Unmasked text frames, one after the other.
fn payloads(mut bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    while let [first, len @ 0..=125, rest @ ..] = bytes {
        let Some((payload, rest)) = rest.split_at_checked(usize::from(*len)) else { break };
        if first & 15 == TEXT {
            events.push(String::from_utf8_lossy(payload).into_owned());
        }
        bytes = rest;
    }
    events
}

/// What curl has shown: whether the upgrade was accepted, and the events in the raw frames behind the head.
fn curl_saw(bytes: &[u8]) -> Option<Vec<String>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    Some(payloads(&bytes[end + 4..]))
}

#[test]
fn wsclient_falls_back_to_curl() {
    let _turn = ports(&[8080]);
    let _producer = service("", "-");
    for args in [&[][..], &["8080", "events"], &["8080", "/events"]] {
        let curl = wsclient_with_curl(args);
        let events = eventually("three events", || curl_saw(&curl.stdout_bytes()).filter(|events| events.len() >= 3));
        assert_dummies(&events, "localhost:8080");
    }
}

#[test]
fn wsclient_says_what_to_type_when_nothing_serves() {
    let nobody = TcpListener::bind("localhost:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut curl = wsclient_with_curl(&[&nobody.port().to_string()]);
    assert_ne!(curl.wait(), 0);
    curl.said("wsevent -serve-address localhost:");
    let mut wrong = wsclient(&["port"]);
    assert_ne!(wrong.wait(), 0);
    wrong.said("'port' is no port");
}

/// The curl line that everybody has: a key of 13 bytes, `Host` and `Origin` made up but equal. On loopback the made-up host
/// has to be named.
#[test]
fn the_well_known_curl_upgrade_is_served() {
    let mut producer = Wsevent::line("--produce - --history 1 --allow-host example.com").piped().serve();
    let curl = Wsevent::program("curl")
        .args(["--include", "--no-buffer", "--silent", "--http1.1"])
        .args(["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"])
        .args(["-H", "Host: example.com:80", "-H", "Origin: http://example.com:80"])
        .args(["-H", "Sec-WebSocket-Key: SGVsbG8sIHdvcmxkIQ==", "-H", "Sec-WebSocket-Version: 13"])
        .arg(producer.url())
        .start();
    producer.write("one\nzwei: ä\n");
    let events = eventually("two events", || curl_saw(&curl.stdout_bytes()).filter(|events| events.len() == 2));
    assert_eq!(events, ["one", "zwei: ä"]);
    let answer = String::from_utf8_lossy(&curl.stdout_bytes()).to_lowercase();
    assert!(answer.contains("sec-websocket-accept: ") && !answer.contains("sec-websocket-protocol"), "{answer}");
}

/// Frames as RFC 6455 §5.7 spells them, for those who read bytes.
#[test]
fn plain_readers_get_each_event_as_one_unmasked_text_frame() {
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let mut reader = Raw::websocket(&producer.ws_url());
    producer.write("Hello\n");
    assert_eq!(reader.read_frame(), Some(Frame::from_server(TEXT, "Hello")));
}

#[tokio::test]
async fn many_clients_see_the_same_stream() {
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let mut readers = Vec::new();
    for _ in 0..10 {
        readers.push(Reader::open(producer.url()).await);
    }
    let sent: Vec<String> = (0..100).map(|n| format!("event {n}")).collect();
    producer.write(format!("{}\n", sent.join("\n")));
    for reader in &mut readers {
        assert_eq!(reader.texts(100).await, sent);
    }
}
