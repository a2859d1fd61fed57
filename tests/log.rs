//! The log against a naive model: whatever is published, kept, lost, evicted and read, in whatever order, a reader gets
//! every event once and in order, or is told what it misses.
//!
//! The model is a vector of everything that was ever appended; an event or a gap is one row, and its index is its
//! offset. Which rows are still held is asked of the log, and checked against its limits.

use proptest::prelude::*;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};
use wsevent::{
    event::{Batch, Event, Run, Seqs},
    id::{Epoch, Id, Seq, Since},
    log::{Entry, Gap, Item, Limits, Log, Lost, News, Numbering, Part, Read, Start, Window},
    recorder::{AppendError, Extent, Note, Record, Recorder},
};

const GRACE: Duration = Duration::from_secs(30);

/// What fails is printed at its smallest; nothing is written beside the sources.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() }
}

fn limits(events: u64) -> Limits {
    Limits { events, bytes: 1 << 30, age: None }
}

fn epoch(n: u64) -> Epoch {
    Epoch::new(1_000 + n, n)
}

fn id(of: u64, seq: Seq) -> Id {
    Id { epoch: epoch(of), seq }
}

fn whole(of: u64, n: u64) -> Id {
    id(of, Seq::whole(n))
}

/// One event or one gap, as appended.
#[derive(Clone, Debug, PartialEq)]
enum Row {
    Event { id: Id, text: String },
    Gap { from: Id, to: Id, count: Option<u64> },
    End,
}

impl Row {
    /// The position behind the row; `None` for the end of the stream, which has none of its own.
    fn last(&self) -> Option<&Id> {
        match self {
            Row::Event { id, .. } => Some(id),
            Row::Gap { to, .. } => Some(to),
            Row::End => None,
        }
    }

    fn is_event(&self) -> bool {
        matches!(self, Row::Event { .. })
    }
}

/// What the log must be able to tell.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    times: Vec<u64>,
}

impl Model {
    fn push(&mut self, row: Row, time: u64) {
        self.rows.push(row);
        self.times.push(time);
    }

    fn end(&self) -> u64 {
        self.rows.len() as u64
    }

    fn last_before(&self, offset: u64) -> Option<Id> {
        self.rows[..offset as usize].iter().rev().find_map(|row| row.last().cloned())
    }

    /// What these rows hold for whoever misses them; `None` when a gap is among them.
    fn lost(&self, from: u64, to: u64) -> Option<u64> {
        let rows = &self.rows[from as usize..to as usize];
        rows.iter().all(Row::is_event).then_some(to - from)
    }

    /// The same by numbers, where every gap on the way has a known size.
    fn missing(&self, after: &Id, to: &Id, rows: std::ops::Range<u64>) -> Option<u64> {
        let known = |row: &Row| !matches!(row, Row::Gap { count: None, .. });
        let rows = &self.rows[rows.start as usize..rows.end as usize];
        rows.iter().all(known).then(|| to.seq.n - after.seq.n)
    }

    /// The first offset of the epoch's rows behind a position, or the offset behind the epoch.
    fn behind(&self, at: &Id) -> Option<u64> {
        let of_epoch = |row: &Row| row.last().is_some_and(|last| last.epoch == at.epoch);
        let end = self.rows.iter().rposition(of_epoch)? as u64 + 1;
        let behind = |row: &Row| row.last().is_some_and(|last| last.epoch == at.epoch && last.seq > at.seq.covering());
        Some(self.rows.iter().position(behind).map_or(end, |offset| offset as u64))
    }

    fn last_n(&self, base: u64, n: u64) -> u64 {
        let events = (base..self.end()).rev().filter(|&offset| self.rows[offset as usize].is_event());
        match n {
            0 => events.take(1).next().map_or(base, |newest| newest + 1),
            n => events.take(n as usize).last().filter(|_| self.held_events(base) >= n).unwrap_or(base),
        }
    }

    fn held_events(&self, base: u64) -> u64 {
        self.rows[base as usize..].iter().filter(|row| row.is_event()).count() as u64
    }
}

/// Rows of what was read, without those before the cursor.
fn rows_of(items: &[Item], cursor: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for item in items {
        match &item.entry {
            Entry::Batch(batch) => {
                let skip = cursor.saturating_sub(item.offset) as usize;
                rows.extend(batch.events().skip(skip).map(|(i, event)| Row::Event {
                    id: batch.id(i),
                    text: String::from_utf8_lossy(&event.payload).into_owned(),
                }));
            }
            Entry::Gap(gap) => {
                rows.push(Row::Gap { from: gap.from.clone(), to: gap.to.clone(), count: gap.count });
            }
            Entry::End => rows.push(Row::End),
        }
    }
    rows
}

/// Reads once and checks every word of the answer; returns the new cursor.
fn read_and_check(log: &Log, model: &Model, cursor: u64, bytes: usize) -> Result<u64, TestCaseError> {
    let mut items = Vec::new();
    match log.read(cursor, bytes, &mut items) {
        Ok(Read { next, last }) => {
            prop_assert!(next >= cursor && (next > cursor) == (cursor < model.end()), "reading makes progress");
            prop_assert_eq!(rows_of(&items, cursor), &model.rows[cursor as usize..next as usize]);
            if let Some(expected) = model.last_before(next) {
                prop_assert_eq!(last, Some(expected));
            }
            Ok(next)
        }
        Err(Lost { resume, to, count, .. }) => {
            prop_assert!(cursor < log.base(), "nothing is lost that is held");
            prop_assert_eq!(resume, log.base());
            prop_assert_eq!(to, model.last_before(resume));
            prop_assert_eq!(count, model.lost(cursor, resume), "the count is exact without a gap");
            Ok(resume)
        }
    }
}

