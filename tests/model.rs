//! The promise, under random misfortune: *an event is delivered once and in order to every reader that keeps up or comes
//! back within the window; whatever is not, is told.*
//!
//! Each world is drawn from a seed: a producer and two or three hops with a window, a policy, maybe a filter, maybe a
//! hop that refuses large events; two readers at every hop. Then hops are killed, paused and restarted, readers lose
//! their connections or stop reading, and events go on. At the end every reader's account must add up.
//!
//! `WSEVENT_SEED` repeats one world, `WSEVENT_WORLDS` draws more of them.

mod common;
mod link;

use common::{Running, Wsevent, eventually};
use link::{Follower, Heard, How};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Events are numbered; every seventh is large, if somebody minds.
const LARGE: u64 = 7;
/// What a narrow hop takes, and what a large event has.
const NARROW: usize = 2000;

/// What one reader has heard: its hop, its protocol, events and gaps.
type Account = (usize, How, Vec<Heard>);

/// What the seed decides before anything runs.
#[derive(Debug)]
struct World {
    hops: usize,
    /// Events retained; `None` is the default, more than any outage here.
    window: Option<u64>,
    /// Bytes retained, where events are fat.
    fat: Option<u64>,
    policy: Option<&'static str>,
    /// This hop lets through what is no multiple of three.
    filter: Option<usize>,
    /// This hop refuses large events.
    narrow: Option<usize>,
    steps: usize,
}

impl World {
    fn draw(random: &mut StdRng) -> Self {
        let hops = random.random_range(2..=3);
        let some_hop = |random: &mut StdRng| random.random_bool(0.4).then(|| random.random_range(0..hops));
        let policies = [None, Some("disconnect"), Some("disconnect"), Some("drop-oldest")];
        let policy = policies[random.random_range(0..policies.len())];
        // Under `block` nothing is ever lost, so its window may well be large.
        let tiny = policy.is_some() && random.random_bool(0.5);
        World {
            hops,
            window: tiny.then(|| random.random_range(5..40)),
            fat: (tiny && random.random_bool(0.4)).then_some(128 << 10),
            policy,
            filter: some_hop(random),
            narrow: some_hop(random),
            steps: random.random_range(30..70),
        }
    }

    fn options(&self) -> String {
        let window = self.window.map(|events| format!("--history {events} ")).unwrap_or_default();
        let fat = self.fat.map(|bytes| format!("--history-bytes {bytes} ")).unwrap_or_default();
        format!("{window}{fat}--pin-grace 2s --retry-max 100ms")
    }

    fn line(&self, hop: usize, upstream: &str) -> Wsevent {
        let mut line = Wsevent::new(["--consume", upstream]).args(self.options().split_whitespace());
        if let Some(policy) = self.policy {
            line = line.args(["--slow-reader", policy]);
        }
        if self.filter == Some(hop) {
            line = line.args(["--filter", ".n%3!=0"]);
        }
        if self.narrow == Some(hop) {
            line = line.args(["--max-message".to_owned(), NARROW.to_string()]);
        }
        line
    }

    fn passes(&self, n: u64, hop: usize) -> bool {
        !n.is_multiple_of(3) || self.filter.is_none_or(|filter| filter > hop)
    }

    /// Whether this event is too large for a hop up to and with this one, and comes that far.
    fn is_refused(&self, n: u64, hop: usize) -> bool {
        let narrow = self.narrow.filter(|narrow| *narrow <= hop);
        // The limit is judged before the stages of the same hop.
        n.is_multiple_of(LARGE) && narrow.is_some_and(|narrow| narrow == 0 || self.passes(n, narrow - 1))
    }

    fn event(&self, n: u64) -> String {
        let pad = match (n.is_multiple_of(LARGE), self.fat) {
            (true, _) => NARROW + 500,
            (_, Some(_)) => NARROW - 200,
            _ => 0,
        };
        format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(pad))
    }

    /// Whether anything but refused events may be lost.
    fn is_lossy(&self) -> bool {
        self.window.is_some()
    }
}

/// A world that runs.
struct Run {
    world: World,
    producer: Running,
    hops: Vec<Running>,
    dead: Vec<bool>,
    stopped: Vec<bool>,
    readers: Vec<(usize, How, Follower)>,
    /// Lines for the producer; it may have to wait for its readers.
    lines: mpsc::Sender<String>,
    said: u64,
}

