//! What a source says goes through the stages into the log. Where a recorder keeps the log, what belongs together is
//! appended in one piece: all of it or nothing.

use super::{Topic, aside};
use crate::{
    event::{Attrs, Batch, Event, MAX_BATCH, Message, Run, RunBuilder, Seqs},
    id::{Id, Seq},
    log::Part,
    recorder::{AppendError, Note},
};
use std::sync::Arc;

/// The first and the last id and the count of what was published.
type IdSpan = (Id, Id, usize);

/// Sums up batches as they are published.
#[derive(Default)]
struct BatchSpan {
    ids: Option<(Id, Id)>,
    count: usize,
}

impl BatchSpan {
    fn take(&mut self, batches: &[Arc<Batch>]) {
        for batch in batches {
            let (first, last) = (batch.id(0), batch.id(batch.len() - 1));
            self.count += batch.len();
            self.ids = Some((self.ids.take().map_or(first, |(first, _)| first), last));
        }
    }

    fn ids(self) -> Option<IdSpan> {
        self.ids.map(|(first, last)| (first, last, self.count))
    }
}

impl Topic {
    /// Numbers and appends what a source says, without waiting; callers that may wait ask [`crate::log::Log::room`]
    /// first. Returns the first and the last id and the count; `None` when the stages left nothing.
    ///
    /// # Errors
    /// When the log's recorder does not take it.
    pub fn publish(&self, events: Vec<Event>, time: u64) -> Result<Option<IdSpan>, AppendError> {
        if self.log.vitals().is_some() {
            return self.publish_group(vec![(events, None)], time);
        }
        let mut span = BatchSpan::default();
        for (run, attrs) in batches(self.through_stages(events)) {
            span.take(self.log.publish(run, attrs, time).ok().as_slice());
        }
        Ok(span.ids())
    }

    /// The same for several groups of events, each with a note that a recorder keeps with its last: all or nothing. A
    /// note without events is kept, too.
    ///
    /// # Errors
    /// When the log's recorder does not take it.
    pub fn publish_group(
        &self,
        group: Vec<(Vec<Event>, Option<Note>)>,
        time: u64,
    ) -> Result<Option<IdSpan>, AppendError> {
        let parts: Vec<Part> = group.into_iter().flat_map(|(events, note)| self.parts(events, note)).collect();
        let mut span = BatchSpan::default();
        span.take(&self.append(&parts, time)?);
        Ok(span.ids())
    }

    /// Publishes batch by batch, each when there is room for it and the recorder takes it, so that one large input overruns
    /// nobody, and nothing is lost.
    pub async fn publish_with_patience(&self, events: Vec<Event>, time: u64) -> Option<IdSpan> {
        let mut span = BatchSpan::default();
        if self.log.vitals().is_none() {
            for (run, attrs) in batches(self.through_stages(events)) {
                self.log.room().await;
                span.take(self.log.publish(run, attrs, time).ok().as_slice());
            }
            return span.ids();
        }
        for parts in self.pieces(events) {
            self.log.room().await;
            let kept = self.log.until_kept(|| aside(self.waits(), || self.append(&parts, time))).await;
            span.take(&kept.unwrap_or_default());
        }
        span.ids()
    }

    /// Publishes a body: waits for room, but not for a recorder that does not take it. The note goes beside the last batch;
    /// it is made from the first id, where that is not `count` whole numbers before the last, and the count.
    ///
    /// # Errors
    /// When the log's recorder does not take it. Nothing is published then; of a body above half the window, the error
    /// says how much is.
    pub async fn publish_patiently_noted(
        &self,
        events: Vec<Event>,
        time: u64,
        note: impl FnOnce(Option<&Id>, usize) -> Option<Note>,
    ) -> Result<Option<IdSpan>, AppendError> {
        let (mut span, mut note) = (BatchSpan::default(), Some(note));
        let mut pieces = self.pieces(events).into_iter().peekable();
        while let Some(mut parts) = pieces.next() {
            self.log.room().await;
            let count = parts.iter().filter_map(|part| part.run.as_ref()).map(Run::len).sum::<usize>();
            if let (None, Some(last)) = (pieces.peek(), parts.last_mut()) {
                let first = span.ids.as_ref().map(|(first, _)| first);
                last.note = note.take().and_then(|note| note(first, span.count + count));
            }
            let appended = aside(self.waits(), || self.append(&parts, time));
            span.take(&appended.map_err(|error| error.behind(span.count))?);
        }
        Ok(span.ids())
    }

    /// What one read of an upstream brought, as soon as the recorder takes it, with a note beside the last of it. The
    /// caller has awaited room.
    pub async fn publish_noted_with_patience(&self, events: Vec<Event>, time: u64, note: Option<Note>) {
        let parts = self.parts(events, note);
        self.log.until_kept(|| self.append(&parts, time)).await;
    }

    /// Like [`Topic::publish_noted_with_patience`] for messages that are already laid out.
    pub async fn publish_run_with_patience(&self, run: Run, time: u64, note: Option<Note>) {
        let parts = match !self.staged && run.bytes().len() <= MAX_BATCH {
            true => vec![Part { run: Some(run), attrs: Vec::new(), note }],
            false => self.parts(events_of(&run), note),
        };
        self.log.until_kept(|| self.log.at_once(|| self.append(&parts, time))).await;
    }

