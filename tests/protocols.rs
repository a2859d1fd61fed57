//! One table of checks, made of every protocol over every transport: what is promised must not depend on how one reads.

mod any;
mod common;
mod link;
mod tokens;

use any::{End, Heard, Payload, Protocol, Server, Transport, Way, quoted};
use common::{Wsevent, eventually, raw};
use link::Id;
use serde_json::{Value, json};
use std::sync::{LazyLock, Mutex, MutexGuard};
use tokens::{Keys, STATIC, claims, now};

/// A row per check, a column per way; each cell is a test of its own.
macro_rules! table {
    ($($check:ident)*) => { $(mod $check {
        use super::{Protocol::*, Transport::*, Way};
        table!(@ $check websocket(WebSocket, Plain) link(Link, Plain) sse(Sse, Plain) ndjson(Ndjson, Plain) poll(Poll, Plain)
            websocket_tls(WebSocket, Tls) link_tls(Link, Tls) sse_tls(Sse, Tls) ndjson_tls(Ndjson, Tls) poll_tls(Poll, Tls)
            sse_http2(Sse, Http2) ndjson_http2(Ndjson, Http2) poll_http2(Poll, Http2));
    })* };
    (@ $check:ident $($name:ident($protocol:ident, $transport:ident))*) => { $(
        #[test]
        fn $name() {
            super::checks::$check(Way($protocol, $transport));
        }
    )* };
}

table! {
    connect live resume gap_told since limit filter metadata slow_reader
    auth_refused auth_expiry drain one_mebibyte payloads end_of_stream
}

/// Positions on pings come this often where a test waits for one.
const SOON: &str = "--ping-interval 300ms";

/// One at a time: what is signed goes through a file.
fn keys() -> MutexGuard<'static, Keys> {
    static KEYS: LazyLock<Mutex<Keys>> = LazyLock::new(|| Mutex::new(Keys::new()));
    KEYS.lock().unwrap_or_else(|p| p.into_inner())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A hub that wants tokens.
fn guarded(way: Way) -> Server {
    let line = Wsevent::line("--no-produce").args(keys().args());
    Server { publisher: bearer(STATIC), ..Server::of(way, line) }
}

/// Every way, with each of its checks.
mod checks {
    use super::*;

    /// A reader is answered, says nothing, and what is published next is the first thing that it hears.
    pub fn connect(way: Way) {
        let server = Server::new(way, "--allow-origin https://app.test");
        let allowed = server.try_read("", "Origin: https://app.test\r\n");
        let refused = server.try_read("", "Origin: https://evil.test\r\n").err().expect("refused");
        assert_eq!((allowed.is_ok(), refused.status), (true, 403));
        let mut reader = server.read();
        if !way.is_poll() {
            eventually("the readers", || (server.topic()["readers"].as_u64() >= Some(1)).then_some(()));
        }
        server.publish("first");
        assert_eq!(reader.text(), "first");
    }

    /// What is published arrives in order, with its type; nothing of before.
    pub fn live(way: Way) {
        let server = Server::new(way, "");
        server.publish("before");
        let (mut one, mut other) = (server.read(), server.read());
        for n in 0..20 {
            server.publish_with("", "Event-Type: number\r\nEvent-Id: mine\r\n", n.to_string());
            let kind = way.tells_types().then(|| "number".to_owned());
            let event = Heard::Event(Payload::Text(n.to_string()), kind);
            assert_eq!((one.next(), other.next()), (event.clone(), event));
        }
    }

    /// Who comes back with its position gets the rest, once, and then what is live.
    pub fn resume(way: Way) {
        let server = Server::new(way, SOON);
        let mut reader = server.read();
        server.publish_all(&["1", "2", "3"]);
        assert_eq!(reader.texts(3), ["1", "2", "3"]);
        let position = reader.position();
        drop(reader);
        server.publish_all(&["4", "5"]);
        let by_query = server.read_from(&format!("?since={position}"));
        let by_other_name = server.read_from(&format!("?last_event_id={position}"));
        let by_header = server.try_read("", &format!("Last-Event-ID: {position}\r\n")).expect("accepted");
        server.publish("6");
        for mut reader in [by_query, by_other_name, by_header] {
            assert_eq!(reader.texts(3), ["4", "5", "6"]);
        }
    }