impl Run {
    fn start(world: World) -> Self {
        let policy = world.policy.map(|policy| format!("--slow-reader {policy}")).unwrap_or_default();
        let mut producer =
            Wsevent::line(&format!("--produce - {policy} {}", without_retry(&world.options()))).piped().serve();
        let mut hops: Vec<Running> = Vec::new();
        for hop in 0..world.hops {
            let upstream = hops.last().map_or_else(|| producer.ws_url(), Running::ws_url);
            hops.push(world.line(hop, &upstream).serve());
        }
        let both = |hop: usize| [(hop, How::Link), (hop, How::Sse)];
        let follow = |(hop, how): (usize, How)| (hop, how, Follower::start(how, hops[hop].url(), "oldest"));
        let readers = (0..world.hops).flat_map(both).map(follow).collect();
        let (lines, waiting) = mpsc::channel::<String>();
        let mut stdin = producer.take_stdin();
        thread::spawn(move || {
            for line in waiting {
                if stdin.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let count = world.hops;
        Run { world, producer, hops, dead: vec![false; count], stopped: vec![false; count], readers, lines, said: 0 }
    }

    /// Who begins at the oldest begins at the first event.
    fn await_readers(&self) {
        let placed = || self.readers.iter().all(|(_, _, reader)| reader.is_placed());
        eventually("the readers", || placed().then_some(()));
    }

    fn say(&mut self, n: u64) {
        for _ in 0..n {
            self.said += 1;
            self.lines.send(self.world.event(self.said)).expect("the writer runs");
        }
    }

    fn step(&mut self, random: &mut StdRng) {
        let hop = random.random_range(0..self.hops.len());
        let reader = random.random_range(0..self.readers.len());
        match random.random_range(0..20) {
            0..8 => self.say(random.random_range(1..60)),
            8..10 => self.kill(hop),
            10..12 => self.revive(hop),
            12 => self.stop(hop),
            13..15 => self.go_on(hop),
            15..17 => self.readers[reader].2.cut(),
            17 => self.readers[reader].2.pause(true),
            _ => self.readers[reader].2.pause(false),
        }
        thread::sleep(Duration::from_millis(random.random_range(0..40)));
    }

    fn kill(&mut self, hop: usize) {
        if !self.dead[hop] {
            self.hops[hop].kill9();
            (self.dead[hop], self.stopped[hop]) = (true, false);
        }
    }

    fn revive(&mut self, hop: usize) {
        if std::mem::take(&mut self.dead[hop]) {
            self.hops[hop].start_again();
        }
    }

    fn stop(&mut self, hop: usize) {
        if !self.dead[hop] && !self.stopped[hop] {
            self.hops[hop].signal("STOP");
            self.stopped[hop] = true;
        }
    }

    fn go_on(&mut self, hop: usize) {
        if std::mem::take(&mut self.stopped[hop]) {
            self.hops[hop].signal("CONT");
        }
    }

    /// Everybody is well again, and hears a last event that nothing keeps back.
    fn settle(&mut self) {
        for hop in 0..self.hops.len() {
            self.go_on(hop);
            self.revive(hop);
        }
        // Who is not connected when a producer that waits for nobody ends never hears of it.
        for hop in &self.hops {
            eventually("a hop's upstream", || (hop.own("readyz").status == 200).then_some(()));
        }
        for (_, _, reader) in &self.readers {
            reader.pause(false);
        }
        while self.said.is_multiple_of(3) || self.said.is_multiple_of(LARGE) || self.said == 0 {
            self.say(1);
        }
        let deadline = Instant::now() + 3 * common::PATIENCE;
        for (hop, how, reader) in &self.readers {
            while !reader.heard().iter().any(|heard| reaches(heard, self.said)) {
                assert!(!reader.has_ended(), "the {how:?} reader at hop {hop} has ended: {:?}", tail(&reader.heard()));
                assert!(
                    Instant::now() < deadline,
                    "the {how:?} reader at hop {hop} never hears event {}: {:?}",
                    self.said,
                    tail(&reader.heard())
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The end of the input is the end of every stream.
    fn finish(mut self) -> (World, u64, Vec<Account>) {
        self.settle();
        drop(self.lines);
        let heard = self.readers.into_iter().map(|(hop, how, reader)| {
            eventually(&format!("the end, at hop {hop} for the {how:?} reader"), || reader.has_ended().then_some(()));
            (hop, how, reader.join())
        });
        let heard: Vec<_> = heard.collect();
        assert_eq!(self.producer.wait(), 0, "the producer");
        (self.world, self.said, heard)
    }
}

fn without_retry(options: &str) -> String {
    options.replace("--retry-max 100ms", "")
}

fn reaches(heard: &Heard, n: u64) -> bool {
    match heard {
        Heard::Event(id, _) => id.n >= n,
        Heard::Gap(_, to, _) => to.n >= n,
    }
}

fn tail(heard: &[Heard]) -> &[Heard] {
    &heard[heard.len().saturating_sub(3)..]
}

/// Whether what one reader heard, with what it was told, is what the producer said.
fn account(world: &World, said: u64, hop: usize, heard: &[Heard]) -> Result<(), String> {
    let mut next = 1;
    for one in heard {
        let (from, to) = match one {
            Heard::Event(id, text) => {
                let event = world.event(id.n);
                if *text != event.trim_end() {
                    return Err(format!("{id} is another event: {}", text.get(..40).unwrap_or(text)));
                }
                (id.n, id.n)
            }
            Heard::Gap(from, to, count) => {
                check_gap(world, hop, from.n, to.n, *count).map_err(|why| format!("{one:?}: {why}"))?;
                (from.n, to.n)
            }
        };
        if from < next {
            return Err(format!("{one:?} comes again, or too late: everything before {next} was heard or told"));
        }
        if let Some(missing) = (next..from).find(|&n| world.passes(n, hop) || world.is_refused(n, hop)) {
            return Err(format!("{missing} is neither heard nor told before {one:?}"));
        }
        next = to + 1;
    }
    match (next..=said).find(|&n| world.passes(n, hop)) {
        Some(missing) => Err(format!("{missing} is neither heard nor told at the end")),
        None => Ok(()),
    }
}

fn check_gap(world: &World, hop: usize, from: u64, to: u64, count: Option<u64>) -> Result<(), String> {
    let refused = (from..=to).all(|n| world.is_refused(n, hop));
    if !refused && !world.is_lossy() {
        return Err("nothing may be lost here".into());
    }
    // Exact within an unfiltered stream, and for what a hop refused; else not said (LINKS 15).
    let exact = to + 1 - from;
    match count {
        Some(count) if count == exact => Ok(()),
        Some(count) if world.filter.is_some_and(|filter| filter <= hop) && count < exact => Ok(()),
        Some(count) => Err(format!("{count} is not the number of lost events, which is {exact}")),
        None if world.filter.is_none() && world.narrow.is_none() => Err("its count is known, and not said".into()),
        None => Ok(()),
    }
}

fn live_through(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::draw(&mut random);
    println!("WSEVENT_SEED={seed}: {world:?}");
    let mut run = Run::start(world);
    run.await_readers();
    run.say(random.random_range(0..30));
    for _ in 0..run.world.steps {
        run.step(&mut random);
    }
    let (world, said, heard) = run.finish();
    for (hop, how, heard) in heard {
        if let Err(why) = account(&world, said, hop, &heard) {
            panic!("WSEVENT_SEED={seed} {world:?}: the {how:?} reader at hop {hop} of {said} events: {why}");
        }
    }
}

#[test]
fn the_promise_holds_in_every_world() {
    if let Some(seed) = variable("WSEVENT_SEED") {
        return live_through(seed);
    }
    let worlds = variable("WSEVENT_WORLDS").unwrap_or(24);
    let seeds: Vec<u64> = (0..worlds).map(|_| rand::random()).collect();
    // A few at a time: most of a world's time is waiting.
    for seeds in seeds.chunks(6) {
        let lives: Vec<_> = seeds.iter().map(|&seed| thread::spawn(move || live_through(seed))).collect();
        let failed = lives.into_iter().map(|life| life.join().is_err()).filter(|failed| *failed).count();
        assert_eq!(failed, 0, "worlds failed, see above");
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}
