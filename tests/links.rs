//! The rules of a link, one by one, as they are seen on the wire.
//!
//! Each test is named after the rule that it holds the program to. Readers and upstreams are made of bytes
//! ([`link`]); the reader checks every ping it hears.

mod common;
mod link;

use common::{
    Running, Wsevent, eventually,
    raw::{self, BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Raw, TEXT},
};
use link::{Id, Link, Said, Sse, Upstream, now_ms, origin};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A hub: peers publish, nobody is waited for.
fn hub(options: &str) -> Running {
    Wsevent::line(&format!("--no-produce {options}")).serve()
}

/// Publishes each text as one event, in order, in one request.
fn publish(url: &str, texts: impl IntoIterator<Item = String>) -> serde_json::Value {
    let body = texts.into_iter().collect::<Vec<_>>().join("\n");
    let answer = raw::request("POST", url, "Content-Type: application/x-ndjson\r\n", body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn publish_numbers(url: &str, numbers: impl IntoIterator<Item = u64>) -> Id {
    let answer = publish(url, numbers.into_iter().map(|n| n.to_string()));
    Id::read(answer["id"].as_str().expect("an id"))
}

/// A hop: the same events at another URL.
fn hop(upstream: &str, options: &str) -> Running {
    Wsevent::new(["--consume", upstream]).args(options.split_whitespace()).serve()
}

fn status(server: &Running) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_slice(&server.own("status").body).expect("JSON");
    status["topics"][0].clone()
}

fn await_events(server: &Running, n: u64) {
    eventually("the events", || (status(server)["events"].as_u64()? >= n).then_some(()));
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|n| n.to_string()).collect()
}

/// Two instances that know each other's address before they start.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

// --- A. Names of events ---------------------------------------------------------------------------------------------

#[test]
fn links_01_every_life_of_an_origin_has_an_epoch_of_its_own() {
    let mut hub = hub("");
    let first = publish_numbers(hub.url(), 1..=3);
    assert_eq!(first.n, 3);
    hub.restart();
    let second = publish_numbers(hub.url(), 1..=1);
    assert_ne!(first.epoch, second.epoch);
    assert!(first.epoch < second.epoch, "and sorts by its birth");
}

#[test]
fn links_01_ids_are_ours_only_when_the_answer_says_so() {
    let (upstream, looks_like_ours) = (Upstream::new(), origin().at(700));
    let hop = hop(&upstream.ws_url(), "--history 100");
    let mut served = upstream.plain();
    served.position(&looks_like_ours, 0);
    served.texts(1..=2);
    await_events(&hop, 2);
    let mut link = Link::since(hop.url(), "oldest");
    let events = link.events(2);
    assert_ne!(events[0].0.epoch, looks_like_ours.epoch, "numbered here");
    assert_eq!((events[0].0.n, events[1].0.n), (1, 2));
}

#[test]
fn links_01_another_servers_sse_ids_are_opaque_and_sent_back() {
    let (upstream, shaped) = (Upstream::new(), origin().at(5));
    let hop = hop(&upstream.sse_url(), "");
    let mut served = upstream.sse("");
    served.raw.send(format!("id: {shaped}\ndata: one\n\nid: two/2\ndata: two\n\n"));
    await_events(&hop, 2);
    drop(served);
    let served = upstream.sse("");
    assert_eq!(served.header("last-event-id").as_deref(), Some("two/2"), "{}", served.asked);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.position().n, 1);
    let events = link.events(2);
    assert_ne!(events[0].0.epoch, shaped.epoch);
    assert_eq!(events.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn links_02_one_link_upstream_keeps_the_ids() {
    let hub = hub("");
    let last = publish_numbers(hub.url(), 1..=5);
    let first = hop(&hub.ws_url(), "");
    let second = hop(&first.ws_url(), "");
    await_events(&second, 5);
    let mut link = Link::since(second.url(), "oldest");
    let events = link.events(5);
    assert_eq!(
        events.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
        (1..=5).map(|n| last.at(n)).collect::<Vec<_>>()
    );
}

#[test]
fn links_02_a_hop_that_may_be_published_to_numbers_itself() {
    let hub = hub("");
    let hop = hop(&hub.ws_url(), "--accept-publish");
    let mut link = Link::open(hop.url());
    eventually("the hop to be connected", || (hop.own("readyz").status == 200).then_some(()));
    let theirs = publish_numbers(hub.url(), [1]);
    let (ours, text) = link.event();
    assert_eq!(text, "1");
    assert_ne!(ours.epoch, theirs.epoch);
    publish_numbers(hop.url(), [2]);
    assert_eq!(link.event(), (ours.next(), "2".into()));
}

#[test]
fn links_02_a_merge_of_two_copies_has_every_event_once() {
    let hub = hub("");
    let (left, right) = (hop(&hub.ws_url(), ""), hop(&hub.ws_url(), ""));
    publish_numbers(hub.url(), 1..=3000);
    await_events(&left, 3000);
    await_events(&right, 3000);
    let merge = Wsevent::new(["--consume", &left.ws_url(), "--consume", &right.ws_url(), "--since", "oldest"]).serve();
    await_events(&merge, 3000);
    // Live, too: and not in step.
    for block in 0..30 {
        publish_numbers(hub.url(), 3001 + block * 100..=3100 + block * 100);
    }
    let mut link = Link::since(merge.url(), "oldest");
    assert_eq!(link.texts(6000), numbers(1..=6000));
    publish_numbers(hub.url(), [6001]);
    assert_eq!(link.event().1, "6001", "and nothing twice behind them");
}

#[test]
fn links_02_copies_that_replay_later_are_still_copies() {
    let (left, right, e) = (Upstream::new(), Upstream::new(), origin());
    let merge = Wsevent::new(["--consume", &left.ws_url(), "--consume", &right.ws_url()]).serve();
    let mut one = left.link(&e.at(1), &e.at(101));
    let mut two = right.link(&e.at(1), &e.at(101));
    one.position(&e.at(1), 0);
    one.texts(1..=100);
    await_events(&merge, 100);
    // The second copy tells the same, in two pieces.
    two.position(&e.at(1), 0);
    two.texts(1..=50);
    two.position(&e.at(51), 50);
    two.texts(51..=100);
    two.position(&e.at(101), 100);
    two.hears_ping_answered();
    one.texts([101]);
    let mut link = Link::since(merge.url(), "oldest");
    assert_eq!(link.texts(101), numbers(1..=101));
}

#[test]
fn links_02_an_upstream_without_ids_is_not_asked_for_its_past_again() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.plain();
    assert_eq!(served.since().as_deref(), Some("oldest"), "a mirror begins at the beginning");
    served.texts(1..=3);
    await_events(&hop, 3);
    drop(served);
    let served = upstream.plain();
    assert_eq!(served.since(), None, "what it has would come as new events");
}

#[test]
fn links_02_a_keeper_whose_upstream_loses_its_ids_starts_an_epoch_behind_a_gap() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(3));
    served.position(&e.at(1), 0);
    served.texts(1..=2);
    await_events(&hop, 2);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.events(2)[1].0, e.at(2));
    drop(served);
    let mut served = upstream.plain();
    served.texts(7..=8);
    let (_, to, count) = link.gap();
    assert_eq!(count, None, "nobody knows what came between");
    assert_ne!(to.epoch, e.epoch);
    let events = link.events(2);
    assert_eq!(events[0].0.epoch, to.epoch);
    assert_eq!(events.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["7", "8"]);
}

#[test]
fn links_03_parts_cross_a_link_whatever_is_read_together() {
    let hub = hub("");
    let split = hop(&hub.ws_url(), "--map .[]");
    let below = hop(&split.ws_url(), "");
    eventually("the hops to be connected", || (below.own("readyz").status == 200).then_some(()));
    let mut link = Link::open(below.url());
    link.position();
    for n in 1..=200 {
        publish(hub.url(), [format!("[{n}1,{n}2]"), format!("[{n}3]"), "[]".into(), format!("[{n}4]")]);
    }
    let heard: Vec<_> = link.events(800);
    let texts: Vec<String> = (1..=200).flat_map(|n| (1..=4).map(move |k| format!("{n}{k}"))).collect();
    assert_eq!(heard.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), texts);
    let ids: Vec<(u64, u64)> = heard.iter().take(4).map(|(id, _)| (id.n, id.k)).collect();
    assert_eq!(ids, [(1, 1), (1, 2), (2, 0), (4, 0)]);
    let mut again = Link::since(below.url(), &heard[0].0);
    assert_eq!(again.event(), heard[1], "a part is resumed at the next part");
}

