//! The stamped source: when the next events are due, and what carries them.

use super::{
    Pace, Sourcing,
    board::{Board, add},
    sink::{Sink, Untaken},
    stamp::{self, Stamp},
};
use crate::units::now_us;
use std::{rc::Rc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Events at most between two looks at the clock, and in one write.
const BATCH: u64 = 256;
/// For the window to move, before a reader that lost something is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says stamped events until `until`, or as many as planned.
///
/// # Errors
/// Why they are not taken.
pub async fn run(plan: &Sourcing, board: &Rc<Board>, sink: &mut Sink, until: Instant) -> Result<(), Untaken> {
    let source = board.source.get().unwrap_or_default();
    let mut payload = vec![b'.'; plan.size.max(stamp::LEN)];
    let (began, mut said) = (Instant::now(), 0);
    while let Some(due) = due(plan, board, began, said, until).await {
        for number in said..said + due {
            Stamp { source, number, time: now_us() }.put(&mut payload);
            // Before it is on its way, for it may be back before the write is.
            add(&board.published, 1);
            if let Some(window) = &mut *board.window.borrow_mut() {
                window.sent();
            }
            sink.put(&payload).await?;
        }
        sink.flush().await?;
        said += due;
    }
    sink.finish().await
}

/// How many events are to be said now; waits for one. `None` is the end.
async fn due(plan: &Sourcing, board: &Board, began: Instant, said: u64, until: Instant) -> Option<u64> {
    let left = plan.count.map_or(u64::MAX, |count| count - said).min(BATCH);
    loop {
        if left == 0 || Instant::now() >= until {
            return None;
        }
        let (due, next) = match plan.pace {
            Pace::Free => (left, until),
            Pace::Rate(rate) => {
                let at = |number: u64| began + Duration::from_secs_f64(number as f64 / rate);
                let due = (began.elapsed().as_secs_f64() * rate) as u64 + 1;
                (due.saturating_sub(said), at(said))
            }
            Pace::Window(_) => {
                let room = board.window.borrow().as_ref().map_or(0, |window| window.room());
                (room as u64, until)
            }
        };
        match (due, plan.pace) {
            (1.., _) => return Some(due.min(left)),
            (0, Pace::Window(_)) => await_room(board, until).await,
            (0, _) => sleep_until(next.min(until)).await,
        }
    }
}

async fn await_room(board: &Board, until: Instant) {
    let rung = timeout_at(until, timeout(PATIENCE, board.bell.notified())).await;
    if let Ok(Err(_)) = rung
        && let Some(window) = &mut *board.window.borrow_mut()
    {
        window.give_up();
    }
}
