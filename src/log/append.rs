//! Appending: numbers are given, a recorder keeps the entries, then readers see them. What the recorder refuses nobody
//! sees, and its numbers are given to what comes next (LINKS 4).

use super::{
    Log,
    state::State,
    words::{Entry, Gap, Numbering, Part},
};
use crate::{
    event::{Attrs, Batch, Run, Seqs},
    id::{Epoch, Id, Seq},
    recorder::{AppendError, Note, Record},
};
use std::{sync::Arc, time::Duration};

/// Between two attempts of a source that waits for the recorder.
const PAUSE: Duration = Duration::from_millis(250);

/// A loss that is to be told before the next event.
pub(super) struct Owed {
    count: Option<u64>,
    reason: Arc<str>,
}

/// Entries that have their numbers and are not appended yet.
struct Draft {
    gap: Option<Arc<Gap>>,
    batches: Vec<Arc<Batch>>,
    /// The number behind them.
    next: u64,
}

impl Draft {
    /// The gap, then each part's batch or only its note.
    fn records<'a>(&'a self, parts: &'a [Part]) -> Vec<(Record<'a>, Option<&'a Note>)> {
        let mut batches = self.batches.iter();
        let mut records: Vec<_> = self.gap.iter().map(|gap| (Record::Gap(gap), None)).collect();
        records.extend(parts.iter().map(|part| {
            let batch = part.run.as_ref().and_then(|_| batches.next());
            (batch.map_or(Record::Nothing, |batch| Record::Batch(batch)), part.note.as_ref())
        }));
        records
    }
}

impl State {
    fn draft(&self, parts: &[Part], time: u64) -> Result<Draft, AppendError> {
        let Numbering::Own(epoch) = &self.numbering else { return Err(AppendError::NotOrigin) };
        let mut draft = Draft { gap: None, batches: Vec::with_capacity(parts.len()), next: self.next_own };
        if let Some(owed) = &self.owed {
            let gap = owed.to_gap(epoch, draft.next);
            draft.next = gap.to.seq.n + 1;
            draft.gap = Some(Arc::new(gap));
        }
        for part in parts {
            let Some(run) = &part.run else { continue };
            let seqs = Seqs::From(draft.next);
            draft.next += run.len() as u64;
            draft.batches.push(Arc::new(Batch::new(epoch.clone(), seqs, time, run.clone(), part.attrs.clone())));
        }
        Ok(draft)
    }

    fn take_draft(&mut self, draft: Draft) -> Vec<Arc<Batch>> {
        self.next_own = draft.next;
        if let Some(gap) = draft.gap {
            self.owed = None;
            self.take_gap(Arc::unwrap_or_clone(gap), None);
        }
        for batch in &draft.batches {
            self.push(batch.last_seq(), Entry::Batch(batch.clone()), None);
        }
        draft.batches
    }

    fn owe(&mut self, count: Option<u64>, reason: &str) {
        if matches!(self.numbering, Numbering::Own(_)) {
            let before = self.owed.take().map_or(Some(0), |owed| owed.count);
            self.owed = Some(Owed { count: before.zip(count).map(|(a, b)| a + b), reason: reason.into() });
        }
    }
}

impl Owed {
    /// It takes numbers of its own, so that it has a place in order. A count from the wire must not use them up.
    fn to_gap(&self, epoch: &Epoch, first: u64) -> Gap {
        let width = self.count.unwrap_or(1).clamp(1, 1 << 32);
        let id = |n| Id { epoch: epoch.clone(), seq: Seq::whole(n) };
        Gap { from: id(first), to: id(first + width - 1), count: self.count, reason: self.reason.clone() }
    }
}