// --- B. Where a reader stands ---------------------------------------------------------------------------------------

#[test]
fn links_06_a_position_is_exclusive_and_holes_are_valid() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=10);
    let filter = hop(&hub.ws_url(), "--filter .%3==0");
    await_events(&filter, 3);
    for (since, first) in [(0, 3), (1, 3), (2, 3), (3, 6), (4, 6), (8, 9)] {
        assert_eq!(Link::since(filter.url(), e.at(since)).event(), (e.at(first), first.to_string()), "after {since}");
    }
    assert_eq!(Link::since(hub.url(), e.at(0)).texts(10), numbers(1..=10));
    assert_eq!(Link::since(hub.url(), e.at(9)).event().0, e.at(10));
}

#[test]
fn links_06_a_position_ahead_is_waited_for() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=5);
    let (mut link, mut sse) = (Link::since(hub.url(), e.at(8)), Sse::after(hub.url(), &e.at(8)));
    publish_numbers(hub.url(), 6..=12);
    assert_eq!(link.texts(4), numbers(9..=12));
    assert_eq!(sse.texts(4), numbers(9..=12));
}

#[test]
fn links_06_a_position_that_is_gone_is_told_with_its_count() {
    let hub = hub("--history 10");
    let e = publish_numbers(hub.url(), 1..=5);
    for n in 6..=40 {
        publish_numbers(hub.url(), [n]);
    }
    let mut link = Link::since(hub.url(), e.at(3));
    assert_eq!(link.gap(), (e.at(4), e.at(30), Some(27)));
    assert_eq!(link.texts(10), numbers(31..=40));
    let mut sse = Sse::after(hub.url(), &e.at(3));
    let gap = sse.block().expect("a gap");
    assert_eq!((gap.kind.as_deref(), gap.id), (Some("gap"), Some(e.at(30))));
    let data: serde_json::Value = serde_json::from_str(&gap.data.expect("data")).expect("JSON");
    assert_eq!(data, serde_json::json!({ "from": e.at(4).to_string(), "to": e.at(30).to_string(), "count": 27 }));
    assert_eq!(sse.texts(10), numbers(31..=40));
}

#[test]
fn links_06_while_catching_up_an_unknown_position_is_never_a_gap() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "");
    let e = origin();
    // The answer is held back: nothing is known yet.
    let mut served = upstream.asked();
    let history = raw::get(&format!("{}?since={}", hop.url(), e.at(7)));
    assert_eq!(history.status, 503, "{}", history.text());
    assert!(history.header("retry-after").is_some());
    let mut sse = Sse::after(hop.url(), &e.at(7));
    served.upgrade(&format!(
        "Sec-WebSocket-Protocol: wsevent.v1\r\nWsevent: v1\r\nWsevent-Window: {} {}\r\n",
        e.at(5),
        e.at(10)
    ));
    served.position(&e.at(5), 0);
    served.texts(5..=6);
    let mut link = Link::since(hop.url(), e.at(7));
    served.texts(7..=9);
    assert_eq!(sse.texts(2), numbers(8..=9));
    assert_eq!(link.texts(2), numbers(8..=9));
}

#[test]
fn links_06_an_unknown_position_waits_only_so_long() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "");
    let _served = upstream.asked();
    let (mut plain, _) = Raw::websocket_with(&format!("{}?since={}", hop.url(), origin().at(7)), "");
    let close = plain.read_close().expect("a close");
    assert_eq!(close.close_code(), 1013);
    assert!(String::from_utf8_lossy(&close.payload[2..]).starts_with("retry "));
    let refused = Link::try_open(hop.url(), "").err().expect("no window, no answer");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn links_06_a_page_behind_an_id_that_is_ahead_does_not_go_back() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=5);
    let page = raw::get(&format!("{}?after={}", hub.url(), e.at(9)));
    assert_eq!(page.text(), "[]");
    assert_eq!(page.header("wsevent-position"), Some(e.at(9).to_string().as_str()));
}

#[test]
fn links_07_every_stream_gives_its_position_at_once() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=5);
    assert_eq!(Link::open(hub.url()).position(), e.at(6));
    assert_eq!(Link::since(hub.url(), "last:2").position(), e.at(4));
    assert_eq!(Link::since(hub.url(), "oldest").position(), e.at(1));
    let block = Sse::open(hub.url()).block().expect("a block");
    assert_eq!((block.id, block.kind, block.data), (Some(e.at(5)), None, None));
    let empty = self::hub("");
    assert_eq!(Link::open(empty.url()).position().n, 1, "also where there is nothing yet");
    assert_eq!(Sse::open(empty.url()).block().and_then(|block| block.id).map(|id| id.n), Some(0));
}

#[test]
fn links_07_a_relative_start_is_resolved_once_by_the_first_server() {
    for since in ["", "--since now", "--since last:0", "--since 1ms"] {
        let (upstream, e) = (Upstream::new(), origin());
        let line = format!("--consume {} --no-serve {since}", upstream.ws_url());
        let consumer = Wsevent::line(&line).start();
        let mut served = upstream.link(&e.at(1), &e.at(6));
        served.position(&e.at(6), 0);
        served.hears_ping_answered();
        // It has heard where *now* is, and loses the connection before any event.
        drop(served);
        let mut served = upstream.link(&e.at(1), &e.at(9));
        assert_eq!(served.since(), Some(e.at(5).to_string()), "{since:?}");
        served.position(&e.at(6), 0);
        served.texts(6..=8);
        assert_eq!(consumer.lines(3), numbers(6..=8));
    }
}

#[test]
fn links_07_a_keep_alive_carries_the_position_past_filtered_events() {
    let hub = hub("");
    let filter = hop(&hub.ws_url(), "--filter .==1 --ping-interval 1s --keep-alive 1s");
    let e = publish_numbers(hub.url(), [1]);
    await_events(&filter, 1);
    let (mut link, mut sse) = (Link::since(filter.url(), "oldest"), Sse::open(filter.url()));
    assert_eq!(link.event().1, "1");
    publish_numbers(hub.url(), 2..=50);
    eventually("the link's keep-alive", || (link.position() == e.at(51)).then_some(()));
    eventually("the event stream's keep-alive", || (sse.block()?.id == Some(e.at(50))).then_some(()));
}

#[test]
fn links_08_the_window_is_the_upstreams_while_catching_up() {
    let (upstream, e) = (Upstream::new(), origin());
    let first = hop(&upstream.ws_url(), "");
    let second = hop(&first.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(11));
    served.position(&e.at(1), 0);
    served.texts(1..=4);
    for hop in [&first, &second] {
        let mut now = Link::open(hop.url());
        assert_eq!(now.window(), (e.at(1), e.at(11)), "passed on");
        let mut sse = Sse::open(hop.url());
        if hop.port() == first.port() {
            served.texts(5..=8);
        } else {
            served.texts(9..=12);
        }
        // Both wait: *now* is the upstream's `next` when they came.
        if hop.port() == second.port() {
            assert_eq!(now.event(), (e.at(11), "11".into()));
            assert_eq!(sse.event(), Some((e.at(11), "11".into())));
        }
    }
}

#[test]
fn links_08_now_on_an_sse_hop_is_the_upstreams_next_too() {
    let (upstream, e) = (Upstream::new(), origin());
    let first = hop(&upstream.ws_url(), "");
    let sse_url = first.url().replacen("http", "sse+http", 1);
    let second = hop(&sse_url, "");
    let served = upstream.asked();
    let mut served = served;
    served.upgrade(&format!(
        "Sec-WebSocket-Protocol: wsevent.v1\r\nWsevent: v1\r\nWsevent-Window: {} {}\r\n",
        e.at(1),
        e.at(6)
    ));
    eventually("the hops to be connected", || (second.own("readyz").status == 200).then_some(()));
    let mut sse = Sse::open(second.url());
    served.position(&e.at(1), 0);
    served.texts(1..=6);
    assert_eq!(sse.event(), Some((e.at(6), "6".into())), "1 to 5 were there before it came");
}