fn events(texts: &[String]) -> Run {
    Run::of(&texts.iter().map(|text| Event::new(text.clone())).collect::<Vec<_>>())
}

// --- an origin ------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Publish(u64),
    Lose(Option<u64>),
    Finish,
    Read { reader: usize, bytes: usize },
    Seek { reader: usize, to: Place },
}

/// A start, in terms of what there is at that moment.
#[derive(Clone, Debug)]
enum Place {
    Unsaid,
    Now,
    Oldest,
    Last(u64),
    Time(u64),
    /// This many per mille of the numbers given so far, and some beyond.
    After(u64),
    Part(u64, u32),
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        1 => Just(Place::Unsaid),
        1 => Just(Place::Now),
        1 => Just(Place::Oldest),
        1 => (0u64..9).prop_map(Place::Last),
        1 => (0u64..40).prop_map(Place::Time),
        4 => (0u64..1200).prop_map(Place::After),
        1 => (0u64..1200, 1u32..4).prop_map(|(n, k)| Place::Part(n, k)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1u64..6).prop_map(Op::Publish),
        1 => prop::option::of(1u64..5).prop_map(Op::Lose),
        6 => (0usize..3, 0usize..60).prop_map(|(reader, bytes)| Op::Read { reader, bytes }),
        4 => (0usize..3, place()).prop_map(|(reader, to)| Op::Seek { reader, to }),
    ]
}

/// An origin's log, its model and three readers.
struct Origin {
    log: Log,
    model: Model,
    next: u64,
    clock: u64,
    ended: bool,
    cursors: [u64; 3],
}

impl Origin {
    fn new(held: u64) -> Self {
        let log = Log::new(Numbering::Own(epoch(0)), limits(held));
        Origin { log, model: Model::default(), next: 1, clock: 0, ended: false, cursors: [0; 3] }
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        self.clock += 1;
        match op {
            Op::Publish(_) | Op::Lose(_) if self.ended => {}
            Op::Publish(n) => self.publish(n),
            Op::Lose(count) => self.lose(count),
            Op::Finish if self.ended => self.log.finish(),
            Op::Finish => {
                self.log.finish();
                self.ended = true;
                self.model.push(Row::End, self.clock);
            }
            Op::Read { reader, bytes } => {
                self.cursors[reader] = read_and_check(&self.log, &self.model, self.cursors[reader], bytes)?;
            }
            Op::Seek { reader, to } => self.seek(reader, &to)?,
        }
        Ok(())
    }

    fn publish(&mut self, n: u64) {
        let texts: Vec<String> = (self.next..self.next + n).map(|n| n.to_string()).collect();
        self.log.publish(events(&texts), vec![], self.clock).expect("it is taken");
        for text in texts {
            self.model.push(Row::Event { id: whole(0, self.next), text }, self.clock);
            self.next += 1;
        }
    }

    fn lose(&mut self, count: Option<u64>) {
        self.log.publish_gap(count, "lost");
        let (from, to) = (self.next, self.next + count.unwrap_or(1) - 1);
        self.model.push(Row::Gap { from: whole(0, from), to: whole(0, to), count }, self.clock);
        self.next = to + 1;
    }

    fn seek(&mut self, reader: usize, to: &Place) -> Result<(), TestCaseError> {
        let n = |per_mille: u64| self.next * per_mille / 1000;
        let since = match *to {
            Place::Unsaid => None,
            Place::Now => Some(Since::Now),
            Place::Oldest => Some(Since::Oldest),
            Place::Last(n) => Some(Since::Last(n)),
            Place::Time(ms) => Some(Since::Time(ms)),
            Place::After(at) => Some(Since::After(whole(0, n(at)))),
            Place::Part(at, k) => Some(Since::After(id(0, Seq { n: n(at), k }))),
        };
        let start = self.log.seek(since.as_ref(), self.clock);
        let (model, base) = (&self.model, self.log.base());
        // A reader that comes when all is said hears that it is over.
        let now = model.end() - u64::from(self.ended);
        let expected = match &since {
            None | Some(Since::Now) => Start::At(now),
            Some(Since::Oldest) => Start::At(base),
            Some(Since::Last(n)) => Start::At(model.last_n(base, *n)),
            Some(Since::Time(ms)) => {
                let newer = |&at: &u64| model.rows[at as usize].is_event() && model.times[at as usize] > *ms;
                Start::At((base..model.end()).find(newer).unwrap_or(model.end()))
            }
            Some(Since::After(at)) => return self.check_resume(reader, at.clone(), start),
            Some(Since::Ago(_)) => unreachable!("not drawn"),
        };
        prop_assert_eq!(&start, &expected, "{:?}", to);
        if let Start::At(offset) = start {
            self.cursors[reader] = offset;
        }
        Ok(())
    }

    fn check_resume(&mut self, reader: usize, at: Id, start: Start) -> Result<(), TestCaseError> {
        let (model, base) = (&self.model, self.log.base());
        let behind = model.behind(&at).unwrap_or(0);
        let last = self.next - 1;
        match start {
            Start::At(offset) => {
                prop_assert_eq!(offset, behind, "exclusive, and by order");
                prop_assert!(offset >= base);
                self.cursors[reader] = offset;
            }
            Start::Gap(gap, offset) => {
                prop_assert!(behind < base, "only what is no longer held is gone");
                prop_assert_eq!(offset, base);
                prop_assert_eq!(gap.from.seq, at.seq.after());
                prop_assert_eq!(Some(gap.to.clone()), model.last_before(base));
                if let Some(count) = gap.count {
                    let missing = model.missing(&at, &gap.to, behind..base);
                    prop_assert_eq!(Some(count), missing, "a count that is told is exact");
                }
                self.cursors[reader] = offset;
            }
            Start::Ahead(since) => {
                prop_assert!(at.seq.covering() > Seq::end_of(last) || (last == 0 && at.seq.n > 0), "{} {}", at, last);
                prop_assert_eq!(since, Since::After(at));
            }
            Start::Unknown => prop_assert!(false, "an origin knows its positions"),
        }
        Ok(())
    }

