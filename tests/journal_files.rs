//! What a journal's files hold after anything happened to them: every truncation, every changed bit, no room, no order.

use proptest::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use wsevent::{
    event::{Attrs, Batch, Event, Run, Seqs},
    id::{Epoch, Id, Seq, Since},
    journal::{Machine, Store, SyncPolicy, recover},
    log::{Entry, Gap, Limits, Log, Numbering, Start},
    recorder::Note,
};

/// A directory that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("wsevent-files-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    /// Where the topic's segments are.
    fn topic(&self) -> PathBuf {
        self.0.join("topic-events")
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files(".segment")
    }

    fn set_aside(&self) -> Vec<PathBuf> {
        self.files(".damaged")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let files =
            fs::read_dir(self.topic()).expect("the topic's directory").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn machine() -> Machine {
    Machine { id: Some("m".into()), boot: Some("b".into()) }
}

/// A process's life on a journal.
struct Life {
    log: Log,
    continued: bool,
    torn: u64,
    damage: Option<recover::Damage>,
    notes: Vec<(String, String)>,
}

impl Life {
    fn keeper(dir: &Path, limits: Limits) -> Self {
        let log = Log::new(Numbering::Keep, limits);
        let store = Store::open(dir, SyncPolicy::Never, machine()).expect("a store");
        let opened = store.open_topic("/events", &log).expect("a journal");
        log.record_to(Box::new(opened.journal), opened.vitals);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let notes = opened.found.notes.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        Life { log, continued: opened.continues, torn: opened.found.torn, damage: opened.found.damage, notes }
    }

    /// An origin; every other life has an epoch of its own if numbers may not go on.
    fn origin(dir: &Path, limits: Limits) -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(1);
        let life = Life::keeper(dir, limits);
        match life.continued {
            true => life.log.continue_as_origin(),
            false => life.log.become_origin(Epoch::new(LIVES.fetch_add(1, Ordering::Relaxed), 7)),
        }
        life
    }

    fn say(&self, payloads: &[&str]) -> Id {
        let events: Vec<Event> = payloads.iter().map(|payload| Event::new(payload.to_string())).collect();
        let batch = self.log.publish(Run::of(&events), Vec::new(), 5).expect("an origin");
        batch.id(batch.len() - 1)
    }

    /// Everything that a reader from the beginning sees.
    fn told(&self) -> Vec<String> {
        let mut items = Vec::new();
        self.log.read(self.log.base(), usize::MAX, &mut items).expect("it is retained");
        let mut told = Vec::new();
        for item in items {
            match item.entry {
                Entry::Batch(batch) => told.extend(
                    batch
                        .events()
                        .map(|(i, event)| format!("{}={}", batch.seq(i), String::from_utf8_lossy(&event.payload))),
                ),
                Entry::Gap(gap) => told.push(format!("gap {}..{} {:?}", gap.from.seq, gap.to.seq, gap.count)),
                Entry::End => told.push("end".into()),
            }
        }
        told
    }
}

/// Four records behind the place: what each adds to what is told.
fn small_journal(dir: &Path) -> [Vec<String>; 5] {
    let life = Life::origin(dir, Limits::default());
    let mut stages = vec![life.told()];
    life.say(&["one"]);
    stages.push(life.told());
    life.say(&["two", "three"]);
    stages.push(life.told());
    life.log.publish_gap(Some(2), "lost");
    stages.push(life.told());
    life.say(&["six"]);
    stages.push(life.told());
    stages.try_into().expect("five")
}

/// Where each record of a segment ends.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (b"wsevent journal 1\n".len(), Vec::new());
    while let Some(head) = bytes.get(at..at + 4) {
        at += 12 + u32::from_le_bytes(head.try_into().expect("four")) as usize;
        ends.push(at);
    }
    ends
}

#[test]
fn a_restart_goes_on_where_it_stood() {
    let scratch = Scratch::new();
    let (first, last) = {
        let life = Life::origin(&scratch.0, Limits::default());
        assert!(!life.continued, "an empty directory has no numbers");
        (life.say(&["a"]), life.say(&["b", "c"]))
    };
    let life = Life::origin(&scratch.0, Limits::default());
    assert!(life.continued && life.damage.is_none() && life.torn == 0);
    assert_eq!(life.told(), ["1=a", "2=b", "3=c"]);
    assert_eq!(life.say(&["d"]), last.next());
    assert_eq!(life.log.seek(Some(&Since::After(first)), 0), Start::At(1), "a reader resumes");
    assert_eq!(life.log.window().map(|window| window.oldest.seq), Some(Seq::whole(1)));
}