#[test]
fn links_08_a_forwarder_mirrors_its_upstreams_window() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=100);
    let mut first = hop(&hub.ws_url(), "");
    let mut second = hop(&first.ws_url(), "");
    for _ in 0..3 {
        assert_eq!(Link::since(second.url(), e.at(40)).texts(60), numbers(41..=100));
        first.restart();
        second.restart();
    }
}

// --- C. The pings of a link -----------------------------------------------------------------------------------------

#[test]
fn links_10_attributes_are_announced_and_not_counted() {
    let upstream = Upstream::new();
    let first = hop(&upstream.sse_url(), "");
    let second = hop(&first.ws_url(), "");
    let mut served = upstream.sse("");
    served.raw.send("data: plain\n\nevent: alert\ndata: loud\n\nevent: alert\ndata: louder\n\ndata: quiet\n\n");
    await_events(&second, 4);
    for hop in [&first, &second] {
        let mut link = Link::since(hop.url(), "oldest");
        let kinds: Vec<_> = (0..4)
            .map(|_| match link.news() {
                Said::Event { text, attrs, .. } => (text, attrs.map(|attrs| attrs.contains("\"type\":\"alert\""))),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [("plain", None), ("loud", Some(true)), ("louder", Some(true)), ("quiet", None)];
        assert_eq!(kinds, expected.map(|(text, kind)| (text.to_owned(), kind)));
        let mut sse = Sse::open(&format!("{}?since=oldest", hop.url()));
        let blocks: Vec<_> = std::iter::from_fn(|| sse.block()).filter(|b| b.data.is_some()).take(4).collect();
        assert_eq!(blocks[1].kind.as_deref(), Some("alert"));
    }
}

#[test]
fn links_11_a_position_follows_every_256_kib() {
    let hub = hub("");
    let mut link = Link::open(hub.url());
    link.position();
    let line = "x".repeat(1000);
    let url = hub.url().to_owned();
    let publisher = thread::spawn(move || {
        for _ in 0..20 {
            publish(&url, (0..100).map(|_| line.clone()));
        }
    });
    let (mut since, mut bytes) = (0, 0);
    while bytes < 2_000_000 {
        match link.hear() {
            Said::Position { .. } => since = 0,
            Said::Event { text, .. } => {
                since += text.len();
                bytes += text.len();
                // What is joined into one write may go beyond by as much again.
                assert!(since <= 600 << 10, "{since} bytes without a position");
            }
            other => panic!("{other:?}"),
        }
    }
    publisher.join().expect("no panic");
}

#[test]
fn links_11_what_is_not_acknowledged_is_asked_about_within_a_second_or_so() {
    let hub = hub("");
    let mut link = Link::open(hub.url());
    link.position();
    publish_numbers(hub.url(), 1..=3);
    link.texts(3);
    assert_eq!(link.position().n, 4, "long before the ping interval");
}

#[test]
fn links_11_a_position_stands_before_every_close() {
    let mut hub = hub("");
    let mut link = Link::open(hub.url());
    link.position();
    publish_numbers(hub.url(), 1..=3);
    link.texts(3);
    hub.signal("TERM");
    let (_, code, _, told) = link.close();
    assert_eq!((code, told), (1012, true));
    assert_eq!(hub.wait(), 143);
}

#[test]
fn links_11_a_count_that_does_not_fit_is_a_protocol_error_and_the_reader_resumes() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.texts(1..=5);
    served.position(&e.at(6), 5);
    // A proxy swallowed one.
    served.texts(7..=9);
    served.position(&e.at(10), 9);
    assert_eq!(served.hears_close(), Some(1002));
    let mut served = upstream.link(&e.at(1), &e.at(10));
    assert_eq!(served.since(), Some(e.at(5).to_string()), "behind the last one that a position confirmed");
    served.position(&e.at(6), 0);
    served.texts(6..=9);
    served.position(&e.at(10), 4);
    served.hears_ping_answered();
    drop(served);
    let _ = hop;
}

#[test]
fn links_11_an_id_that_goes_back_is_a_protocol_error() {
    let (upstream, e) = (Upstream::new(), origin());
    let _hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(6));
    served.position(&e.at(1), 0);
    served.texts(1..=5);
    served.position(&e.at(3), 5);
    assert_eq!(served.hears_close(), Some(1002));
}

#[test]
fn links_11_a_link_whose_first_message_has_no_position_is_an_upstream_without_ids() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.texts(1..=3);
    await_events(&hop, 3);
    hop.said("no position before the first message");
    let mut link = Link::since(hop.url(), "oldest");
    let mut texts = Vec::new();
    while texts.len() < 3 {
        match link.news() {
            Said::Event { id, text, .. } => {
                assert_ne!(id.epoch, e.epoch);
                texts.push(text);
            }
            Said::Gap { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(texts, numbers(1..=3));
}

#[test]
fn links_12_fragments_and_control_frames_between_them_make_one_event() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.text("one");
    let part = |opcode, fin, text: &str| Frame { fin, ..Frame::from_server(opcode, text) };
    served.raw.send_frame(&part(TEXT, false, "t"));
    served.raw.send_frame(&Frame::from_server(PING, "any"));
    served.raw.send_frame(&part(CONTINUATION, false, "w"));
    served.raw.send_frame(&Frame::from_server(PONG, ""));
    served.raw.send_frame(&part(CONTINUATION, true, "o"));
    served.raw.send_frame(&Frame::from_server(BINARY, vec![0xff, 0]));
    served.position(&e.at(4), 3);
    served.text("four");
    await_events(&hop, 4);
    let mut link = Link::since(hop.url(), "oldest");
    let events = link.events(4);
    assert_eq!(events[1], (e.at(2), "two".into()));
    assert_eq!(events[3], (e.at(4), "four".into()));
}

#[test]
fn links_12_a_run_crosses_a_hop_byte_for_byte() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    let mut link = Link::open(hop.url());
    let payloads = ["", "a", "ü\u{1F600}", &"x".repeat(125), &"y".repeat(126), &"z".repeat(65535), &"w".repeat(65536)];
    let frames: Vec<u8> = payloads.iter().flat_map(|text| Frame::from_server(TEXT, *text).to_bytes()).collect();
    served.position(&e.at(1), 0);
    served.raw.send(&frames);
    let mut heard = Vec::new();
    while heard.len() < frames.len() {
        let frame = link.raw.read_frame().expect("a frame");
        match frame.opcode {
            PING => link.raw.send_frame(&Frame::new(PONG, frame.payload)),
            _ => heard.extend(frame.to_bytes()),
        }
    }
    assert_eq!(heard, frames);
}

#[test]
fn links_12_plain_readers_hear_no_positions_between_events() {
    let hub = hub("");
    let mut plain = Raw::websocket(hub.url());
    let line = "x".repeat(1000);
    for _ in 0..10 {
        publish(hub.url(), (0..100).map(|_| line.clone()));
    }
    for _ in 0..1000 {
        let frame = plain.read_frame().expect("a frame");
        assert_eq!(frame.opcode, TEXT, "{:?}", frame.text());
    }
}

#[test]
fn links_13_a_pong_acknowledges_everything_before_it() {
    // A pinned plain reader that answers only the last of many positions.
    let mut producer = Wsevent::line("--produce - --history-bytes 8MiB").piped().serve();
    let mut plain = Raw::websocket(producer.url());
    let line = format!("{}\n", "x".repeat(1023));
    for _ in 0..2048 {
        producer.write(&line);
    }
    producer.close_stdin();
    let (mut events, mut last) = (0, None);
    while events < 2048 || !matches!(&last, Some(frame) if is_position(frame, 2048)) {
        let frame = plain.read_frame().expect("a frame");
        match frame.opcode {
            TEXT => events += 1,
            PING => last = Some(frame),
            CLOSE => panic!("closed before everything was acknowledged"),
            _ => {}
        }
    }
    assert_eq!(producer.ended(), None, "it waits for its pinned reader");
    plain.send_frame(&Frame::new(PONG, last.expect("a position").payload));
    assert_eq!(plain.read_close().map(|close| close.close_code()), Some(1000));
    plain.send_frame(&Frame::close(1000, ""));
    assert_eq!(producer.wait(), 0);
}

