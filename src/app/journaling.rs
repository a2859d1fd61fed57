//! The log of a topic: fresh, or with what a journal kept of it.

use super::StartError;
use crate::{
    id::{Epoch, Id},
    journal::{Store, this_machine},
    log::{Log, Numbering},
    plan::Plan,
    recorder::{Notes, Tag},
    units::now_ms,
};

/// What a journal gave back beside the log.
#[derive(Default)]
pub struct Past {
    /// What was noted for good.
    pub notes: Notes,
    /// What was noted beside events.
    pub tags: Vec<Tag>,
    /// Where the upstream stood whose ids were kept.
    pub upstream: Option<Id>,
    /// There were events.
    pub events: bool,
}

/// The log that the plan asks for, ready to number what comes.
///
/// # Errors
/// When the journal cannot be opened.
pub fn build_log(plan: &Plan, path: &str) -> Result<(Log, Past), StartError> {
    let fresh = Epoch::new(now_ms(), rand::random());
    let Some((dir, sync)) = &plan.journal else {
        let numbering = if plan.keeps_ids() { Numbering::Keep } else { Numbering::Own(fresh) };
        return Ok((Log::new(numbering, plan.window), Past::default()));
    };
    let log = Log::new(Numbering::Keep, plan.window);
    let opened = Store::open(dir, *sync, this_machine())?.open_topic(path, &log)?;
    opened.report(path, &log);
    log.record_to(Box::new(opened.journal), opened.vitals);
    let last = log.last();
    let upstream = last.clone().filter(|last| opened.found.own.as_ref() != Some(&last.epoch));
    let (notes, tags) = (opened.found.notes, opened.found.tags);
    let past = Past { notes, tags, upstream, events: log.totals().events > 0 };
    if plan.keeps_ids() {
        return Ok((log, past));
    }
    if opened.continues {
        log.continue_as_origin();
    } else {
        log.become_origin(fresh);
        if last.is_some() {
            // What was numbered last may not have reached the disk.
            tracing::warn!(topic = path, "the journal may not hold everything: numbers begin anew, behind a gap");
            log.publish_gap(None, "the journal may not hold everything");
        }
    }
    Ok((log, past))
}