#[test]
fn everything_about_an_event_survives() {
    let scratch = Scratch::new();
    let epoch = Epoch::new(9, 9);
    let to = serde_json::json!({"room": "a"}).as_object().cloned();
    let attrs =
        Arc::new(Attrs { kind: Some("alert".into()), to, time: Some(7), id: Some("x".into()), ..Attrs::default() });
    let seqs = vec![Seq::whole(3), Seq { n: 5, k: 1 }, Seq { n: 5, k: 2 }];
    let events = [Event::new("a"), Event::new(vec![0xff]), Event::new("")];
    {
        let life = Life::keeper(&scratch.0, Limits::default());
        let batch = Batch::new(epoch.clone(), Seqs::of(seqs.clone()), 77, Run::of(&events), vec![(1, attrs.clone())]);
        life.log.keep(batch).expect("it is taken");
        life.log.advance(&Id { epoch: epoch.clone(), seq: Seq::whole(8) }).expect("it is taken");
    }
    let life = Life::keeper(&scratch.0, Limits::default());
    let mut items = Vec::new();
    life.log.read(0, usize::MAX, &mut items).expect("it is retained");
    let Some(Entry::Batch(batch)) = items.pop().map(|item| item.entry) else { panic!("no batch") };
    assert_eq!((0..3).map(|i| batch.seq(i)).collect::<Vec<_>>(), seqs);
    assert_eq!(batch.time(), 77);
    assert_eq!((batch.attrs_of(0), batch.attrs_of(1)), (None, Some(&attrs)));
    assert_eq!(batch.events().map(|(_, event)| event.payload).collect::<Vec<_>>(), events.map(|event| event.payload));
    assert_eq!(life.log.last(), Some(Id { epoch, seq: Seq::whole(8) }), "the place behind what was left out");
}

#[test]
fn every_truncation_keeps_what_is_whole() {
    let scratch = Scratch::new();
    let stages = small_journal(&scratch.0);
    let segment = scratch.segments().remove(0);
    let whole = fs::read(&segment).expect("a segment");
    let ends = ends(&whole);
    for len in 0..whole.len() {
        fs::write(&segment, &whole[..len]).expect("write");
        let life = Life::origin(&scratch.0, Limits::default());
        let records = ends.iter().filter(|&&end| end <= len).count();
        let expected = if records == 0 { Vec::new() } else { stages[records - 1].clone() };
        assert_eq!(life.told(), expected, "cut to {len}");
        assert_eq!(life.continued, records > 0, "cut to {len}: who cut it has seen nothing of what was cut");
        assert!(life.damage.is_none());
        life.say(&["next"]);
        let told = life.told();
        drop(life);
        assert_eq!(Life::keeper(&scratch.0, Limits::default()).told(), told, "cut to {len}, repaired, continued");
        fs::remove_dir_all(scratch.topic()).expect("remove");
        fs::create_dir_all(scratch.topic()).expect("create");
        fs::write(scratch.topic().join("state"), "boot b\nsync never\n").expect("write");
    }
}

#[test]
fn every_changed_bit_is_found_and_nothing_behind_it_is_believed() {
    let scratch = Scratch::new();
    let stages = small_journal(&scratch.0);
    let segment = scratch.segments().remove(0);
    let whole = fs::read(&segment).expect("a segment");
    let ends = ends(&whole);
    for bit in 0..whole.len() * 8 {
        let (at, mut changed) = (bit / 8, whole.clone());
        changed[at] ^= 1 << (bit % 8);
        let (mut records, bytes) = (0, changed.clone().into());
        let (sound, ending) = recover::read_segment(&bytes, &mut |_| records += 1);
        assert_eq!(records, ends.iter().filter(|&&end| end <= at).count(), "bit {bit}");
        assert!(matches!(ending, recover::Ending::Damaged(_)), "bit {bit}: {ending:?}");
        // The files' side of it, for one bit of each byte.
        if bit % 8 != at % 8 {
            continue;
        }
        fs::write(&segment, &changed).expect("write");
        fs::write(scratch.topic().join("state"), "boot b\nsync never\n").expect("write");
        {
            let life = Life::origin(&scratch.0, Limits::default());
            assert!(!life.continued && life.damage.is_some(), "bit {bit}: its numbers may have been seen");
            let expected = if records == 0 { Vec::new() } else { stages[records - 1].clone() };
            assert_eq!(life.told(), expected, "bit {bit}");
            life.say(&["next"]);
        }
        let aside = scratch.set_aside();
        assert_eq!(fs::read(&aside[0]).expect("set aside"), changed[sound..], "bit {bit}: all of the rest is kept");
        let again = Life::origin(&scratch.0, Limits::default());
        assert!(again.continued && again.damage.is_none(), "bit {bit}: once");
        drop(again);
        for file in scratch.segments().into_iter().chain(aside) {
            fs::remove_file(file).expect("remove");
        }
    }
}