/// Whether a ping is `p` behind so many messages.
fn is_position(frame: &Frame, n: u64) -> bool {
    frame.text().starts_with("p ") && frame.text().ends_with(&format!(" {n}"))
}

#[test]
fn links_13_a_pong_for_what_was_not_sent_acknowledges_nothing_more() {
    let mut producer = Wsevent::line("--produce - --pin-grace 1h").piped().serve();
    let mut plain = Raw::websocket(producer.url());
    let e = origin();
    plain.send_frame(&Frame::new(PONG, format!("p {} 1 {}", e.at(1), u64::MAX)));
    producer.write("one\ntwo\n");
    producer.close_stdin();
    assert_eq!(plain.read_message().map(|event| event.text()), Some("one".into()));
    // Dead: what it did not acknowledge is kept for its return.
    drop(plain);
    let mut again = Raw::websocket(&format!("{}?since=oldest", producer.url()));
    assert_eq!(again.read_message().map(|event| event.text()), Some("one".into()));
    assert_eq!(again.read_message().map(|event| event.text()), Some("two".into()));
}

#[test]
fn links_13_any_pong_is_a_sign_of_life() {
    let hub = hub("--ping-interval 1s");
    let mut plain = Raw::websocket(hub.url());
    for n in 0..8 {
        let frame = plain.read_frame().expect("still connected");
        assert_eq!(frame.opcode, PING, "{n}");
        plain.send_frame(&Frame::new(PONG, "not what was asked"));
    }
}

#[test]
fn links_14_a_links_data_messages_are_events_and_nothing_it_says_is_published() {
    let hub = hub("");
    let mut link = Link::open(hub.url());
    link.position();
    link.say(TEXT, "do not publish me");
    link.say(PING, "hello");
    publish_numbers(hub.url(), [1]);
    assert_eq!(link.event().1, "1");
    assert_eq!(status(&hub)["events"], 1);
}

// --- D. Loss is an entry --------------------------------------------------------------------------------------------

#[test]
fn links_15_a_gap_from_upstream_is_told_to_every_reader_in_its_form() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let below = self::hop(&hop.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.texts(1..=3);
    await_events(&below, 3);
    let mut live: Vec<Link> = [&hop, &below].map(|hop| Link::since(hop.url(), e.at(3))).into();
    let mut plain = Raw::websocket(hop.url());
    for link in &mut live {
        assert_eq!(link.position(), e.at(4));
    }
    served.ping(format!("g {} {} 4", e.at(4), e.at(7)));
    served.position(&e.at(8), 3);
    served.texts(8..=9);
    for link in &mut live {
        assert_eq!(link.gap(), (e.at(4), e.at(7), Some(4)));
        assert_eq!(link.events(2), [(e.at(8), "8".into()), (e.at(9), "9".into())]);
    }
    assert_eq!(plain.read_message().map(|event| event.text()), Some("8".into()));
    for hop in [&hop, &below] {
        let mut late = Link::since(hop.url(), e.at(2));
        assert_eq!(late.event().0, e.at(3));
        assert_eq!(late.gap(), (e.at(4), e.at(7), Some(4)));
        assert_eq!(late.event(), (e.at(8), "8".into()));
        let mut sse = Sse::after(hop.url(), &e.at(3));
        let gap = std::iter::from_fn(|| sse.block()).find(|block| block.data.is_some()).expect("a gap");
        assert_eq!((gap.kind.as_deref(), gap.id), (Some("gap"), Some(e.at(7))));
        assert_eq!(sse.texts(2), numbers(8..=9));
        let page = raw::get(&format!("{}?since={}", hop.url(), e.at(3)));
        assert_eq!(page.text(), "[8,9]");
        let told: serde_json::Value = serde_json::from_str(page.header("wsevent-gap").expect("a gap")).expect("JSON");
        assert_eq!(told["count"], 4);
        let ndjson = ndjson_after(hop, &e.at(3), 3);
        assert_eq!(ndjson[0]["gap"]["count"], 4);
        assert_eq!(ndjson[1]["data"], "8");
    }
}

fn ndjson_after(server: &Running, at: &Id, lines: usize) -> Vec<serde_json::Value> {
    let (host, port, path) = raw::split_url(server.url());
    let mut raw = Raw::connect(&host, port);
    raw.send(format!("GET {path}?since={at} HTTP/1.0\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n"));
    assert_eq!(raw.read_head().status, 200);
    (0..lines).map(|_| serde_json::from_str(&raw.read_until("\n")).expect("JSON")).collect()
}

#[test]
fn links_15_a_plain_reader_below_a_gap_keeps_its_ids_through_three_hops() {
    let hub = hub("");
    let narrow = hop(&hub.ws_url(), "--max-message 100");
    let below = hop(&narrow.ws_url(), "");
    eventually("the hops to be connected", || (below.own("readyz").status == 200).then_some(()));
    let mut link = Link::open(below.url());
    link.position();
    let e = publish_numbers(hub.url(), [1]);
    publish(hub.url(), ["x".repeat(200)]);
    publish_numbers(hub.url(), [3]);
    assert_eq!(link.event(), (e.clone(), "1".into()));
    assert_eq!(link.gap(), (e.at(2), e.at(2), Some(1)));
    assert_eq!(link.event(), (e.at(3), "3".into()), "the ids go on as if nothing had happened");
}

#[test]
fn links_16_a_plain_reader_behind_the_window_is_told_where_it_begins() {
    let hub = hub("--history 10");
    let e = publish_numbers(hub.url(), [1]);
    for n in 2..=40 {
        publish_numbers(hub.url(), [n]);
    }
    let mut plain = Raw::websocket(&format!("{}?since={}", hub.url(), e.at(3)));
    let close = plain.read_close().expect("a close");
    assert_eq!(close.close_code(), 1013);
    assert_eq!(String::from_utf8_lossy(&close.payload[2..]), format!("gone {}", e.at(31)));
}

#[test]
fn links_16_a_slow_reader_is_closed_with_its_place() {
    let hub = hub("--history-bytes 256KiB");
    let (mut plain, mut link) = (Raw::websocket(hub.url()), Link::open(hub.url()));
    let line = "x".repeat(10_000);
    // Neither reads; kernels hold a few megabytes each.
    for _ in 0..40 {
        publish(hub.url(), (0..100).map(|_| line.clone()));
    }
    eventually("both to be given up", || (status(&hub)["readers"] == 0).then_some(()));
    let mut events = 0u64;
    let close = loop {
        let frame = plain.read_frame().expect("a frame");
        match frame.opcode {
            TEXT => events += 1,
            CLOSE => break frame,
            _ => {}
        }
    };
    assert_eq!(close.close_code(), 1013);
    let reason = String::from_utf8_lossy(&close.payload[2..]).into_owned();
    let id = Id::read(reason.strip_prefix("slow ").expect("the word"));
    assert_eq!(id.n, events, "exactly what it was sent");
    let (before, code, reason, _) = link.close();
    let last = before.iter().rev().find_map(|said| match said {
        Said::Event { id, .. } => Some(id.clone()),
        _ => None,
    });
    assert_eq!((code, reason), (1013, format!("slow {}", last.unwrap_or(id.at(0)))));
}

#[test]
fn links_17_an_event_that_is_too_big_for_a_hop_becomes_a_gap_there() {
    let hub = hub("");
    let narrow = hop(&hub.ws_url(), "--max-message 1000");
    let e = publish_numbers(hub.url(), 1..=2);
    publish(hub.url(), ["x".repeat(5000)]);
    publish(hub.url(), ["y".repeat(200_000)]);
    publish_numbers(hub.url(), 5..=6);
    await_events(&narrow, 4);
    let mut link = Link::since(narrow.url(), "oldest");
    assert_eq!(link.texts(2), numbers(1..=2));
    assert_eq!(link.gap(), (e.at(3), e.at(3), Some(1)));
    assert_eq!(link.gap(), (e.at(4), e.at(4), Some(1)));
    assert_eq!(link.events(2), [(e.at(5), "5".into()), (e.at(6), "6".into())]);
    assert_eq!(status(&narrow)["gaps"], 2);
    narrow.said("event refused");
    assert_eq!(link.answer.header("wsevent-max-message"), Some("1000"));
}