    fn check_limits(&self, held: u64) -> Result<(), TestCaseError> {
        let totals = self.log.totals();
        prop_assert_eq!(totals.held_events, self.model.held_events(self.log.base()));
        prop_assert!(totals.held_events <= held.max(5), "the window is bounded by its limit or one batch");
        prop_assert_eq!(self.log.end(), self.model.end());
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn links_06_and_15_an_origins_readers_get_everything_once_or_are_told(
        held in 1u64..12,
        ops in prop::collection::vec(op(), 1..60),
        finish: bool,
        coda in prop::collection::vec(op(), 0..12),
    ) {
        let mut origin = Origin::new(held);
        for op in ops {
            origin.apply(op)?;
            origin.check_limits(held)?;
        }
        if finish {
            origin.apply(Op::Finish)?;
            origin.apply(Op::Finish)?;
        }
        for op in coda {
            origin.apply(op)?;
        }
        for reader in 0..3 {
            while origin.cursors[reader] < origin.model.end() {
                origin.apply(Op::Read { reader, bytes: 7 })?;
            }
        }
    }
}

// --- a keeper -------------------------------------------------------------------------------------------------------

/// What an upstream does next.
#[derive(Clone, Debug)]
enum Told {
    /// The next rows as one batch.
    Deliver(usize),
    /// Rows from so many before the end of what was told, again, and so many new ones.
    Again(usize, usize),
    /// The next rows are lost.
    Gap(usize),
    /// A gap from before what was told already.
    GapAgain,
    /// The origin starts a new life.
    Reborn,
    /// One of the first epoch comes late.
    Ghost,
    Read {
        reader: usize,
        bytes: usize,
    },
    Seek {
        reader: usize,
        epoch: u64,
        per_mille: u64,
        part: u32,
    },
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        5 => (1usize..6).prop_map(Told::Deliver),
        2 => (1usize..9, 0usize..5).prop_map(|(back, new)| Told::Again(back, new)),
        1 => (1usize..5).prop_map(Told::Gap),
        1 => Just(Told::GapAgain),
        1 => Just(Told::Reborn),
        1 => Just(Told::Ghost),
        5 => (0usize..3, 0usize..60).prop_map(|(reader, bytes)| Told::Read { reader, bytes }),
        5 => (0usize..3, 0u64..4, 0u64..1300, 0u32..4)
            .prop_map(|(reader, epoch, per_mille, part)| Told::Seek { reader, epoch, per_mille, part }),
    ]
}

/// How the numbers of an upstream go on: whole, with a hole, or as parts.
#[derive(Clone, Copy, Debug)]
enum Step {
    Next,
    Hole,
    Part,
}

struct Keeper {
    log: Log,
    model: Model,
    steps: Vec<Step>,
    step: usize,
    born: u64,
    last: Seq,
    /// What the present epoch was told so far, for repeating it.
    told: Vec<(Seq, String)>,
    cursors: [u64; 3],
}

impl Keeper {
    fn new(held: u64, steps: Vec<Step>) -> Self {
        let log = Log::new(Numbering::Keep, limits(held));
        log.set_upstream_window(None);
        let last = Seq::whole(0);
        Keeper { log, model: Model::default(), steps, step: 0, born: 0, last, told: Vec::new(), cursors: [0; 3] }
    }

    fn next(&mut self) -> (Seq, String) {
        let step = self.steps[self.step % self.steps.len()];
        self.step += 1;
        self.last = match step {
            Step::Next => self.last.after(),
            Step::Hole => Seq::whole(self.last.n + 3),
            Step::Part if self.last.k > 0 => Seq { n: self.last.n, k: self.last.k + 1 },
            Step::Part => Seq { n: self.last.n + 1, k: 1 },
        };
        (self.last, format!("{}/{}", self.born, self.step))
    }

    fn keep(&self, of: u64, rows: &[(Seq, String)]) -> bool {
        let texts: Vec<String> = rows.iter().map(|(_, text)| text.clone()).collect();
        let seqs = Seqs::of(rows.iter().map(|(seq, _)| *seq).collect());
        self.log.keep(Batch::new(epoch(of), seqs, 7, events(&texts), vec![])).expect("it is taken")
    }

    fn deliver(&mut self, rows: Vec<(Seq, String)>) {
        for (seq, text) in &rows {
            self.model.push(Row::Event { id: id(self.born, *seq), text: text.clone() }, 7);
        }
        self.told.extend(rows);
    }