    /// Whose position is no longer retained is told exactly what is lost; a plain WebSocket is sent away at the start.
    pub fn gap_told(way: Way) {
        let server = Server::new(way, "--history 4");
        let ids = server.publish_all(&["1", "2", "3", "4", "5", "6", "7", "8"]);
        let oldest = server.topic()["oldest"].as_str().expect("an id").to_owned();
        let (from, kept) = (Id::read(&ids[0]), Id::read(&oldest));
        let stranger = format!("{}-7", "e".to_owned() + &"0".repeat(22));
        for (since, count) in [(ids[0].clone(), Some(kept.n - from.n - 1)), (stranger, None)] {
            let mut reader = server.read_from(&format!("?since={since}"));
            if way.0 == Protocol::WebSocket {
                let end = reader.next();
                assert!(
                    matches!(&end, Heard::End(End::Closed(1013, why)) if *why == format!("gone {oldest}")),
                    "{end:?}"
                );
                continue;
            }
            assert_eq!(reader.next(), Heard::Gap(count), "since {since}");
            let held: Vec<String> = (kept.n - from.n + 1..=8).map(|n| n.to_string()).collect();
            assert_eq!(reader.texts(held.len()), held);
        }
    }

    /// Every way to say where to begin; what cannot be read is refused by its name.
    pub fn since(way: Way) {
        let server = Server::new(way, "");
        let ids = server.publish_all(&["1", "2", "3"]);
        let epoch = &ids[0][..ids[0].len() - 1];
        let (zero, ahead) = (format!("{epoch}0"), format!("{epoch}4"));
        let all = ["1", "2", "3", "4", "5"];
        let readers: Vec<_> = [
            ("oldest", &all[..]),
            (zero.as_str(), &all[..]),
            ("0", &all[..]),
            ("1h", &all[..]),
            ("last:2", &all[1..]),
            (ids[1].as_str(), &all[2..]),
            (ids[2].as_str(), &all[3..]),
            (ahead.as_str(), &all[4..]),
        ]
        .map(|(since, expected)| (since, server.read_from(&format!("?since={since}")), expected))
        .into();
        server.publish_all(&["4", "5"]);
        for (since, mut reader, expected) in readers {
            assert_eq!(reader.texts(expected.len()), expected, "since {since}");
        }
        for (query, name) in [("since=abc", "since"), ("last_event_id=-", "last_event_id"), ("since=last:x", "since")] {
            let refused = server.try_read(&format!("?{query}"), "").err().expect("refused");
            let error: Value = serde_json::from_slice(&refused.body).expect("JSON");
            let named = error["error"].as_str().is_some_and(|error| error.starts_with(&format!("Invalid {name}")));
            assert!(refused.status == 400 && named, "{query}: {refused:?}");
        }
    }

    /// So many of the newest to begin with; a page has a limit of its own.
    pub fn limit(way: Way) {
        let server = Server::new(way, "");
        server.publish_all(&["1", "2", "3", "4"]);
        assert_eq!(server.read_from("?since=last:3").texts(3), ["2", "3", "4"]);
        if way.is_poll() {
            let mut pages = server.read_from("?since=oldest&limit=2");
            assert_eq!(pages.texts(2), ["3", "4"], "the newest");
            let mut forward = server.read_from(&format!("?since={}0&limit=1", server.epoch()));
            assert_eq!(forward.texts(4), ["1", "2", "3", "4"], "page by page");
            for bad in ["limit=-1", "limit=x", "after=5"] {
                assert_eq!(server.try_read(&format!("?{bad}"), "").err().expect("refused").status, 400, "{bad}");
            }
        }
    }