#[test]
fn links_17_invalid_utf8_from_a_link_costs_that_event_only() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    let frames = [
        Frame::from_server(TEXT, "one"),
        Frame::from_server(TEXT, vec![b'x', 0xff]),
        Frame::from_server(TEXT, "three"),
        Frame::from_server(PING, format!("p {} {} 3", e.at(4), now_ms())),
        Frame::from_server(TEXT, vec![0xc3]),
        Frame::from_server(PING, format!("p {} {} 4", e.at(5), now_ms())),
        Frame::from_server(TEXT, "five"),
    ];
    served.raw.send(frames.iter().flat_map(Frame::to_bytes).collect::<Vec<u8>>());
    await_events(&hop, 3);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.event(), (e.at(1), "one".into()));
    assert_eq!(link.gap(), (e.at(2), e.at(2), Some(1)));
    assert_eq!(link.event(), (e.at(3), "three".into()));
    assert_eq!(link.gap(), (e.at(4), e.at(4), Some(1)));
    assert_eq!(link.event(), (e.at(5), "five".into()));
}

#[test]
fn links_17_a_fragmented_event_that_is_too_big_is_refused_as_one() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "--max-message 100");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.text("one");
    let part = |opcode, fin, len| Frame { fin, ..Frame::from_server(opcode, "x".repeat(len)) };
    for frame in [part(TEXT, false, 60), part(CONTINUATION, false, 60), part(CONTINUATION, true, 10)] {
        served.raw.send_frame(&frame);
    }
    served.text("three");
    served.position(&e.at(4), 3);
    served.text("four");
    await_events(&hop, 3);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.event(), (e.at(1), "one".into()));
    assert_eq!(link.gap(), (e.at(2), e.at(2), Some(1)));
    assert_eq!(link.events(2), [(e.at(3), "three".into()), (e.at(4), "four".into())]);
}

#[test]
fn links_17_a_plain_upstreams_poison_is_a_gap_and_the_stream_goes_on() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "--max-message 100");
    let mut served = upstream.plain();
    served.text("one");
    served.text("x".repeat(200));
    assert_eq!(served.hears_close(), Some(1009));
    let mut served = upstream.plain();
    served.text("three");
    await_events(&hop, 2);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.event().1, "one");
    assert!(matches!(link.news(), Said::Gap { .. }));
    let next = std::iter::from_fn(|| Some(link.news())).find(|said| !matches!(said, Said::Gap { .. }));
    assert!(matches!(next, Some(Said::Event { text, .. }) if text == "three"));
}

#[test]
fn links_17_origins_validate_before_they_number() {
    let hub = hub("--max-message 100");
    let e = publish_numbers(hub.url(), [1]);
    assert_eq!(raw::post(hub.url(), "x".repeat(200)).status, 413);
    let mut publisher = Raw::websocket(hub.url());
    publisher.send_frame(&Frame::new(TEXT, "x".repeat(200)));
    assert_eq!(publisher.read_close().map(|close| close.close_code()), Some(1009));
    let mut publisher = Raw::websocket(hub.url());
    publisher.send_frame(&Frame::new(TEXT, vec![0xff]));
    assert_eq!(publisher.read_close().map(|close| close.close_code()), Some(1007));
    assert_eq!(publish_numbers(hub.url(), [2]), e.next());
    let lines = format!("one\n{}\nthree\n", "x".repeat(200));
    let producer = Wsevent::line("--produce - --max-message 100").input(lines).serve();
    let events = Link::since(producer.url(), "oldest").events(2);
    assert_eq!((events[0].0.n, events[1].0.n), (1, 2));
}

#[test]
fn links_18_the_end_is_said_before_the_close() {
    let mut producer = Wsevent::line("--produce - --slow-reader disconnect --keep-open=false").piped().serve();
    let hop = hop(&producer.ws_url(), "");
    let mut consumer = Wsevent::new(["--consume", &hop.ws_url(), "--no-serve", "--since", "oldest"]).start();
    let (mut direct, mut behind) = (Link::open(producer.url()), Link::open(hop.url()));
    let mut sse = Sse::open(hop.url());
    assert_eq!((direct.position().n, behind.position().n), (1, 1));
    producer.write("one\ntwo\n");
    assert_eq!(consumer.lines(2), ["one", "two"]);
    producer.close_stdin();
    for link in [&mut direct, &mut behind] {
        let (before, code, _, told) = link.close();
        assert!(matches!(&before[2], Said::End(last) if last.n == 2), "{before:?}");
        assert_eq!(code, 1000);
        let _ = told;
    }
    assert_eq!(consumer.wait(), 0);
    assert_eq!(producer.wait(), 0);
    // The forwarder stays, and a reader that has everything is told that this was all.
    let last = std::iter::from_fn(|| sse.block()).last().and_then(|block| block.id).expect("an id");
    assert_eq!(last.n, 2);
    let again = raw::request("GET", hop.url(), &format!("Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n"), b"");
    assert_eq!(again.status, 204);
    let (before, code, ..) = Link::since(hop.url(), last.at(1)).close();
    assert_eq!((before.len(), code), (2, 1000), "one event, the end: {before:?}");
}

#[test]
fn links_18_a_close_without_the_end_means_come_back() {
    let (upstream, e) = (Upstream::new(), origin());
    let mut consumer = Wsevent::new(["--consume", &upstream.ws_url(), "--no-serve"]).start();
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.texts([1]);
    served.close(1000, "");
    let mut served = upstream.link(&e.at(1), &e.at(2));
    assert_eq!(served.since(), Some(e.at(1).to_string()));
    served.position(&e.at(2), 0);
    served.texts([2]);
    served.ping(format!("e {}", e.at(2)));
    served.close(1000, "");
    assert_eq!(consumer.wait(), 0);
    assert_eq!(consumer.stdout(), "1\n2\n");
}

#[test]
fn links_18_a_merge_ends_with_its_last_upstream() {
    let (left, right, e, f) = (Upstream::new(), Upstream::new(), origin(), origin());
    let mut consumer = Wsevent::new(["--consume", &left.ws_url(), "--consume", &right.ws_url(), "--no-serve"]).start();
    let (mut one, mut two) = (left.link(&e.at(1), &e.at(1)), right.link(&f.at(1), &f.at(1)));
    one.position(&e.at(1), 0);
    two.position(&f.at(1), 0);
    one.text("left");
    one.ping(format!("e {}", e.at(1)));
    one.close(1000, "");
    assert_eq!(consumer.lines(1), ["left"]);
    one.hears_nothing_more();
    two.text("right");
    assert_eq!(consumer.lines(2), ["left", "right"]);
    two.ping(format!("e {}", f.at(1)));
    two.close(1000, "");
    assert_eq!(consumer.wait(), 0);
}

#[test]
fn links_18_a_reader_that_was_told_the_end_hears_what_follows_it() {
    let (upstream, e) = (Upstream::new(), origin());
    let hop = hop(&upstream.ws_url(), "--slow-reader block --retry-max 50ms");
    let mut served = upstream.link(&e.at(1), &e.at(1));
    served.position(&e.at(1), 0);
    served.texts([1]);
    let mut link = Link::since(hop.url(), "oldest");
    assert_eq!(link.texts(1), ["1"]);
    served.ping(format!("e {}", e.at(1)));
    served.close(1000, "");
    assert_eq!(link.news(), Said::End(e.at(1)));
    // It has not acknowledged that, so nobody closes it; and meanwhile the upstream comes back.
    for n in [2, 3] {
        let mut served = upstream.link(&e.at(1), &e.at(n));
        served.position(&e.at(n), 0);
        served.texts([n]);
        assert_eq!(link.event(), (e.at(n), n.to_string()));
        served.ping(format!("e {}", e.at(n)));
        served.close(1000, "");
        assert_eq!(link.news(), Said::End(e.at(n)));
    }
    link.keep(&e.at(3));
    assert_eq!(link.close().1, 1000);
}