    fn apply(&mut self, told: Told) -> Result<(), TestCaseError> {
        match told {
            Told::Deliver(n) => {
                let rows: Vec<_> = (0..n).map(|_| self.next()).collect();
                prop_assert!(self.keep(self.born, &rows), "new rows are new");
                self.deliver(rows);
            }
            Told::Again(back, new) => {
                let old = self.told[self.told.len().saturating_sub(back)..].to_vec();
                let rows: Vec<_> = (0..new).map(|_| self.next()).collect();
                let both = [old, rows.clone()].concat();
                if !both.is_empty() {
                    prop_assert_eq!(self.keep(self.born, &both), new > 0, "only what is new is kept");
                    self.deliver(rows);
                }
            }
            Told::Gap(n) => {
                let rows: Vec<_> = (0..n).map(|_| self.next()).collect();
                let (from, to) = (id(self.born, rows[0].0), id(self.born, rows[n - 1].0));
                self.log
                    .keep_gap(Gap { from: from.clone(), to: to.clone(), count: None, reason: "".into() })
                    .expect("it is taken");
                self.model.push(Row::Gap { from, to, count: None }, 7);
            }
            Told::GapAgain => {
                if let Some((seq, _)) = self.told.first() {
                    let (from, to) = (id(self.born, *seq), id(self.born, *seq));
                    self.log.keep_gap(Gap { from, to, count: Some(1), reason: "".into() }).expect("it is taken");
                }
            }
            Told::Reborn if self.born < 3 && !self.told.is_empty() => {
                self.born += 1;
                self.last = Seq::whole(0);
                self.told.clear();
            }
            Told::Ghost if self.born > 0 && !self.told.is_empty() && self.log.base() == 0 => {
                let late = [(Seq::whole(1 << 40), "ghost".to_owned())];
                prop_assert!(!self.keep(0, &late), "an epoch that was left does not come back");
            }
            Told::Reborn | Told::Ghost => {}
            Told::Read { reader, bytes } => {
                self.cursors[reader] = read_and_check(&self.log, &self.model, self.cursors[reader], bytes)?;
            }
            Told::Seek { reader, epoch, per_mille, part } => self.seek(reader, epoch, per_mille, part)?,
        }
        prop_assert_eq!(self.log.end(), self.model.end());
        Ok(())
    }

    fn seek(&mut self, reader: usize, of: u64, per_mille: u64, part: u32) -> Result<(), TestCaseError> {
        let at = id(of, Seq { n: self.last.n * per_mille / 1000, k: part });
        let start = self.log.seek(Some(&Since::After(at.clone())), 0);
        let (model, base) = (&self.model, self.log.base());
        let Some(behind) = model.behind(&at) else {
            // Another life of the origin, or none of ours: never an offset, and no count.
            match start {
                Start::Gap(gap, offset) => prop_assert_eq!((gap.count, offset), (None, base)),
                other => prop_assert!(model.rows.is_empty(), "{:?}", other),
            }
            return Ok(());
        };
        let newest = model.last_before(model.end());
        match start {
            Start::At(offset) => {
                prop_assert_eq!(offset, behind);
                prop_assert!(offset >= base);
                self.cursors[reader] = offset;
            }
            Start::Gap(gap, offset) => {
                // Before the first number of this epoch that was ever seen here counts as gone, too.
                let first = model.rows.iter().find(|row| row.last().is_some_and(|last| last.epoch == at.epoch));
                let before_first = match first {
                    Some(Row::Event { id, .. }) => at.seq.covering() < id.seq.before().covering(),
                    Some(Row::Gap { from, .. }) => at.seq.covering() < from.seq.before().covering(),
                    _ => false,
                };
                prop_assert!(behind < base || before_first, "{} is held at {} (base {})", at, behind, base);
                prop_assert!(offset >= base && offset >= behind);
                prop_assert!(gap.to.epoch != at.epoch || gap.to.seq.covering() >= at.seq.covering());
                self.cursors[reader] = offset;
            }
            Start::Ahead(since) => {
                let newest = newest.expect("ahead of something");
                prop_assert!(newest.epoch == at.epoch && at.seq.covering() > newest.seq.covering());
                prop_assert_eq!(since, Since::After(at));
            }
            Start::Unknown => prop_assert!(false, "the mirror is complete"),
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => Just(Step::Next), 1 => Just(Step::Hole), 1 => Just(Step::Part)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn links_05_and_06_a_keeper_drops_what_it_has_and_finds_every_position(
        held in 1u64..14,
        steps in prop::collection::vec(step(), 1..12),
        told in prop::collection::vec(told(), 1..60),
    ) {
        let mut keeper = Keeper::new(held, steps);
        for told in told {
            keeper.apply(told)?;
        }
        for reader in 0..3 {
            while keeper.cursors[reader] < keeper.model.end() {
                keeper.apply(Told::Read { reader, bytes: 5 })?;
            }
        }
    }
}

fn keep(log: &Log, of: u64, from: u64, count: u64) -> bool {
    let texts: Vec<String> = (from..from + count).map(|n| n.to_string()).collect();
    log.keep(Batch::new(epoch(of), Seqs::From(from), 7, events(&texts), vec![])).expect("it is taken")
}

fn gap(from: Id, to: Id, count: Option<u64>) -> Gap {
    Gap { from, to, count, reason: "test".into() }
}

fn after(at: Id) -> Since {
    Since::After(at)
}

/// A mirror that is complete, and empty.
fn keeper(held: u64) -> Log {
    let log = Log::new(Numbering::Keep, limits(held));
    log.set_upstream_window(None);
    log
}

// --- single rules ---------------------------------------------------------------------------------------------------

#[test]
fn links_05_a_gap_into_a_new_epoch_does_not_make_that_epochs_positions_gone() {
    let log = keeper(1000);
    keep(&log, 0, 1, 100);
    // The origin was born again: what the old life held back is lost, the new one begins at 1.
    log.keep_gap(gap(whole(0, 101), whole(1, 0), None)).expect("it is taken");
    keep(&log, 1, 1, 10);
    for n in 0..=10 {
        assert_eq!(log.seek(Some(&after(whole(1, n))), 0), Start::At(101 + n), "E2-{n} is held");
    }
    assert_eq!(log.seek(Some(&after(whole(0, 100))), 0), Start::At(100), "and the gap is told to who left before it");
}

#[test]
fn links_05_a_reader_of_an_evicted_epoch_is_told_with_an_unknown_count() {
    let log = keeper(4);
    keep(&log, 0, 1, 3);
    keep(&log, 1, 1, 3);
    keep(&log, 1, 4, 3);
    let Start::Gap(gap, offset) = log.seek(Some(&after(whole(0, 2))), 0) else { panic!("E1 is gone") };
    assert_eq!((gap.to, gap.count, offset), (whole(1, 3), None, log.base()));
}

#[test]
fn links_06_before_the_mirror_is_complete_nothing_is_gone() {
    let log = Log::new(Numbering::Keep, limits(1000));
    let wants = [Some(after(whole(0, 50))), Some(Since::Oldest), Some(Since::Last(3)), Some(Since::Time(0)), None];
    for since in &wants {
        assert_eq!(log.seek(since.as_ref(), 0), Start::Unknown, "{since:?}: not connected yet");
    }
    assert_eq!(log.window(), None);
    log.set_upstream_window(Some(Window { oldest: whole(0, 41), next: whole(0, 101) }));
    assert_eq!(log.seek(Some(&after(whole(0, 50))), 0), Start::Unknown, "its epoch has not come yet");
    assert_eq!(log.seek(Some(&after(whole(9, 1))), 0), Start::Unknown);
    keep(&log, 0, 41, 5);
    assert_eq!(log.seek(Some(&after(whole(0, 50))), 0), Start::Ahead(after(whole(0, 50))));
    assert_eq!(log.seek(Some(&after(whole(9, 1))), 0), Start::Unknown, "a strange epoch may still be in what comes");
    assert_eq!(log.seek(Some(&Since::Last(3)), 0), Start::Unknown, "which are the last is not known yet");
    assert!(matches!(log.seek(Some(&after(whole(0, 20))), 0), Start::Gap(g, 0) if g.count == Some(20)));
    keep(&log, 0, 46, 55);
    assert_eq!(log.seek(Some(&after(whole(0, 50))), 0), Start::At(10));
    assert!(matches!(log.seek(Some(&after(whole(9, 1))), 0), Start::Gap(g, 0) if g.count.is_none()));
}

#[test]
fn links_08_now_is_the_upstreams_next_while_the_mirror_fills() {
    let log = Log::new(Numbering::Keep, limits(1000));
    let window = Window { oldest: whole(0, 1), next: whole(0, 11) };
    log.set_upstream_window(Some(window.clone()));
    assert_eq!(log.window(), Some(window.clone()), "the upstream's values are passed on");
    let Start::Ahead(now) = log.seek(None, 0) else { panic!("now has not come yet") };
    assert_eq!(now, after(whole(0, 10)));
    keep(&log, 0, 1, 8);
    assert_eq!(log.window(), Some(window));
    assert_eq!(log.seek(Some(&now), 0), Start::Ahead(now.clone()));
    keep(&log, 0, 9, 4);
    assert_eq!(log.seek(Some(&now), 0), Start::At(10), "11 was published after the reader came: it is its first");
    assert_eq!(log.seek(None, 0), Start::At(12), "from here on now is the end");
}

#[test]
fn links_08_an_empty_window_upstream_is_complete_at_once() {
    let log = Log::new(Numbering::Keep, limits(1000));
    log.set_upstream_window(Some(Window { oldest: whole(0, 6), next: whole(0, 6) }));
    assert_eq!(log.seek(None, 0), Start::At(0));
    assert_eq!(log.window(), Some(Window { oldest: whole(0, 6), next: whole(0, 6) }));
    assert_eq!(log.seek(Some(&after(whole(0, 5))), 0), Start::At(0));
    assert!(matches!(log.seek(Some(&after(whole(0, 3))), 0), Start::Gap(g, 0) if g.count == Some(2)));
}

#[test]
fn links_08_a_mirror_whose_newest_was_lost_upstream_is_complete_behind_the_gap() {
    let log = Log::new(Numbering::Keep, limits(1000));
    log.set_upstream_window(Some(Window { oldest: whole(0, 1), next: whole(0, 11) }));
    keep(&log, 0, 1, 8);
    log.keep_gap(gap(whole(0, 9), whole(0, 10), Some(2))).expect("it is taken");
    assert_eq!(log.seek(None, 0), Start::At(9));
}

#[test]
fn links_15_counts_stay_exact_after_an_older_gap_was_evicted() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(4));
    log.publish_gap(Some(2), "lost");
    for n in 3..=40u64 {
        log.publish(events(&[n.to_string()]), vec![], n).expect("it is taken");
    }
    let Start::Gap(gap, _) = log.seek(Some(&after(whole(0, 30))), 0) else { panic!("30 is gone") };
    assert_eq!((gap.from, gap.to, gap.count), (whole(0, 31), whole(0, 36), Some(6)));
}