#[test]
fn who_dies_right_after_damage_was_set_aside_leaves_no_numbers_to_go_on_with() {
    let scratch = Scratch::new();
    small_journal(&scratch.0);
    let segment = scratch.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("a segment");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&segment, bytes).expect("write");
    assert!(Life::keeper(&scratch.0, Limits::default()).damage.is_some(), "and it writes nothing");
    let life = Life::origin(&scratch.0, Limits::default());
    assert!(life.damage.is_none() && !life.continued);
}

#[test]
fn a_segment_that_is_missing_in_the_middle_ends_what_is_believed() {
    let scratch = Scratch::new();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let block = "x".repeat(10_000);
    {
        let life = Life::origin(&scratch.0, limits);
        (0..60).for_each(|_| drop(life.say(&[&block])));
    }
    let segments = scratch.segments();
    assert!(segments.len() >= 4, "{segments:?}");
    fs::remove_file(&segments[1]).expect("remove");
    let life = Life::origin(&scratch.0, limits);
    assert!(!life.continued && life.damage.is_some());
    assert_eq!(scratch.set_aside().len(), segments.len() - 2);
    let told = life.told();
    assert!((5..15).contains(&told.len()), "the first segment's: {}", told.len());
}

#[test]
fn the_disk_holds_little_more_than_the_window() {
    let scratch = Scratch::new();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let block = "x".repeat(10_000);
    let size = || scratch.segments().iter().map(|path| fs::metadata(path).expect("a file").len()).sum::<u64>();
    let (told, last) = {
        let life = Life::origin(&scratch.0, limits);
        let last = (0..1000).map(|_| life.say(&[&block])).last();
        assert!(size() < limits.bytes + (limits.bytes / 4), "{}", size());
        (life.told(), last.expect("a thousand"))
    };
    let life = Life::origin(&scratch.0, limits);
    assert!(life.continued);
    assert_eq!(life.told(), told);
    assert_eq!(life.say(&["next"]), last.next());
    assert_eq!(life.log.seek(Some(&Since::After(Id { seq: Seq::whole(3), ..last })), 0), {
        let floor = life.log.window().expect("a window").oldest.previous();
        let from = Id { seq: Seq::whole(4), ..floor.clone() };
        let count = Some(floor.seq.n - 3);
        Start::Gap(Gap { from, to: floor, count, reason: "no longer retained".into() }, life.log.base())
    });
}