#[test]
fn links_18_a_forwarder_outlives_its_producers() {
    let [port] = free_ports();
    let hop = Wsevent::line(&format!("--consume localhost:{port}/events --retry-max 50ms")).serve();
    let mut last: Option<Id> = None;
    for life in 1..=3 {
        let lines = format!("{life}a\n{life}b\n");
        let serve = format!("--produce - --serve localhost:{port}/events");
        let mut producer = Wsevent::line(&serve).input(lines).serve();
        await_events(&hop, 2 * life);
        let mut link = Link::since(hop.url(), last.as_ref().map_or("oldest".into(), ToString::to_string));
        let mut heard = Vec::new();
        loop {
            match link.news() {
                Said::Event { id, text, .. } => {
                    heard.push(text);
                    last = Some(id);
                }
                // A new life of the origin: what the old one may have held back is unknown.
                Said::Gap { count, .. } => assert_eq!(count, None),
                Said::End(_) => {
                    link.keep(last.as_ref().expect("an id"));
                    continue;
                }
                Said::Close(1000, _) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, [format!("{life}a"), format!("{life}b")]);
        assert_eq!(producer.wait(), 0);
    }
    let mut all = Link::since(hop.url(), "oldest");
    let mut texts = Vec::new();
    loop {
        match all.news() {
            Said::Event { text, .. } => texts.push(text),
            Said::Close(1000, _) => break,
            Said::End(id) => all.keep(&id),
            _ => {}
        }
    }
    assert_eq!(texts, ["1a", "1b", "2a", "2b", "3a", "3b"]);
}

// --- E. `block` -----------------------------------------------------------------------------------------------------

/// Writes numbered lines of this many bytes until it is stopped, or to the end.
fn feed(producer: &mut Running, lines: u64, width: usize) -> thread::JoinHandle<()> {
    use std::io::Write;
    let mut stdin = producer.take_stdin();
    thread::spawn(move || {
        for n in 1..=lines {
            if writeln!(stdin, "{n:0width$}").is_err() {
                return;
            }
        }
    })
}

#[test]
fn links_19_nothing_is_evicted_before_the_reader_said_k_and_the_publisher_waits() {
    let mut producer = Wsevent::line("--produce - --history 5 --history-bytes 64KiB").piped().serve();
    feed(&mut producer, 2000, 1000);
    let mut link = Link::open(producer.url());
    let mut heard = Vec::new();
    let mut next = link.position();
    // It reads and pongs, but says no `k`: what it holds up stays within the bytes, well above the count of 5.
    while heard.len() < 60 {
        let (id, text) = link.event();
        next = id.next();
        heard.push(text);
    }
    let held = status(&producer);
    assert!(held["held_bytes"].as_u64().expect("a number") <= 64 << 11, "{held}");
    assert!(held["held_events"].as_u64().expect("a number") >= 60, "{held}");
    while heard.len() < 2000 {
        link.keep(&next.before());
        match link.news() {
            Said::Event { id, text, .. } => {
                next = id.next();
                heard.push(text);
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<String> = (1..=2000).map(|n| format!("{n:01000}")).collect();
    assert!(heard == expected);
    link.keep(&next.before());
    assert_eq!(link.close().1, 1000);
    assert_eq!(producer.wait(), 0);
}

#[test]
fn links_19_a_hop_that_does_not_block_acknowledges_what_it_has() {
    for options in ["--slow-reader drop-oldest", "--slow-reader disconnect", "--accept-publish"] {
        let mut producer = Wsevent::line("--produce - --history-bytes 64KiB").piped().serve();
        let hop = hop(&producer.ws_url(), options);
        feed(&mut producer, 2000, 1000);
        // Nobody reads behind the hop, and nobody there may hold the producer.
        assert_eq!(producer.wait(), 0, "{options}");
        assert_eq!(status(&hop)["events"], 2000);
    }
}

#[test]
fn links_19_a_merge_acknowledges_each_upstream_in_its_own_words() {
    let line = "--produce - --history-bytes 64KiB";
    let mut producers = [0, 1].map(|_| Wsevent::line(line).piped().serve());
    let mut merge =
        Wsevent::new(["--consume", &producers[0].ws_url(), "--consume", &producers[1].ws_url(), "--no-serve"]);
    merge = merge.args(["--output", "raw"]);
    let mut merge = merge.start();
    for producer in &mut producers {
        feed(producer, 1000, 1000);
    }
    assert_eq!(merge.wait(), 0);
    assert_eq!(merge.stdout().lines().count(), 2000);
    for producer in &mut producers {
        assert_eq!(producer.wait(), 0);
    }
}

#[test]
fn links_19_a_filter_acknowledges_what_it_drops() {
    let mut producer = Wsevent::line("--produce - --history-bytes 64KiB").piped().serve();
    let hop = hop(&producer.ws_url(), "--filter tonumber==7");
    let mut consumer = Wsevent::new(["--consume", &hop.ws_url(), "--no-serve"]).start();
    feed(&mut producer, 2000, 1000);
    assert_eq!(consumer.wait(), 0);
    assert_eq!(consumer.stdout(), format!("{:01000}\n", 7));
    assert_eq!(producer.wait(), 0);
}

#[test]
fn links_20_whoever_comes_first_gets_everything() {
    let producer = Wsevent::line("--produce - --history 2").input("one\ntwo\nthree\nfour\n").serve();
    eventually("the input to be read", || (status(&producer)["events"] == 4).then_some(()));
    let hop = hop(&producer.ws_url(), "--history 2");
    await_events(&hop, 4);
    // An onlooker that wants *now* takes nothing over.
    let onlooker = Sse::open(&format!("{}?since=now", hop.url()));
    let mut consumer = Wsevent::new(["--consume", &hop.ws_url(), "--no-serve"]).start();
    assert_eq!(consumer.lines(4), ["one", "two", "three", "four"]);
    drop(onlooker);
    assert_eq!(consumer.wait(), 0);
}

#[test]
fn links_21_a_departed_reader_is_waited_for_and_finds_its_place() {
    let mut producer = Wsevent::line("--produce - --history 2 --pin-grace 1h").piped().serve();
    producer.write("1\n2\n3\n");
    let named = "Wsevent-Instance: me\r\n";
    let mut link = Link::open_with(producer.url(), named);
    let events = link.events(3);
    link.keep(&events[0].0);
    drop(link);
    producer.write("4\n5\n6\n7\n8\n");
    eventually("the input to be read", || (status(&producer)["events"] == 8).then_some(()));
    let mut link = Link::open_with(&format!("{}?since={}", producer.url(), events[0].0), named);
    assert_eq!(link.texts(7), numbers(2..=8));
    link.keep(&events[0].0.at(8));
    producer.close_stdin();
    assert_eq!(link.close().1, 1000);
    assert_eq!(producer.wait(), 0);
}

#[test]
fn links_21_a_reader_that_stays_away_too_long_is_released_and_told_on_its_return() {
    let mut producer = Wsevent::line("--produce - --history 2 --pin-grace 500ms").piped().serve();
    producer.write("1\n2\n3\n");
    let mut link = Link::open(producer.url());
    let events = link.events(3);
    link.keep(&events[2].0);
    drop(link);
    producer.said("gave up waiting for the return");
    producer.write("4\n");
    eventually("the fourth event", || (status(&producer)["events"] == 4).then_some(()));
    for n in 5..=10 {
        producer.write(format!("{n}\n"));
        eventually("the next event", || (status(&producer)["events"] == n).then_some(()));
    }
    let mut link = Link::since(producer.url(), &events[2].0);
    assert_eq!(link.gap(), (events[2].0.at(4), events[2].0.at(8), Some(5)));
    assert_eq!(link.texts(2), numbers(9..=10));
}

#[test]
fn links_21_at_the_end_the_origin_waits_for_k_of_every_pin() {
    let mut producer = Wsevent::line("--produce - --pin-grace 1h --wait-readers 2").input("1\n2\n").serve();
    let (mut first, mut second) = (Link::open(producer.url()), Link::open(producer.url()));
    let last = first.events(2)[1].0.clone();
    assert_eq!(second.events(2)[1].0, last);
    assert_eq!(first.news(), Said::End(last.clone()));
    first.keep(&last);
    assert_eq!(first.close().1, 1000);
    assert_eq!(producer.ended(), None);
    assert_eq!(second.news(), Said::End(last.clone()));
    second.keep(&last);
    assert_eq!(second.close().1, 1000);
    assert_eq!(producer.wait(), 0);
}

#[test]
fn links_21_a_chain_ends_once_the_last_hop_has_everything() {
    for _ in 0..5 {
        let mut producer = Wsevent::line("--produce - --pin-grace 1h").input("1\n2\n3\n").serve();
        let first = hop(&producer.ws_url(), "");
        let second = hop(&first.ws_url(), "");
        let mut consumer = Wsevent::new(["--consume", &second.ws_url(), "--no-serve"]).start();
        assert_eq!(consumer.wait(), 0);
        assert_eq!(consumer.stdout(), "1\n2\n3\n");
        assert_eq!(producer.wait(), 0, "the last `k` went all the way up");
    }
}

#[test]
fn links_22_a_pinned_reader_that_does_not_read_is_not_closed() {
    // Once with more than kernels hold, so that something waits for it all the time, once with less.
    for lines in [14_000, 100] {
        let mut producer = Wsevent::line("--produce - --ping-interval 1s --pin-grace 1s").piped().serve();
        let mut link = Link::open(producer.url());
        let first = link.position();
        feed(&mut producer, lines, 1000);
        let paused = Instant::now();
        eventually("several ping intervals to pass", || (paused.elapsed() > Duration::from_secs(8)).then_some(()));
        assert_eq!(status(&producer)["readers"], 1, "{lines} lines");
        for n in 1..=lines {
            let (id, text) = link.event();
            assert_eq!((id.n, text.trim_start_matches('0')), (first.n + n - 1, n.to_string().as_str()));
        }
    }
}

#[test]
fn links_22_a_hop_whose_reader_comes_late_has_lost_nothing() {
    let mut producer = Wsevent::line("--produce - --ping-interval 1s --pin-grace 1s").piped().serve();
    let hop = hop(&producer.ws_url(), "--history-bytes 64KiB");
    feed(&mut producer, 1000, 1000);
    let waited = Instant::now();
    // The hop is full and reads no more: neither the events nor the pings behind them.
    eventually("several ping intervals to pass", || (waited.elapsed() > Duration::from_secs(8)).then_some(()));
    let mut consumer = Wsevent::new(["--consume", &hop.ws_url(), "--no-serve"]).start();
    assert_eq!(consumer.wait(), 0);
    assert_eq!(consumer.stdout().lines().count(), 1000);
    assert_eq!(producer.wait(), 0);
}

#[test]
fn links_23_a_topic_that_peers_publish_to_does_not_block_by_itself() {
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let hop = hop(&producer.ws_url(), "--accept-publish");
    eventually("the hop to be connected", || (hop.own("readyz").status == 200).then_some(()));
    assert_eq!(status(&producer)["policy"], "block");
    assert_eq!(status(&hop)["policy"], "disconnect");
    producer.close_stdin();
    let also = Wsevent::line("--produce - --accept-publish --keep-open").input("").serve();
    assert_eq!(status(&also)["policy"], "disconnect");
}

#[test]
fn links_23_publishing_does_not_wait_for_the_publishers_own_cursor() {
    let hub = hub("--slow-reader block --history-bytes 64KiB");
    let mut reader = Raw::websocket(hub.url());
    let mut publisher = Raw::websocket(hub.url());
    const EVENTS: u64 = 20_000;
    // It never reads what it said: its echo fills its socket, and holds nobody.
    let writer = thread::spawn(move || {
        for n in 1..=EVENTS {
            publisher.send_frame(&Frame::new(TEXT, format!("{n:01000}")));
        }
        publisher
    });
    for n in 1..=EVENTS {
        let event = reader.read_message().expect("somebody else's event").text();
        assert_eq!(event.trim_start_matches('0'), n.to_string());
    }
    drop(writer.join().expect("no panic"));
}

#[test]
fn a_publisher_that_has_to_wait_is_not_overtaken_by_itself() {
    for options in ["--history-bytes 64KiB", "--slow-reader block --history-bytes 64KiB", "--history 64"] {
        let hub = hub(options);
        let mut readers = vec![Raw::websocket(hub.url())];
        if !options.contains("block") {
            // There one thread could not read two: each would wait for the other's acknowledgement.
            readers.push(Link::open(hub.url()).raw);
        }
        let mut publisher = Raw::websocket(hub.url());
        const EVENTS: u64 = 30_000;
        let writer = thread::spawn(move || {
            for n in 1..=EVENTS {
                if publisher.try_send(Frame::new(TEXT, format!("{n:0100}")).to_bytes()).is_err() {
                    break;
                }
            }
            // To close with its echo unread would reset the connection, and take what is on its way with it.
            publisher
        });
        'events: for n in 1..=EVENTS {
            for reader in &mut readers {
                match reader.read_message() {
                    Some(event) => assert_eq!(event.text().trim_start_matches('0'), n.to_string(), "{options}"),
                    // Where nobody waits for it, this reader may be too slow for so small a window.
                    None if !options.contains("block") => break 'events,
                    None => panic!("{options}: closed before event {n}"),
                }
            }
        }
        drop(hub);
        drop(writer.join());
    }
}

#[test]
fn one_large_post_does_not_overrun_healthy_readers() {
    let hub = hub("");
    let mut readers = [Raw::websocket(hub.url()), Link::open(hub.url()).raw];
    let url = hub.url().to_owned();
    let publisher = thread::spawn(move || publish_numbers(&url, 1..=150_000));
    for n in 1..=150_000u64 {
        for reader in &mut readers {
            let event = reader.read_message().unwrap_or_else(|| panic!("event {n}"));
            assert_eq!(event.text(), n.to_string());
        }
    }
    publisher.join().expect("no panic");
}

// --- F. Who may loop ------------------------------------------------------------------------------------------------

#[test]
fn links_25_the_path_names_every_instance_up_to_the_origin() {
    let hub = hub("");
    let first = hop(&hub.ws_url(), "");
    let second = hop(&first.ws_url(), "");
    let path = |server: &Running| Link::open(server.url()).answer.header("wsevent-path").expect("a path").to_owned();
    let (origin, middle, last) = (path(&hub), path(&first), path(&second));
    assert!(!origin.contains(','));
    assert!(middle.ends_with(&format!(",{origin}")));
    assert!(last.ends_with(&format!(",{middle}")));
}

#[test]
fn links_25_whoever_finds_itself_in_the_path_refuses_the_link_and_says_so() {
    let hub = hub("");
    let [one, two] = free_ports();
    let first = Wsevent::line(&format!(
        "--consume {} --consume localhost:{two}/events --serve localhost:{one}/events --retry-max 100ms",
        hub.ws_url()
    ));
    let first = first.serve();
    let second =
        Wsevent::line(&format!("--consume localhost:{one}/events --serve localhost:{two}/events --retry-max 100ms"));
    let second = second.serve();
    first.said("loop");
    let mut link = Link::since(second.url(), "oldest");
    publish_numbers(hub.url(), 1..=3);
    assert_eq!(link.texts(3), numbers(1..=3));
    publish_numbers(hub.url(), [4]);
    assert_eq!(link.event().1, "4", "nothing went round");
}

#[test]
fn links_25_a_loop_through_two_merges_is_found() {
    let (left, right) = (hub(""), hub(""));
    let [one, two] = free_ports();
    let merge = |hub: &Running, theirs: u16, ours: u16| {
        Wsevent::line(&format!(
            "--consume localhost:{theirs}/events --consume {} --serve localhost:{ours}/events --retry-max 100ms",
            hub.ws_url()
        ))
        .serve()
    };
    let (first, second) = (merge(&left, two, one), merge(&right, one, two));
    eventually("one of them to refuse", || {
        (first.stderr().contains("loop") || second.stderr().contains("loop")).then_some(())
    });
    // A merge hears what is said from when it is there.
    left.has("readers", 1);
    right.has("readers", 1);
    publish_numbers(left.url(), 1..=5);
    await_events(&first, 5);
    publish_numbers(right.url(), 6..=10);
    await_events(&second, 5);
    // Whatever would go round goes round fast.
    publish_numbers(left.url(), 11..=12);
    eventually("the last of them", || (status(&first)["events"].as_u64()? >= 7).then_some(()));
    thread::sleep(Duration::from_millis(500));
    assert!(status(&first)["events"].as_u64().is_some_and(|events| events <= 12), "{}", status(&first));
    assert!(status(&second)["events"].as_u64().is_some_and(|events| events <= 12), "{}", status(&second));
}

#[test]
fn links_25_a_ring_without_an_origin_says_that_it_is_one() {
    let [one] = free_ports();
    let ring = format!("--consume localhost:{one}/events --serve localhost:{one}/events --retry-max 100ms");
    Wsevent::line(&ring).serve().said("Loop Detected");
}

#[test]
fn links_25_a_path_that_changes_upstream_is_told() {
    let (upstream, e) = (Upstream::new(), origin());
    let first = hop(&upstream.ws_url(), "");
    let head = |path: &str| format!("Wsevent-Window: {} {}\r\nWsevent-Path: {path}\r\n", e.at(1), e.at(1));
    let served = upstream.link_with(&head("aaaa"));
    let mut link = Link::open(first.url());
    assert!(link.answer.header("wsevent-path").is_some_and(|path| path.ends_with(",aaaa")));
    link.position();
    drop(served);
    let _served = upstream.link_with(&head("bbbb,cccc"));
    let told = std::iter::from_fn(|| Some(link.hear())).find(|said| !matches!(said, Said::Position { .. }));
    assert_eq!(told, Some(Said::Changed));
    assert!(Link::open(first.url()).answer.header("wsevent-path").is_some_and(|path| path.ends_with(",bbbb,cccc")));
}

// --- G. Memory ------------------------------------------------------------------------------------------------------

#[test]
fn links_26_the_default_window_is_65536_events_or_16_mib() {
    let hub = hub("");
    for block in 0..70 {
        publish_numbers(hub.url(), block * 1000..(block + 1) * 1000);
    }
    assert!(status(&hub)["held_events"].as_u64().is_some_and(|held| (64_000..=65_536).contains(&held)));
    let line = "x".repeat(100_000);
    for _ in 0..20 {
        publish(hub.url(), (0..10).map(|_| line.clone()));
    }
    assert!(status(&hub)["held_bytes"].as_u64().is_some_and(|held| (15 << 20..=16 << 20).contains(&held)));
}

#[test]
fn links_26_stalled_readers_cost_no_memory_to_speak_of() {
    let hub = hub("--slow-reader drop-oldest");
    let stalled: Vec<Raw> =
        (0..40).map(|i| if i % 2 == 0 { Raw::websocket(hub.url()) } else { Link::open(hub.url()).raw }).collect();
    let mut healthy = Raw::websocket(hub.url());
    let line = "x".repeat(50_000);
    for _ in 0..60 {
        publish(hub.url(), (0..20).map(|_| line.clone()));
        for _ in 0..20 {
            healthy.read_message().expect("a healthy reader's event");
        }
    }
    // 60 MB went by 40 readers that took none of it: the window of 16 MiB, and a batch for each.
    assert!(hub.memory() < 100 << 10, "{} KiB", hub.memory());
    drop(stalled);
}

#[test]
fn links_27_the_cursor_file_never_runs_ahead_of_the_output() {
    let scratch = common::Scratch::new();
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=5);
    let line = |count: u32| {
        let options = format!("--no-serve --since oldest --count {count} --cursor-file {}", scratch.arg("cursor"));
        Wsevent::new(["--consume", &hub.ws_url()]).args(options.split_whitespace())
    };
    assert_eq!(line(2).run().stdout, "1\n2\n");
    assert_eq!(scratch.read("cursor").as_deref().map(str::trim), Some(e.at(2).to_string().as_str()));
    assert_eq!(line(3).run().stdout, "3\n4\n5\n");
    let mut consumer = line(100_000).start();
    let url = hub.url().to_owned();
    let publisher = thread::spawn(move || {
        for block in 0..40 {
            publish_numbers(&url, 6 + block * 100..106 + block * 100);
        }
    });
    consumer.lines(300);
    consumer.kill9();
    publisher.join().expect("no panic");
    publish_numbers(hub.url(), [4006]);
    let printed = consumer.stdout().lines().count() as u64 + 5;
    let remembered = scratch.read("cursor").map(|text| Id::read(text.trim())).expect("a position");
    assert!(remembered.n <= printed, "{} remembered, {printed} printed", remembered.n);
    let rest = line((4006 - remembered.n) as u32).run();
    assert_eq!(rest.stdout.lines().next(), Some((remembered.n + 1).to_string().as_str()));
    assert_eq!(rest.stdout.lines().last(), Some("4006"));
}

#[test]
fn links_27_on_a_keeper_the_cursor_file_does_not_shorten_the_mirror() {
    let scratch = common::Scratch::new();
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=10);
    let mut keeper = hop(&hub.ws_url(), &format!("--cursor-file {}", scratch.arg("cursor")));
    await_events(&keeper, 10);
    eventually("the cursor file", || scratch.read("cursor"));
    keeper.restart();
    assert_eq!(Link::since(keeper.url(), e.at(0)).texts(10), numbers(1..=10));
}

#[test]
fn links_28_a_plain_reader_resumes_by_since() {
    let hub = hub("");
    let e = publish_numbers(hub.url(), 1..=5);
    let mut plain = Raw::websocket(&format!("{}?since={}", hub.url(), e.at(2)));
    for n in 3..=5 {
        assert_eq!(plain.read_message().map(|event| event.text()), Some(n.to_string()));
    }
}

// --- what no rule names ---------------------------------------------------------------------------------------------

#[test]
fn a_publisher_that_closes_at_once_is_heard_and_hurts_nobody() {
    let hub = hub("");
    let mut reader = Raw::websocket(hub.url());
    for n in 0..50 {
        let mut publisher = Raw::websocket(hub.url());
        let both = [Frame::new(TEXT, n.to_string()), Frame::close(1000, "")];
        publisher.send(both.iter().flat_map(Frame::to_bytes).collect::<Vec<u8>>());
        assert_eq!(reader.read_message().map(|event| event.text()), Some(n.to_string()));
    }
}

#[test]
fn a_reader_that_keeps_up_gets_a_burst_that_is_larger_than_the_window() {
    const EVENTS: u64 = 100_000;
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "--history 2000");
    let mut served = upstream.plain();
    let mut reader = Raw::websocket(hop.url());
    let reading = std::thread::spawn(move || {
        for n in 1..=EVENTS {
            assert_eq!(reader.read_message().map(|event| event.text()), Some(n.to_string()));
        }
    });
    served.texts(1..=EVENTS);
    reading.join().expect("all of them, in order");
}

