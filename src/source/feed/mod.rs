//! From an upstream into a topic: whose numbers count, what was seen already, where to resume.

mod events;
mod memory;

use super::{
    cursor::CursorFile,
    health::Health,
    place::{Marks, Place, Trail},
};
use crate::{
    id::{Epoch, Id, Since},
    log::{Gap, Window},
    recorder::Note,
    topic::Topic,
    units::now_ms,
};
use std::{collections::VecDeque, sync::Arc};

/// Which upstreams a feed takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Taken {
    /// Whoever answers.
    #[default]
    Any,
    /// Those whose ids are ours.
    Ids,
    /// Those that go on where the last one was lost.
    Kin,
}

/// One upstream's way into a topic.
pub struct Feed {
    /// Where events go.
    pub topic: Arc<Topic>,
    /// Ids are kept (LINKS 2); else the topic numbers anew.
    keeps: bool,
    marks: Marks,
    /// The newest position of ours that was read here.
    position: Option<Id>,
    /// The newest foreign id, opaque (LINKS 1).
    foreign: Option<String>,
    /// Where to begin before anything was read.
    start: Option<Since>,
    opened: bool,
    /// The topic has no other input: its end is the topic's.
    sole: bool,
    /// Which upstreams may supply it.
    pub takes: Taken,
    /// The newest event's time, by the origin's clock.
    time: u64,
    /// Times that positions did not fit (LINKS 11).
    misfits: u32,
    /// Where the upstream's positions stand in a log that numbers anew: offsets behind them (LINKS 2).
    passed: VecDeque<(u64, Id)>,
    /// Where the position survives this process.
    cursor_file: Option<CursorFile>,
    /// The stream has ended, and nothing came since.
    ended: bool,
    /// Under which name a journal notes where the upstream stands, where the topic's own numbers do not tell.
    place: Option<String>,
    /// For whoever remembers how much of the topic is handled, where that is done elsewhere.
    trail: Option<Arc<Trail>>,
    /// Where the position can be seen.
    pub health: Arc<Health>,
}

impl Feed {
    /// Begins at `start`.
    pub fn new(topic: Arc<Topic>, keeps: bool, sole: bool, marks: Marks, start: Option<Since>) -> Self {
        Feed {
            topic,
            keeps,
            marks,
            position: None,
            foreign: None,
            start,
            opened: false,
            sole,
            takes: Taken::Any,
            time: 0,
            misfits: 0,
            passed: VecDeque::new(),
            cursor_file: None,
            place: None,
            ended: false,
            trail: None,
            health: Arc::default(),
        }
    }

    /// What to ask the upstream for.
    pub fn since(&self) -> Option<Since> {
        self.position.clone().map(Since::After).or_else(|| self.start.clone())
    }

    /// What to send back to an upstream whose ids are its own.
    pub fn foreign_id(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    /// The newest position of ours that was read.
    pub fn position(&self) -> Option<&Id> {
        self.position.as_ref()
    }

    /// Whether an upstream that answers so may supply this.
    pub fn admits(&self, ours: bool, window: Option<&Window>, view: &str) -> bool {
        match self.takes {
            Taken::Any => true,
            Taken::Ids => ours,
            Taken::Kin => {
                ours && view == self.topic.upstream_view() && window.is_none_or(|window| self.goes_on(window))
            }
        }
    }

    /// Whether the epoch where we stand may be in this window, or its origin's next life is (LINKS 5): one that began
    /// behind everything that we have.
    fn goes_on(&self, window: &Window) -> bool {
        let Some(Id { epoch, .. }) = &self.position else { return true };
        let (oldest, newest) = (&window.oldest.epoch, &window.next.epoch);
        let within = oldest != newest && (oldest.birth()..=newest.birth()).contains(&epoch.birth());
        epoch == oldest || epoch == newest || within || oldest.birth() > self.time.max(epoch.birth())
    }

    /// Whoever follows is another origin, or shows another selection: where we stand means nothing there. What comes is
    /// numbered here, behind a gap, and begins now (LINKS 5).
    pub fn change_origin(&mut self) {
        self.begin_anew();
        self.start = Some(Since::Now);
        self.topic.log.publish_gap(None, "another origin goes on");
    }

    /// The upstream answered: `ours` when its ids are ours, with the window that it holds.
    pub fn open(&mut self, ours: bool, window: Option<Window>) {
        let again = std::mem::replace(&mut self.opened, true);
        if ours {
            if self.keeps {
                self.topic.log.set_upstream_window(window);
            }
            return;
        }
        let reopened = again && self.foreign.is_none();
        self.lose_ids(reopened);
    }

    /// The upstream's ids count no more, or never did. What it sent while we were away is unknown.
    pub fn lose_ids(&mut self, was_away: bool) {
        // It has no past that we could ask for without taking it for new.
        self.start = None;
        if self.begin_anew() || was_away {
            self.topic.log.publish_gap(None, "the upstream carries no ids: what it sent meanwhile is unknown");
        }
    }

    /// Forgets where the upstream stood; from here on the numbers are ours (LINKS 2). Says whether there was a position.
    fn begin_anew(&mut self) -> bool {
        if let Some(trail) = &self.trail {
            trail.begin();
        }
        if std::mem::take(&mut self.keeps) {
            self.topic.log.become_origin(Epoch::new(now_ms(), rand::random()));
        }
        self.passed.clear();
        self.position.take().is_some()
    }

    /// The next upstream is another server: what the last one called its events means nothing to it.
    pub fn forget_foreign_id(&mut self) {
        self.foreign = None;
    }

    /// Everything up to this position is in the log.
    fn passed(&mut self, position: Id) {
        if !self.keeps {
            self.passed.push_back((self.topic.log.end(), position.clone()));
        }
        self.lay(Place::Ours(position.clone()));
        self.health.passed(&position);
        self.position = Some(position);
    }

    /// The newest position that nobody here or behind us needs any more (LINKS 10, `k`): what pinned readers have
    /// acknowledged, or, where nobody can be pinned, what was received.
    pub fn settled(&mut self) -> Option<Id> {
        let log = &self.topic.log;
        if !log.is_blocking() {
            self.passed.clear();
            return self.position.clone();
        }
        if self.keeps {
            return log.acknowledged();
        }
        let acknowledged = log.acknowledged_offset()?;
        let mut settled = None;
        while self.passed.front().is_some_and(|(offset, _)| *offset <= acknowledged) {
            settled = self.passed.pop_front().map(|(_, position)| position);
        }
        settled
    }

    /// Positions did not fit the messages: go on behind what is sure. Twice, and the upstream's ids count no more.
    pub fn misfit(&mut self, sure: Option<Id>) {
        self.misfits += 1;
        self.position = sure.or(self.position.take());
    }

    /// Whether ids are to be believed (LINKS 11).
    pub fn trusts_ids(&self) -> bool {
        self.misfits < 2
    }

    /// The upstream's stream has ended (LINKS 18).
    pub fn end(&mut self) {
        self.ended = true;
        if self.sole {
            self.topic.log.finish();
        }
    }

    /// Whether the stream has ended, and nothing came since.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn took_event(&mut self) {
        if std::mem::take(&mut self.ended) {
            tracing::info!(topic = %self.topic.path, "the stream goes on");
        }
        self.health.took_event();
    }