#[test]
fn links_18_a_log_that_goes_on_behind_its_end_has_not_ended() {
    let log = keeper(1000);
    keep(&log, 0, 1, 3);
    log.finish();
    assert!(log.ended());
    assert_eq!(log.seek(None, 0), Start::At(3), "who comes now hears that it is over");
    // The forwarder stayed, and its upstream came back with a new life.
    keep(&log, 1, 1, 2);
    assert!(!log.ended());
    assert_eq!(log.seek(None, 0), Start::At(log.end()), "nothing of the past is now");
    assert_eq!(log.seek(Some(&after(whole(0, 3))), 0), Start::At(4), "the end in between is no reason to leave");
    log.finish();
    assert!(log.ended());
    let mut items = Vec::new();
    assert_eq!(log.read(6, 1 << 20, &mut items).map(|read| read.next), Ok(7));
    assert!(matches!(items[0].entry, Entry::End), "and it can end once more");
}

#[test]
fn links_02_becoming_an_origin_starts_a_new_epoch_behind_what_is_held() {
    let log = keeper(1000);
    keep(&log, 0, 1, 3);
    log.become_origin(epoch(1));
    log.publish_gap(None, "ids were lost");
    let batch = log.publish(events(&["x".into()]), vec![], 9).expect("an origin numbers");
    assert_eq!(batch.id(0), whole(1, 2));
    assert_eq!(log.seek(Some(&after(whole(0, 3))), 0), Start::At(3));
    assert_eq!(log.seek(Some(&after(whole(1, 0))), 0), Start::At(3));
    assert_eq!(log.seek(Some(&after(whole(1, 1))), 0), Start::At(4));
    assert!(!keep(&log, 0, 4, 2), "the epoch that was left does not come back");
}