#[test]
fn an_upstream_is_answered_while_there_is_no_room_for_more() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "--slow-reader block --history-bytes 1KiB");
    let mut served = upstream.plain();
    let _pinned = Link::open(hop.url());
    served.texts(1..=500);
    await_events(&hop, 500);
    served.hears_ping_answered();
}

#[test]
fn what_an_upstream_says_about_numbers_and_times_cannot_hurt() {
    let upstream = Upstream::new();
    let hop = hop(&upstream.ws_url(), "--retry-max 10ms");
    let e = origin();
    let nasty = [
        format!("p {} {} 0", e.at(1), u64::MAX),
        format!("p {} 1 0", e.at((1 << 53) - 1)),
        format!("p {}.4 1 0", e.at(5)),
        format!("g {} {} {}", e.at(1), e.at(2), u64::MAX),
        format!("g {} {} 1", e.at(9), e.at(2)),
        format!("g {} {} ?", e.at(1), e.at((1 << 53) - 1)),
        format!("a {}", e.at(1)),
        format!("e {}", e.at(1)),
        "u".into(),
        "p".into(),
    ];
    for ping in nasty {
        let mut served = upstream.link(&e.at(1), &e.at(1));
        served.ping(ping);
        served.texts(1..=3);
        served.ping("p x y z");
        served.texts(4..=6);
        served.hears_ping_answered_or_gone();
        drop(served);
    }
    let mut served = upstream.link(&origin().at(1), &origin().at(1));
    let mut link = Raw::websocket(hop.url());
    served.position(&origin().at(1), 0);
    served.text("still there");
    while link.read_message().expect("an event").text() != "still there" {}
    assert!(!hop.stderr().contains("panicked"), "{}", hop.stderr());
}