#[test]
fn what_is_too_old_leaves_the_disk_also_when_nothing_more_comes() {
    let scratch = Scratch::new();
    let limits = Limits { age: Some(Duration::from_millis(20)), ..Limits::default() };
    let last = {
        let life = Life::origin(&scratch.0, limits);
        let last = life.say(&["secret"]);
        std::thread::sleep(Duration::from_millis(30));
        life.log.expire(std::time::Instant::now());
        last
    };
    for segment in scratch.segments() {
        let bytes = fs::read(segment).expect("a segment");
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
    let life = Life::origin(&scratch.0, limits);
    assert!(life.continued && life.told().is_empty());
    assert_eq!(life.say(&["next"]), last.next(), "numbers go on though no event is left");
}

#[test]
fn what_became_too_old_while_nobody_was_there_is_not_told() {
    let scratch = Scratch::new();
    let limits = Limits { age: Some(Duration::from_millis(50)), ..Limits::default() };
    let last = Life::origin(&scratch.0, limits).say(&["old"]);
    std::thread::sleep(Duration::from_millis(60));
    let life = Life::origin(&scratch.0, limits);
    assert!(life.continued && life.told().is_empty(), "{:?}", life.told());
    assert_eq!(life.say(&["next"]), last.next());
}

#[test]
fn notes_stay_with_their_events_and_outlive_them() {
    let scratch = Scratch::new();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let note = |name: &str, value: &str| Note { name: name.into(), value: value.to_owned().into(), lasting: true };
    {
        let life = Life::origin(&scratch.0, limits);
        let run = || Run::of(&[Event::new("x".repeat(10_000))]);
        life.log.publish_noted(run(), Vec::new(), 0, Some(note("a", "early"))).expect("it is taken");
        life.log.note(&note("b", "old")).expect("it is taken");
        life.log.note(&note("b", "new")).expect("it is taken");
        life.log.note(&note("c", "wrong")).expect("it is taken");
        life.log.note(&note("c", "")).expect("it is taken");
        (0..300).for_each(|_| drop(life.log.publish(run(), Vec::new(), 0)));
    }
    let notes = Life::keeper(&scratch.0, limits).notes;
    assert_eq!(notes, [("a".to_owned(), "early".to_owned()), ("b".to_owned(), "new".to_owned())]);
}

#[test]
fn a_keeper_keeps_floors_gaps_and_epochs() {
    let scratch = Scratch::new();
    let (old, new) = (Epoch::new(1, 1), Epoch::new(2, 2));
    let id = |epoch: &Epoch, n| Id { epoch: epoch.clone(), seq: Seq::whole(n) };
    let batch = |epoch: &Epoch, n| Batch::new(epoch.clone(), Seqs::From(n), 0, Run::of(&[Event::new("x")]), Vec::new());
    let expected = ["7=x", "gap 8..9 Some(2)", "10=x", "gap 11..4 None", "5=x"];
    {
        let life = Life::keeper(&scratch.0, Limits::default());
        life.log.advance(&id(&old, 4)).expect("it is taken");
        life.log.keep(batch(&old, 7)).expect("it is taken");
        life.log
            .keep_gap(Gap { from: id(&old, 8), to: id(&old, 9), count: Some(2), reason: "told".into() })
            .expect("it is taken");
        life.log.keep(batch(&old, 10)).expect("it is taken");
        life.log
            .keep_gap(Gap { from: id(&old, 11), to: id(&new, 4), count: None, reason: "told".into() })
            .expect("it is taken");
        life.log.keep(batch(&new, 5)).expect("it is taken");
        assert_eq!(life.told(), expected);
    }
    let life = Life::keeper(&scratch.0, Limits::default());
    assert_eq!(life.told(), expected);
    assert_eq!(life.log.last(), Some(id(&new, 5)));
    assert!(!life.continued, "it has no numbers of its own");
    assert_eq!(life.log.seek(Some(&Since::After(id(&old, 5))), 0), Start::At(0), "5 and 6 were never there");
    assert!(matches!(life.log.seek(Some(&Since::After(id(&old, 3))), 0), Start::Gap(..)));
    let again = [5, 6].map(|n| life.log.keep(batch(&new, n)));
    assert_eq!(again, [Ok(false), Ok(true)], "what comes again is known");
}

#[test]
fn another_boot_or_a_withdrawn_promise_begins_an_epoch() {
    let scratch = Scratch::new();
    let first = Life::origin(&scratch.0, Limits::default()).say(&["a"]);
    fs::write(scratch.topic().join("state"), "boot other\nmachine m\nsync never\n").expect("write");
    {
        let life = Life::origin(&scratch.0, Limits::default());
        assert!(!life.continued);
        assert_ne!(life.say(&["b"]).epoch, first.epoch);
        life.log.close();
    }
    let state = fs::read_to_string(scratch.topic().join("state")).expect("a promise");
    fs::write(scratch.topic().join("state"), state.replace("boot b", "boot c")).expect("write");
    let life = Life::origin(&scratch.0, Limits::default());
    assert!(life.continued, "it was closed in order");
    assert_eq!(life.told(), ["1=a", "1=b"]);
}

#[test]
fn two_cannot_have_one_directory() {
    let scratch = Scratch::new();
    let open = || Store::open(&scratch.0, SyncPolicy::Never, machine());
    let first = open().expect("free");
    let refusal = open().err().expect("taken").to_string();
    assert!(refusal.contains("in use by another process"), "{refusal}");
    drop(first);
    assert!(open().is_ok());
}

/// What an upstream may do to a keeper.
#[derive(Clone, Debug)]
enum Step {
    /// So many events, some of which may be known already, behind a hole.
    Events { back: u64, hole: u64, count: u64 },
    /// So many were left out.
    Advance(u64),
    /// So many are lost.
    Lose { count: u64, known: bool },
    /// Its origin lives again.
    Epoch,
    /// We are killed and start again.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..3, 0u64..3, 1u64..4).prop_map(|(back, hole, count)| Step::Events { back, hole, count }),
        1 => (1u64..5).prop_map(Step::Advance),
        1 => (1u64..5, any::<bool>()).prop_map(|(count, known)| Step::Lose { count, known }),
        1 => Just(Step::Epoch),
        2 => Just(Step::Kill),
    ]
}