    /// A place that is not kept now is noted with what comes next.
    fn note_alone(&self, note: Option<Note>) {
        if let Some(Err(error)) = note.map(|note| self.topic.log.note(&note)) {
            tracing::debug!(%error, "a place is not noted yet");
        }
    }

    /// The upstream says that these are lost for us.
    pub async fn gap(&mut self, gap: Gap) {
        if self.keeps {
            self.topic.log.until_kept(|| self.topic.log.keep_gap(gap.clone())).await;
        }
        self.passed(gap.to.clone());
        if !self.keeps {
            self.topic.log.publish_gap(gap.count, &gap.reason);
            self.note_alone(self.noted(|| Some(Place::Ours(gap.to))));
        }
    }

    /// An event was refused here: its place becomes a gap, and we go on behind it (LINKS 17).
    pub async fn refuse(&mut self, id: Option<Id>, reason: &str) {
        tracing::warn!(id = ?id, reason, "event refused");
        match id {
            Some(id) => self.gap(Gap { from: id.clone(), to: id, count: Some(1), reason: reason.into() }).await,
            None => self.topic.log.publish_gap(Some(1), reason),
        }
    }

    /// A position without an event: nothing of ours is missing up to here. One that the log does not take now is taken
    /// with what comes next.
    pub fn advance(&mut self, id: Id) {
        let beyond = self.position.as_ref().is_none_or(|last| last.epoch != id.epoch || last.seq < id.seq);
        if beyond {
            if !self.keeps {
                self.note_alone(self.noted(|| Some(Place::Ours(id.clone()))));
            } else if self.topic.log.advance(&id).is_err() {
                return;
            }
            self.passed(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        id::Seq,
        log::{Limits, Log, Numbering},
        topic::Policy,
    };

    fn window(oldest: &Epoch, newest: &Epoch) -> Window {
        let id = |epoch: &Epoch, n| Id { epoch: epoch.clone(), seq: Seq::whole(n) };
        Window { oldest: id(oldest, 1), next: id(newest, 9) }
    }

    #[tokio::test]
    async fn links_5_kin_are_those_that_hold_our_epoch_or_the_next_life_of_its_origin() {
        let log = Log::new(Numbering::Keep, Limits::default());
        let topic = Arc::new(Topic::new("/t".into(), log, Vec::new(), "", Policy::Disconnect));
        let mut feed = Feed::new(topic, true, false, Marks::default(), None);
        feed.takes = Taken::Kin;
        let (ours, twin) = (Epoch::new(100, 1), Epoch::new(100, 2));
        assert!(feed.admits(true, Some(&window(&twin, &twin)), ""), "we stand nowhere yet");
        let event = Event { payload: "x".into(), text: true, attrs: None };
        feed.events(vec![(Some(Id { epoch: ours.clone(), seq: Seq::whole(5) }), event)], 500).await;
        let (before, during, behind) = (Epoch::new(50, 3), Epoch::new(400, 4), Epoch::new(501, 5));
        for (oldest, newest, kin) in [
            (&ours, &ours, true),
            (&before, &ours, true),
            (&ours, &behind, true),
            (&before, &behind, true),
            (&behind, &behind, true),
            (&twin, &twin, false),
            (&before, &before, false),
            (&during, &during, false),
            (&during, &behind, false),
        ] {
            assert_eq!(feed.admits(true, Some(&window(oldest, newest)), ""), kin, "{oldest} {newest}");
        }
        assert!(!feed.admits(false, None, "") && !feed.admits(true, Some(&window(&ours, &ours)), "another selection"));
        feed.change_origin();
        assert!(feed.admits(true, Some(&window(&twin, &twin)), ""));
        assert_eq!(feed.since(), Some(Since::Now));
    }
}