#[test]
fn links_03_parts_are_resumed_part_by_part() {
    let log = keeper(1000);
    let part = |k| Seq { n: 5, k };
    let seqs = Seqs::of(vec![Seq::whole(4), part(1), part(2), part(3), Seq::whole(6)]);
    let texts: Vec<String> = ["4", "5.1", "5.2", "5.3", "6"].map(String::from).into();
    log.keep(Batch::new(epoch(0), seqs, 0, events(&texts), vec![])).expect("it is taken");
    let table = [
        (whole(0, 3), 0),
        (whole(0, 4), 1),
        (id(0, part(1)), 2),
        (id(0, part(3)), 4),
        (id(0, part(9)), 4),
        (whole(0, 5), 4),
        (whole(0, 6), 5),
    ];
    for (at, offset) in table {
        assert_eq!(log.seek(Some(&after(at.clone())), 0), Start::At(offset), "{at}");
    }
}

#[test]
fn age_evicts_also_the_newest() {
    let log = Log::new(Numbering::Own(epoch(0)), Limits { age: Some(Duration::from_secs(60)), ..limits(1000) });
    log.publish(events(&["a".into(), "b".into()]), vec![], 0).expect("it is taken");
    log.expire(Instant::now());
    assert_eq!(log.base(), 0);
    log.expire(Instant::now() + Duration::from_secs(61));
    assert_eq!((log.base(), log.end()), (2, 2));
    assert_eq!(log.seek(Some(&after(whole(0, 2))), 0), Start::At(2), "the newest position is still a place");
    assert!(matches!(log.seek(Some(&after(whole(0, 0))), 0), Start::Gap(g, 2) if g.count == Some(2)));
    assert_eq!(log.window(), Some(Window { oldest: whole(0, 3), next: whole(0, 3) }));
}

// --- block ----------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Pull {
    Publish(u64),
    Join { at: u64, named: bool },
    Ack { pin: usize, ahead: u64 },
    AckId { pin: usize, ahead: u64 },
    Leave { pin: usize, done: bool },
    Wait(u64),
}

fn pull() -> impl Strategy<Value = Pull> {
    prop_oneof![
        5 => (1u64..5).prop_map(Pull::Publish),
        2 => (0u64..20, any::<bool>()).prop_map(|(at, named)| Pull::Join { at, named }),
        4 => (0usize..4, 0u64..9).prop_map(|(pin, ahead)| Pull::Ack { pin, ahead }),
        2 => (0usize..4, 0u64..9).prop_map(|(pin, ahead)| Pull::AckId { pin, ahead }),
        1 => (0usize..4, any::<bool>()).prop_map(|(pin, done)| Pull::Leave { pin, done }),
        1 => (1u64..40).prop_map(Pull::Wait),
    ]
}

/// A reader as the model of `block` sees it.
struct Pinned {
    id: u64,
    at: u64,
    name: Option<String>,
    left: Option<Instant>,
}

struct Blocked {
    log: Log,
    next: u64,
    awaited: usize,
    pinned: Vec<Pinned>,
    now: Instant,
}

impl Blocked {
    fn low(&self) -> Option<u64> {
        let first = (self.awaited > 0).then_some(0);
        self.pinned.iter().map(|pin| pin.at).chain(first).min()
    }

    fn apply(&mut self, pull: &Pull) {
        match *pull {
            Pull::Publish(n) => {
                let texts: Vec<String> = (self.next..self.next + n).map(|n| n.to_string()).collect();
                self.log.publish(events(&texts), vec![], self.next).expect("it is taken");
                self.next += n;
            }
            Pull::Join { at, named } => self.join(at, named.then(|| "me".to_owned())),
            Pull::Ack { pin, ahead } | Pull::AckId { pin, ahead } => {
                let (end, by_id) = (self.log.end(), matches!(pull, Pull::AckId { .. }));
                let Some(pin) = self.pinned.get_mut(pin).filter(|pin| pin.left.is_none()) else { return };
                let at = (pin.at + ahead).min(end);
                pin.at = at.max(pin.at);
                if by_id {
                    self.log.ack_id(pin.id, &whole(0, at));
                } else {
                    self.log.ack(pin.id, at);
                }
            }
            Pull::Leave { pin, done } => {
                let Some(left) = self.pinned.get_mut(pin).filter(|pin| pin.left.is_none()) else { return };
                // The clock of `unpin` is the log's own; here it only ever runs ahead of it.
                self.log.unpin(left.id, done);
                left.left = Some(Instant::now());
                if done {
                    self.pinned.remove(pin);
                }
            }
            Pull::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.log.expire_pins(self.now);
                let now = self.now;
                self.pinned.retain(|pin| pin.left.is_none_or(|left| now.duration_since(left) < GRACE));
            }
        }
    }

    fn join(&mut self, at: u64, name: Option<String>) {
        let at = at.clamp(self.log.base(), self.log.end());
        let id = self.log.pin(at, name.clone()).expect("the policy is block");
        // Only who begins at or below the virtual pin takes it over.
        if at == 0 {
            self.awaited = self.awaited.saturating_sub(1);
        }
        // A name that comes again has left, noticed or not.
        let gone = |pin: &Pinned| pin.left.is_some() || name.is_some();
        let mine = |pin: &&Pinned| gone(pin) && pin.at <= at && pin.name == name;
        if let Some(old) = self.pinned.iter().filter(mine).max_by_key(|pin| (pin.at, pin.id)).map(|pin| pin.id) {
            self.pinned.retain(|pin| pin.id != old);
        }
        self.pinned.push(Pinned { id, at, name, left: None });
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn links_19_nothing_above_the_lowest_pin_is_evicted_and_the_publisher_waits(
        awaited in 1usize..3,
        pulls in prop::collection::vec(pull(), 1..60),
    ) {
        // Each event is three bytes with its header, so five of them fill the window.
        let bytes = 15;
        let log = Log::new(Numbering::Own(epoch(0)), Limits { events: 3, bytes, age: Some(Duration::from_secs(1)) });
        log.block(awaited, GRACE);
        let mut blocked = Blocked { log, next: 1, awaited, pinned: Vec::new(), now: Instant::now() };
        for pull in pulls {
            blocked.apply(&pull);
            blocked.log.expire(blocked.now + Duration::from_secs(1000));
            let (low, base, end) = (blocked.low(), blocked.log.base(), blocked.log.end());
            prop_assert!(low.is_none_or(|low| base <= low), "base {} above the lowest pin {:?}", base, low);
            let unread = low.map(|low| blocked.log.bytes_behind(low));
            prop_assert_eq!(blocked.log.has_room(), unread.is_none_or(|unread| unread < bytes), "{:?}", unread);
            prop_assert_eq!(blocked.log.is_drained(), low.is_none_or(|low| low >= end));
        }
    }
}