/// Does the step to a log whose upstream stands at `at`; says where it stands then.
fn walk(log: &Log, step: &Step, at: &Id) -> Id {
    let ahead = |by: u64| Id { seq: Seq::whole(at.seq.n + by), ..at.clone() };
    match step {
        Step::Events { back, hole, count } => {
            let first = (at.seq.n + 1 + hole).saturating_sub(back + hole * back).max(1);
            let events = vec![Event::new("x".repeat(9000)); *count as usize];
            let (numbers, run) = (Seqs::From(first), Run::of(&events));
            log.keep(Batch::new(at.epoch.clone(), numbers, 0, run, Vec::new())).expect("it is taken");
            ahead((first + count - 1).saturating_sub(at.seq.n))
        }
        Step::Advance(by) => {
            log.advance(&ahead(*by)).expect("it is taken");
            ahead(*by)
        }
        Step::Lose { count, known } => {
            let count = known.then_some(*count).or(None);
            log.keep_gap(Gap { from: ahead(1), to: ahead(count.unwrap_or(2)), count, reason: "told".into() })
                .expect("it is taken");
            ahead(count.unwrap_or(2))
        }
        Step::Epoch => Id { epoch: Epoch::new(at.epoch.birth() + 1, 1), seq: Seq::whole(0) },
        Step::Kill => at.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever an upstream does: a keeper that is killed now and then holds what one holds that never was.
    #[test]
    fn kills_do_not_show(steps in prop::collection::vec(step(), 1..60)) {
        let (scratch, limits) = (Scratch::new(), Limits { events: 25, ..Limits::default() });
        let spared = Life { log: Log::new(Numbering::Keep, limits), ..Life::keeper(&Scratch::new().0, limits) };
        let mut killed = Life::keeper(&scratch.0, limits);
        let mut at = Id { epoch: Epoch::new(1, 1), seq: Seq::whole(0) };
        for step in steps {
            if matches!(step, Step::Kill) {
                drop(killed);
                killed = Life::keeper(&scratch.0, limits);
                prop_assert!(killed.damage.is_none() && killed.torn == 0);
            }
            let next = walk(&spared.log, &step, &at);
            prop_assert_eq!(walk(&killed.log, &step, &at), next.clone());
            at = next;
        }
        prop_assert_eq!(killed.told(), spared.told());
        prop_assert_eq!(killed.log.last(), spared.log.last());
        [&killed, &spared].iter().for_each(|life| life.log.set_upstream_window(None));
        prop_assert_eq!(killed.log.window(), spared.log.window());
    }

    /// Any bytes: no panic, nothing beyond them, and what was read is read again.
    #[test]
    fn any_bytes_are_read_without_harm(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [b"wsevent journal 1\n".as_slice(), &tail].concat();
        let (sound, _) = recover::read_segment(&bytes.clone().into(), &mut |_| ());
        prop_assert!(sound <= bytes.len());
        let again = recover::read_segment(&bytes[..sound].to_vec().into(), &mut |_| ());
        prop_assert_eq!(again, (sound, recover::Ending::Whole));
    }

    /// Whatever was published in how many lives is told in order, once, under ids that were never given twice.
    #[test]
    fn many_lives_are_one_stream(lives in prop::collection::vec(prop::collection::vec(1usize..4, 0..6), 1..5)) {
        let scratch = Scratch::new();
        let (mut said, mut ids) = (Vec::new(), Vec::new());
        for batches in lives {
            let life = Life::origin(&scratch.0, Limits::default());
            for size in batches {
                let payloads: Vec<String> = (0..size).map(|i| format!("{}", said.len() + i)).collect();
                ids.push(life.say(&payloads.iter().map(String::as_str).collect::<Vec<_>>()));
                said.extend(payloads);
            }
        }
        prop_assert!(ids.windows(2).all(|pair| pair[0].epoch == pair[1].epoch && pair[0].seq < pair[1].seq));
        let expected: Vec<String> = said.iter().enumerate().map(|(i, said)| format!("{}={said}", i + 1)).collect();
        prop_assert_eq!(Life::keeper(&scratch.0, Limits::default()).told(), expected);
    }
}
