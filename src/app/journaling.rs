//! The log of a topic: fresh, or with what a journal kept of it.

use super::StartError;
use crate::{
    id::Epoch,
    journal::{Store, this_machine},
    log::{Log, Numbering},
    plan::Plan,
    units::now_ms,
};

/// The log that the plan asks for, ready to number what comes.
///
/// # Errors
/// When the journal cannot be opened.
pub fn build_log(plan: &Plan, path: &str) -> Result<Log, StartError> {
    let fresh = Epoch::new(now_ms(), rand::random());
    let Some((dir, sync)) = &plan.journal else {
        return Ok(Log::new(if plan.keeps_ids() { Numbering::Keep } else { Numbering::Own(fresh) }, plan.window));
    };
    let log = Log::new(Numbering::Keep, plan.window);
    let opened = Store::open(dir, *sync, this_machine())?.open_topic(path, &log)?;
    opened.report(path, &log);
    log.record_to(Box::new(opened.journal), opened.vitals);
    if plan.keeps_ids() {
        return Ok(log);
    }
    if opened.continues {
        log.continue_as_origin();
    } else {
        let had_events = log.last().is_some();
        log.become_origin(fresh);
        if had_events {
            // What was numbered last may not have reached the disk.
            log.publish_gap(None, "the journal may not hold everything");
        }
    }
    Ok(log)
}