impl Log {
    /// Numbers and appends events that the origin publishes; returns the batch. A run longer than
    /// [`crate::event::MAX_BATCH`] is the caller's to split.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn publish(&self, run: Run, attrs: Vec<(u32, Arc<Attrs>)>, time: u64) -> Result<Arc<Batch>, AppendError> {
        self.publish_noted(run, attrs, time, None)
    }

    /// The same with a note that is kept with the events.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn publish_noted(
        &self,
        run: Run,
        attrs: Vec<(u32, Arc<Attrs>)>,
        time: u64,
        note: Option<Note>,
    ) -> Result<Arc<Batch>, AppendError> {
        if self.kept.get().is_some() {
            let part = Part { run: Some(run), attrs, note };
            return self.publish_parts(&[part], time)?.pop().ok_or(AppendError::NotOrigin);
        }
        let mut state = self.state();
        let Numbering::Own(epoch) = state.numbering.clone() else { return Err(AppendError::NotOrigin) };
        let seqs = Seqs::From(state.next_own);
        state.next_own += run.len() as u64;
        let batch = Arc::new(Batch::new(epoch, seqs, time, run, attrs));
        state.push(batch.last_seq(), Entry::Batch(batch.clone()), None);
        self.announce(state);
        Ok(batch)
    }

    /// Numbers and appends all of these or none; returns the batches.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn publish_parts(&self, parts: &[Part], time: u64) -> Result<Vec<Arc<Batch>>, AppendError> {
        let mut turn = self.turn();
        let state = self.state();
        let draft = state.draft(parts, time)?;
        let records = draft.records(parts);
        let mut state = self.record(&mut turn, state, &records)?;
        drop(records);
        let before = state.end;
        let batches = state.take_draft(draft);
        if state.end > before {
            self.announce(state);
        }
        Ok(batches)
    }

    /// Appends events that an upstream numbered; what the log already has, by position, is dropped. Says whether
    /// anything was new. An epoch enters once: one that was left for another does not come back (LINKS 5).
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn keep(&self, batch: impl Into<Arc<Batch>>) -> Result<bool, AppendError> {
        let mut turn = self.turn();
        let state = self.state();
        let Some(batch) = state.unseen(batch.into()) else { return Ok(false) };
        let mut state = self.record(&mut turn, state, &[(Record::Batch(&batch), None)])?;
        state.take_batch(batch, None);
        state.arrive();
        self.announce(state);
        Ok(true)
    }

    /// Appends a loss that an upstream told, or that we noticed on the way (LINKS 15, 17).
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn keep_gap(&self, gap: Gap) -> Result<(), AppendError> {
        let mut turn = self.turn();
        let state = self.state();
        if state.has_passed(&gap.to) {
            return Ok(());
        }
        let mut state = self.record(&mut turn, state, &[(Record::Gap(&gap), None)])?;
        state.take_gap(gap, None);
        state.arrive();
        self.announce(state);
        Ok(())
    }

    /// The origin itself lost something. Where the recorder does not take it now, it stands before what is appended next.
    pub fn publish_gap(&self, count: Option<u64>, reason: &str) {
        self.state().owe(count, reason);
        self.settle_gap();
    }

    /// Tells a loss that is owed, if the recorder takes it.
    pub(super) fn settle_gap(&self) {
        let owed = self.state().owed.is_some();
        if owed && let Err(error) = self.publish_parts(&[], 0) {
            tracing::debug!(%error, "a gap is not told yet");
        }
    }

    /// Nothing of ours is missing up to here, though no event stands there: an upstream or a stage left it out (LINKS 7).
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn advance(&self, id: &Id) -> Result<(), AppendError> {
        let mut turn = self.turn();
        let state = self.state();
        if state.has_passed(id) {
            return Ok(());
        }
        let mut state = self.record(&mut turn, state, &[(Record::Place(id, false), None)])?;
        state.take_place(id);
        state.arrive();
        self.announce(state);
        self.signal_room();
        Ok(())
    }

    /// Keeps a note that belongs to no entry.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn note(&self, note: &Note) -> Result<(), AppendError> {
        let (mut turn, state) = (self.turn(), self.state());
        self.record(&mut turn, state, &[(Record::Nothing, Some(note))]).map(drop)
    }

    /// Repeats an append until the recorder takes it; those who wait have their turn in order. `None` where the log
    /// gives no numbers.
    pub async fn until_kept<T>(&self, mut append: impl FnMut() -> Result<T, AppendError>) -> Option<T> {
        // Nobody passes those who wait already.
        if self.held_up.try_lock().is_ok() {
            match append() {
                Ok(kept) => return Some(kept),
                Err(AppendError::NotOrigin) => return None,
                Err(AppendError::Unrecordable { .. }) => {}
            }
        }
        let _turn = self.held_up.lock().await;
        loop {
            match append() {
                Ok(kept) => return Some(kept),
                Err(AppendError::NotOrigin) => return None,
                Err(AppendError::Unrecordable { .. }) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