#[test]
fn links_10_what_a_finished_reader_acknowledged_stays_acknowledged() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(1000));
    log.block(1, GRACE);
    log.publish(events(&["a".into(), "b".into()]), vec![], 0).expect("it is taken");
    let pin = log.pin(0, None).expect("the policy is block");
    log.ack(pin, 2);
    log.unpin(pin, true);
    assert_eq!(log.acknowledged(), Some(whole(0, 2)), "the hop before must still hear it");
}

#[test]
fn links_21_the_pins_of_one_reader_that_came_again_too_soon_do_not_stay_behind() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(1000));
    log.block(1, GRACE);
    log.publish(events(&["a".into(), "b".into(), "c".into()]), vec![], 0).expect("it is taken");
    let me = || Some("me".to_owned());
    let first = log.pin(0, me()).expect("the policy is block");
    log.ack(first, 1);
    // Its next connection is there before anybody noticed that the first is gone.
    let second = log.pin(1, me()).expect("the policy is block");
    log.unpin(first, false);
    log.ack(second, 3);
    log.unpin(second, true);
    log.expire_pins(Instant::now() + GRACE);
    assert_eq!(log.acknowledged(), Some(whole(0, 3)));
    assert!(log.is_drained());
}

#[test]
fn links_20_a_reader_that_starts_behind_the_first_event_does_not_release_it() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(3));
    log.block(1, GRACE);
    for n in 1..=3 {
        log.publish(events(&[n.to_string()]), vec![], n).expect("it is taken");
    }
    let Start::At(now) = log.seek(Some(&Since::Now), 0) else { panic!("now is known") };
    let onlooker = log.pin(now, None).expect("the policy is block");
    for n in 4..=9 {
        log.publish(events(&[n.to_string()]), vec![], n).expect("it is taken");
        log.ack(onlooker, log.end());
    }
    assert_eq!(log.seek(None, 0), Start::At(0), "the first reader without a start gets all of it");
}

// --- a recorder that refuses ------------------------------------------------------------------------------------------

/// Keeps everything, or nothing while it is told to refuse.
#[derive(Clone, Default)]
struct Moody {
    refuses: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<String>>>,
}

impl Recorder for Moody {
    fn record(&mut self, records: &[(Record<'_>, Option<&Note>)], _: Extent) -> Result<(), AppendError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(AppendError::Unrecordable { reason: "a mood".into(), full: false });
        }
        let word = |record: &Record<'_>| match record {
            Record::Batch(batch) => format!("{}..{}", batch.seq(0), batch.last_seq()),
            Record::Gap(gap) => format!("gap {}", gap.to.seq),
            other => format!("{other:?}"),
        };
        self.kept.lock().expect("no panic").extend(records.iter().map(|(record, _)| word(record)));
        Ok(())
    }

    fn begin_own(&mut self, _: &Id, _: Extent) {}

    fn forget(&mut self, _: Extent) {}

    fn close(&mut self) {}
}

fn moody() -> (Arc<Log>, Moody) {
    let (log, moody) = (Log::new(Numbering::Own(epoch(0)), limits(100)), Moody::default());
    log.record_to(Box::new(moody.clone()), Arc::default());
    (Arc::new(log), moody)
}

#[test]
fn links_04_what_a_recorder_refuses_nobody_sees_and_its_numbers_come_next() {
    let (log, moody) = moody();
    let say = || log.publish(events(&["x".into(), "y".into()]), vec![], 0);
    assert_eq!(say().expect("it is taken").last_seq(), Seq::whole(2));
    moody.refuses.store(true, Ordering::SeqCst);
    let version = log.version();
    let part = |text: &str| Part { run: Some(events(&[text.into()])), ..Part::default() };
    assert!(say().is_err() && log.publish_parts(&[part("a"), part("b")], 0).is_err());
    assert_eq!((log.end(), log.totals().events, log.version()), (2, 2, version), "no reader is woken either");
    moody.refuses.store(false, Ordering::SeqCst);
    let batches = log.publish_parts(&[part("a"), part("b")], 0).expect("it is taken");
    assert_eq!(batches.iter().map(|batch| batch.last_seq()).collect::<Vec<_>>(), [Seq::whole(3), Seq::whole(4)]);
    assert_eq!(*moody.kept.lock().expect("no panic"), ["1..2", "3..3", "4..4"]);
}

