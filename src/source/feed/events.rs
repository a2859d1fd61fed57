//! What an upstream says, into the topic: under its numbers or under ours. Where the topic's log takes nothing for a while,
//! the upstream is not read meanwhile.

use super::{super::place::Place, Feed};
use crate::{
    event::{Batch, Event, Run, Seqs},
    id::{Epoch, Id, Seq},
    recorder::Note,
    units::now_ms,
};

impl Feed {
    /// Messages with numbers `first, first+1, …`, or without any. The caller has awaited room; the topic's log is kept
    /// in memory only, which takes everything.
    pub fn run(&mut self, run: Run, first: Option<(Id, u64)>) {
        let Some((first, time)) = first else {
            let _ = self.topic.publish_run(run, now_ms());
            return;
        };
        let batch = self.named(run, first, time);
        let last = batch.id(batch.len() - 1);
        if self.keeps {
            let _ = self.topic.keep(batch);
        } else {
            let (seen, _) = self.mark(&batch);
            if seen == 0 {
                let _ = self.topic.publish_run(batch.run().clone(), time);
            } else {
                let _ = self.topic.publish(batch.events().skip(seen).map(|(_, event)| event).collect(), time);
            }
        }
        self.passed(last);
        self.took_event();
        self.write_cursor();
    }

    /// The same as soon as the topic's log takes it.
    pub async fn run_with_patience(&mut self, run: Run, first: Option<(Id, u64)>) {
        let Some((first, time)) = first else {
            self.topic.publish_run_with_patience(run, now_ms(), None).await;
            return;
        };
        let batch = self.named(run, first, time);
        let last = batch.id(batch.len() - 1);
        self.take(batch).await;
        self.passed(last);
        self.took_event();
        self.write_cursor();
    }

    /// The batch of messages of which the first has this number.
    fn named(&mut self, run: Run, first: Id, time: u64) -> Batch {
        self.time = time;
        let count = run.len() as u64;
        // Only the first can be a part: each further message has the next whole number (LINKS 10).
        let rest = (1..count).map(|i| Seq::whole(first.seq.n + i));
        let seqs = match first.seq.k {
            0 => Seqs::From(first.seq.n),
            _ => Seqs::of(std::iter::once(first.seq).chain(rest).collect()),
        };
        Batch::new(first.epoch, seqs, time, run, Vec::new())
    }

    /// Events one by one, as protocols other than a link bring them: all with an id of ours, or none.
    pub async fn events(&mut self, events: Vec<(Option<Id>, Event)>, time: u64) {
        self.topic.log.room().await;
        let mut rest = events.into_iter().peekable();
        while let Some((id, event)) = rest.next() {
            let Some(id) = id else {
                let unnamed = std::iter::from_fn(|| rest.next_if(|(id, _)| id.is_none()));
                let events = std::iter::once(event).chain(unnamed.map(|(_, event)| event)).collect();
                self.topic.publish_noted_with_patience(events, time, self.noted_foreign()).await;
                self.took_event();
                continue;
            };
            let (mut seqs, mut batch) = (vec![id.seq], vec![event]);
            while let Some((Some(next), event)) =
                rest.next_if(|(next, _)| next.as_ref().is_some_and(|n| n.epoch == id.epoch))
            {
                seqs.push(next.seq);
                batch.push(event);
            }
            let last = seqs.last().copied().unwrap_or(id.seq);
            self.time = time;
            self.numbered(&id.epoch, seqs, &batch, time).await;
            self.passed(Id { epoch: id.epoch, seq: last });
            self.took_event();
        }
        self.write_cursor();
    }

    /// The same of an upstream that numbers in its own way, and calls the last of them `id`.
    pub async fn foreign_events(&mut self, events: Vec<(Option<Id>, Event)>, time: u64, id: String) {
        self.health.passed_foreign(&id);
        self.foreign = Some(id.clone());
        if events.is_empty() {
            self.note_alone(self.noted_foreign());
        }
        self.events(events, time).await;
        self.lay(Place::Foreign(id));
    }

    async fn numbered(&self, epoch: &Epoch, seqs: Vec<Seq>, events: &[Event], time: u64) {
        let attrs = events.iter().enumerate().filter_map(|(i, event)| Some((i as u32, event.attrs.clone()?)));
        let batch = Batch::new(epoch.clone(), Seqs::of(seqs), time, Run::of(events), attrs.collect());
        self.take(batch).await;
    }

    /// Appends it as soon as the topic's log takes it.
    async fn take(&self, batch: Batch) {
        if self.keeps { self.topic.keep_with_patience(batch).await } else { self.renumber(batch).await }
    }

    /// How many of these events another upstream brought already, and what to note beside the rest.
    fn mark(&self, batch: &Batch) -> (usize, Option<Note>) {
        let mut marks = self.marks.lock().unwrap_or_else(|p| p.into_inner());
        let seen = marks.get(batch.epoch()).map_or(0, |mark| batch.count_to(mark.covering()));
        let mark = marks.entry(batch.epoch().clone()).or_insert(batch.last_seq());
        *mark = batch.last_seq().max(*mark);
        (seen, self.noted(|| Some(Place::Ours(batch.id(batch.len() - 1)))))
    }

    async fn renumber(&self, batch: Batch) {
        let (seen, note) = self.mark(&batch);
        if seen == 0 && batch.attrs().is_empty() {
            self.topic.publish_run_with_patience(batch.run().clone(), batch.time(), note).await;
        } else {
            let events = batch.events().skip(seen).map(|(_, event)| event).collect();
            self.topic.publish_noted_with_patience(events, batch.time(), note).await;
        }
    }
}