    /// Like [`Topic::publish`] for messages that are already laid out.
    ///
    /// # Errors
    /// When the log's recorder does not take it.
    pub fn publish_run(&self, run: Run, time: u64) -> Result<(), AppendError> {
        if !self.staged && run.bytes().len() <= MAX_BATCH {
            self.log.publish(run, Vec::new(), time).map(drop)
        } else {
            self.publish(events_of(&run), time).map(drop)
        }
    }

    /// Appends what an upstream numbered. A stage that drops an event leaves a hole, one that splits it gives
    /// `S.1 … S.n` (LINKS 3).
    ///
    /// # Errors
    /// When the log's recorder does not take it. What it took of it is known when the same comes again.
    pub fn keep(&self, batch: impl Into<Arc<Batch>>) -> Result<(), AppendError> {
        let batch = batch.into();
        if !self.staged {
            return self.log.keep(batch).map(drop);
        }
        let (mut events, mut seqs) = (Vec::new(), Vec::new());
        for (i, event) in batch.events() {
            let results = self.through_stages(vec![event]);
            seqs.extend(names(batch.seq(i), results.len()));
            events.extend(results);
        }
        let mut seqs = seqs.into_iter();
        for (run, attrs) in batches(events) {
            let numbers = Seqs::of(seqs.by_ref().take(run.len()).collect());
            self.log.keep(Batch::new(batch.epoch().clone(), numbers, batch.time(), run, attrs))?;
        }
        self.log.advance(&batch.id(batch.len() - 1))
    }

    /// The same as soon as the recorder takes it. Whoever keeps numbers has pure stages, which may see an event again.
    pub async fn keep_with_patience(&self, batch: Batch) {
        let batch = Arc::new(batch);
        self.log.until_kept(|| self.log.at_once(|| self.keep(batch.clone()))).await;
    }

    fn waits(&self) -> bool {
        self.log.vitals().is_some_and(|vitals| vitals.waits)
    }

    fn append(&self, parts: &[Part], time: u64) -> Result<Vec<Arc<Batch>>, AppendError> {
        match self.log.publish_parts(parts, time) {
            Err(AppendError::NotOrigin) => Ok(Vec::new()),
            appended => appended,
        }
    }

    /// What the stages leave, in batches; the note goes with the last.
    fn parts(&self, events: Vec<Event>, note: Option<Note>) -> Vec<Part> {
        let part = |(run, attrs)| Part { run: Some(run), attrs, note: None };
        let mut parts: Vec<Part> = batches(self.through_stages(events)).into_iter().map(part).collect();
        if parts.is_empty() && note.is_some() {
            parts.push(Part::default());
        }
        if let Some(last) = parts.last_mut() {
            last.note = note;
        }
        parts
    }

    /// What is appended at once: a batch, or, where a recorder keeps the log, as much as readers can take in one piece.
    fn pieces(&self, events: Vec<Event>) -> Vec<Vec<Part>> {
        let limits = self.log.vitals().map(|_| self.log.limits());
        let (mut pieces, mut bytes, mut count): (Vec<Vec<Part>>, u64, u64) = (Vec::new(), 0, 0);
        for part in self.parts(events, None) {
            let run = part.run.as_ref().map_or((0, 0), |run| (run.bytes().len() as u64, run.len() as u64));
            (bytes, count) = (bytes + run.0, count + run.1);
            let fits = limits.is_some_and(|limits| bytes <= limits.bytes / 2 && count <= limits.events / 2);
            match pieces.last_mut().filter(|_| fits) {
                Some(piece) => piece.push(part),
                None => {
                    (bytes, count) = run;
                    pieces.push(vec![part]);
                }
            }
        }
        pieces
    }
}

/// What a stage's results for one event are called: itself, or `S.1 … S.n`. The parts of a part get a range of their own,
/// in order, so that no name is given twice.
fn names(seq: Seq, results: usize) -> Vec<Seq> {
    let part = |j: usize| Seq { n: seq.n, k: (seq.k << 16) + j as u32 };
    match (seq.k, results) {
        (0, 1) => vec![seq],
        _ => (1..=results).map(part).collect(),
    }
}

fn events_of(run: &Run) -> Vec<Event> {
    let event = |m: Message| Event { payload: run.bytes().slice(m.payload), text: m.text, attrs: None };
    run.messages().map(event).collect()
}

/// What is known of each event that has attributes, by its index in the run.
type RunAttrs = Vec<(u32, Arc<Attrs>)>;

/// Lays events into runs of at most [`MAX_BATCH`] bytes, or one event.
fn batches(events: Vec<Event>) -> Vec<(Run, RunAttrs)> {
    let (mut done, mut run, mut attrs) = (Vec::new(), RunBuilder::default(), Vec::new());
    for event in events {
        if run.size() > 0 && run.size() + event.payload.len() + 10 > MAX_BATCH {
            done.push((run.finish(), std::mem::take(&mut attrs)));
        }
        if let Some(known) = event.attrs {
            attrs.push((run.len() as u32, known));
        }
        run.push(event.text, &event.payload);
    }
    if run.size() > 0 {
        done.push((run.finish(), attrs));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_3_no_name_is_given_twice_and_order_holds() {
        let once: Vec<Seq> = [1, 3].into_iter().flat_map(|n| names(Seq::whole(n), 3)).collect();
        let twice: Vec<Seq> = once.iter().flat_map(|seq| names(*seq, 2)).collect();
        for named in [once, twice] {
            assert!(named.windows(2).all(|pair| pair[0] < pair[1]), "{named:?}");
        }
        assert_eq!(names(Seq::whole(5), 1), [Seq::whole(5)]);
        assert_eq!(names(Seq::whole(5), 0), []);
    }
}