#[test]
fn links_15_a_loss_that_a_recorder_refuses_is_told_before_the_next_event() {
    let (log, moody) = moody();
    moody.refuses.store(true, Ordering::SeqCst);
    log.publish_gap(Some(2), "lost");
    log.publish_gap(Some(3), "lost again");
    assert_eq!(log.end(), 0);
    moody.refuses.store(false, Ordering::SeqCst);
    let batch = log.publish(events(&["x".into()]), vec![], 0).expect("it is taken");
    assert_eq!(batch.last_seq(), Seq::whole(6));
    moody.refuses.store(true, Ordering::SeqCst);
    log.publish_gap(None, "lost");
    moody.refuses.store(false, Ordering::SeqCst);
    log.expire(Instant::now());
    assert_eq!(*moody.kept.lock().expect("no panic"), ["gap 5", "6..6", "gap 7"], "or when time passes");
}

#[tokio::test]
async fn who_waits_for_a_recorder_has_its_turn_before_who_comes_later() {
    let (log, moody) = moody();
    moody.refuses.store(true, Ordering::SeqCst);
    let said = |n: u64| {
        let log = log.clone();
        async move { log.until_kept(|| log.publish(events(&[n.to_string()]), vec![], n)).await }
    };
    let waiting: Vec<_> = (1..=3).map(|n| tokio::spawn(said(n))).collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.end(), 0);
    moody.refuses.store(false, Ordering::SeqCst);
    let late = said(4).await.expect("an origin");
    assert_eq!((late.time(), late.last_seq()), (4, Seq::whole(4)));
    for (n, waiting) in (1..).zip(waiting) {
        let batch = waiting.await.expect("no panic").expect("an origin");
        assert_eq!((batch.time(), batch.last_seq()), (n, Seq::whole(n)));
    }
}

// --- threads --------------------------------------------------------------------------------------------------------

#[test]
fn what_is_appended_at_once_is_told_once() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(100));
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    log.on_change(move |news| heard.lock().expect("no panic").push(news));
    let say = || log.publish(events(&["x".into()]), Vec::new(), 0).expect("it is taken");
    say();
    log.at_once(|| (say(), say(), say()));
    log.at_once(|| ());
    assert_eq!(*told.lock().expect("no panic"), [News::Wake, News::Deliver], "and nothing about nothing");
}

#[test]
fn news_of_others_are_not_held_back_for_longer_than_ours() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(100));
    let seen = Arc::new(AtomicU64::new(0));
    let (log, seen_now) = (Arc::new(log), seen.clone());
    let reader = Arc::downgrade(&log);
    log.on_change(move |_| {
        seen_now.store(reader.upgrade().map_or(0, |log| log.version()), Ordering::SeqCst);
    });
    let publishers = [0, 1].map(|_| {
        let log = log.clone();
        std::thread::spawn(move || {
            for _ in 0..2_000 {
                log.at_once(|| log.publish(events(&["x".into()]), Vec::new(), 0)).expect("it is taken");
                log.at_once(|| ());
                log.publish(events(&["x".into()]), Vec::new(), 0).expect("it is taken");
            }
        })
    });
    for publisher in publishers {
        publisher.join().expect("no panic");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 8_000, "the last word is about the last event");
}

#[tokio::test]
async fn a_source_that_is_far_ahead_waits_until_half_of_its_lead_is_gone() {
    let log = Log::new(Numbering::Own(epoch(0)), limits(100_000));
    let pump = log.add_pump();
    pump.stand(Some((0, 0)));
    let say = |kib: usize| log.publish(events(&["x".repeat(kib << 10)]), Vec::new(), 0).expect("it is taken");
    for _ in 0..64 {
        say(10);
    }
    let mut room = std::pin::pin!(log.room());
    let mut is_ready = || room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!is_ready(), "640 KiB ahead");
    pump.stand(Some((20, 0)));
    log.pump_moved();
    assert!(!is_ready(), "440 KiB ahead: not worth while yet");
    assert!(log.has_room(), "but whoever cannot wait need not");
    pump.stand(Some((40, 0)));
    log.pump_moved();
    assert!(is_ready(), "240 KiB ahead");
}

#[test]
fn readers_on_other_threads_see_every_event_in_order_or_are_told() {
    const EVENTS: u64 = 60_000;
    let log = Arc::new(Log::new(Numbering::Own(epoch(0)), limits(500)));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4usize)
        .map(|i| {
            let (log, done) = (log.clone(), done.clone());
            std::thread::spawn(move || follow(&log, &done, 1 << (4 * i)))
        })
        .collect();
    let mut next = 1;
    while next <= EVENTS {
        let n = (next % 7 + 1).min(EVENTS + 1 - next);
        let texts: Vec<String> = (next..next + n).map(|n| n.to_string()).collect();
        log.publish(events(&texts), vec![], next).expect("it is taken");
        next += n;
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().expect("no panic"), EVENTS, "read and told together");
    }
}

/// Reads to the end; returns how many events were seen or told as lost.
fn follow(log: &Log, done: &AtomicBool, bytes: usize) -> u64 {
    let (mut cursor, mut seen) = (0, 0);
    loop {
        let finished = done.load(Ordering::Acquire);
        let mut items = Vec::new();
        match log.read(cursor, bytes, &mut items) {
            Ok(Read { next, .. }) => {
                for row in rows_of(&items, cursor) {
                    let Row::Event { text, .. } = row else { panic!("no gap was published") };
                    seen += 1;
                    assert_eq!(text, seen.to_string());
                }
                if next == cursor && finished {
                    return seen;
                }
                cursor = next;
            }
            Err(lost) => {
                seen += lost.count.expect("exact");
                assert_eq!(lost.to, Some(whole(0, seen)));
                cursor = lost.resume;
            }
        }
    }
}