    /// A reader's own match, over what is retained and what is live.
    pub fn filter(way: Way) {
        let server = Server::new(way, "");
        let (a, b) = (r#"{"kind":"a","of":{"n":1}}"#, r#"{"kind":"b","of":{"n":1}}"#);
        server.publish_all(&[a, b, "no json", a]);
        let wanted = quoted(r#"{"kind":"a","of.n":1}"#);
        let mut reader = server.read_from(&format!("?since=oldest&match={wanted}"));
        assert_eq!(reader.texts(2), [a, a]);
        server.publish_all(&[b, a]);
        assert_eq!(reader.text(), a);
        let refused = server.try_read("?match=5", "").err().expect("refused");
        assert_eq!(refused.status, 400, "{refused:?}");
    }

    /// Query parameters are metadata: an event with an audience reaches whom it names, in replay as well.
    pub fn metadata(way: Way) {
        let server = Server::new(way, "");
        let live = server.read_from("?room=a&user=me");
        server.publish_with("?room=a", "", "to a");
        server.publish_with("?room=b", "", "to b");
        server.publish_with("?room=a&user=you", "", "to you");
        server.publish("to all");
        server.publish_with("?user=me", "", "to me");
        let replayed = server.read_from("?room=a&user=me&since=oldest");
        for mut reader in [live, replayed] {
            assert_eq!(reader.texts(3), ["to a", "to all", "to me"]);
        }
    }

    /// Who does not read skips ahead, is told how many it missed, and nobody else is disturbed.
    pub fn slow_reader(way: Way) {
        let server = Server::new(way, "--slow-reader drop-oldest --history-bytes 512KiB");
        let (mut slow, mut other) = (server.read(), server.read());
        server.publish("0");
        assert_eq!((slow.text(), other.text()), ("0".into(), "0".into()));
        slow.pause();
        let mut count = 1;
        // Twice the window is missing at one of the two; nobody can be seen to stay away from a poll.
        let is_slow = |count| match (way.is_poll(), server.topic()["delivered_events"].as_u64()) {
            (true, _) => count > 32,
            (false, delivered) => 2 * count > delivered.expect("a number") + 16,
        };
        while !is_slow(count) {
            assert!(count < 2048, "128 MiB, and nobody was slow");
            let event = format!("{count:065000}");
            server.publish(&event);
            assert!(other.text() == event, "{count}");
            count += 1;
        }
        slow.go_on();
        server.publish(count.to_string());
        let (mut heard, mut missed, mut last) = (1, 0, 0);
        while last < count {
            match slow.next() {
                Heard::Event(Payload::Text(text), _) => {
                    let number = text.parse().expect("a number");
                    assert!(number > last, "{number} behind {last}");
                    (heard, last) = (heard + 1, number);
                }
                Heard::Gap(n) => missed += n.expect("an exact count"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard + missed, count + 1, "{heard} heard, {missed} missed");
        assert!(missed > 0);
    }

    /// Without a token 401, with one for another path 403, with a good one an answer.
    pub fn auth_refused(way: Way) {
        let server = guarded(way);
        let elsewhere = keys().hs256(&claims(json!({ "subscribe": ["/other"] })));
        let forged = format!("{}x", keys().hs256(&claims(json!({}))));
        for (headers, status) in [(String::new(), 401), (bearer(&forged), 401), (bearer(&elsewhere), 403)] {
            let refused = server.try_read("", &headers).err().expect("refused");
            assert_eq!(refused.status, status, "{refused:?}");
            assert!(!String::from_utf8_lossy(&refused.body).contains("/events"), "{refused:?}");
        }
        let good = bearer(&keys().hs256(&claims(json!({}))));
        let mut reader = server.try_read("", &good).expect("accepted");
        server.publish("secret");
        assert_eq!(reader.text(), "secret");
    }

    /// The connection ends with its token.
    pub fn auth_expiry(way: Way) {
        let server = guarded(way);
        let token = keys().hs256(&claims(json!({ "exp": now() + 3 })));
        let mut reader = server.try_read("", &bearer(&token)).expect("accepted");
        server.publish("in time");
        assert_eq!(reader.text(), "in time");
        if way.is_poll() {
            eventually("the token's end", || (server.try_read("", &bearer(&token)).err()?.status == 401).then_some(()));
            assert_eq!(reader.end(), (vec![], End::Refused(401)));
        } else {
            let end = if way.is_websocket() { End::Closed(1008, "token expired".into()) } else { End::Complete };
            assert_eq!(reader.end(), (vec![], end));
        }
    }

    /// Who is connected when the process is told to end hears that, and when to come back.
    pub fn drain(way: Way) {
        let mut server = Server::new(way, "");
        let mut reader = server.read();
        server.publish("last");
        assert_eq!(reader.text(), "last");
        server.running.signal("TERM");
        let (before, end) = reader.end();
        assert_eq!(before, []);
        match way.0 {
            Protocol::WebSocket | Protocol::Link => assert_eq!(end, End::Closed(1012, "restart".into())),
            Protocol::Sse | Protocol::Ndjson => assert_eq!(end, End::Complete),
            Protocol::Poll => assert!(matches!(end, End::Refused(_)), "{end:?}"),
        }
        assert_eq!(reader.said_retry(), way.0 == Protocol::Sse);
        assert_eq!(server.running.wait(), 143);
    }

    /// The largest payload that is allowed by itself, and one more byte.
    pub fn one_mebibyte(way: Way) {
        let server = Server::new(way, "");
        let mut reader = server.read();
        let large = "é".repeat(1 << 19);
        server.publish(&large);
        server.publish("behind");
        assert!(reader.text() == large);
        assert_eq!(reader.text(), "behind");
        assert!(server.read_from("?since=oldest").text() == large, "replayed");
        let refused = raw::post(&server.url, large + "x");
        assert_eq!(refused.status, 413, "{}", refused.text());
    }

    /// Bytes and text of every kind arrive as they were said.
    pub fn payloads(way: Way) {
        let server = Server::new(way, "");
        let live = server.read();
        PAYLOADS.iter().for_each(|payload| drop(server.publish(payload)));
        let replayed = server.read_from("?since=oldest");
        for mut reader in [live, replayed] {
            for payload in PAYLOADS {
                let expected = match std::str::from_utf8(payload) {
                    Ok(text) => Payload::Text(text.into()),
                    Err(_) => Payload::Binary(payload.to_vec()),
                };
                assert_eq!(reader.payload(), expected, "{:?}", String::from_utf8_lossy(payload));
            }
        }
    }

    /// All of it, then the end as the protocol says it; who comes back behind it is not kept.
    pub fn end_of_stream(way: Way) {
        let line = Wsevent::line("--produce - --wait-readers 1").input("1\n2\n3\n");
        let server = Server::of(way, line);
        let mut reader = server.read_from("?since=oldest");
        assert_eq!(reader.texts(3), ["1", "2", "3"]);
        if way.is_poll() {
            return;
        }
        let end = if way.is_websocket() { End::Closed(1000, String::new()) } else { End::Complete };
        assert_eq!(reader.end(), (vec![], end));
    }
}

/// What somebody has got wrong somewhere.
const PAYLOADS: &[&[u8]] = &[
    b"",
    b" leading and trailing ",
    b": a comment?",
    b"data: a field?",
    b"two\nlines",
    b"\nline feeds\n\n",
    b"a carriage\rreturn",
    b"both\r\nof them\r\n",
    b"a NUL \0 inside",
    "\u{feff}a byte order mark".as_bytes(),
    "e\u{301}é ß Ω 漢字 👩‍👩‍👧 \u{10ffff}".as_bytes(),
    "\u{2028}separators\u{2029}\u{85}".as_bytes(),
    "\u{fffe}\u{ffff} no characters".as_bytes(),
    br#"{"json": [1, 2.0, "\u00e9\n"], "spaces":  true}"#,
    b"{not json",
    b"null",
    b"\xff\x00\x01\xfe",
    b"an overlong \xc0\xaf",
    b"a surrogate \xed\xa0\x80",
    b"cut short \xf0\x9f\x98",
    b"beyond the last \xf4\x90\x80\x80",
    b"a lone continuation \x80",
];
