//! Panics: a fault of this program ends what it happened in; it is counted, and told with its place only.

use crate::units::now_ms;
use futures_util::FutureExt;
use std::{
    panic::{self, AssertUnwindSafe},
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tracing::error;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// When one was told last, in Unix milliseconds.
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Counts panics from now on, and logs the place of one per second. Their message stays untold: it may hold what a peer
/// sent.
pub fn watch() {
    panic::set_hook(Box::new(|panic| {
        let (count, now, told) = (COUNT.fetch_add(1, Relaxed) + 1, now_ms(), TOLD.load(Relaxed));
        if now.saturating_sub(told) >= 1000 && TOLD.compare_exchange(told, now, Relaxed, Relaxed).is_ok() {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            error!(%place, count, "panic: a fault of this program");
        }
    }));
}

/// Panics since [`watch`] was called.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Runs a closure; `None` when it panicked. The caller gives up what the closure had its hands on.
pub fn contain<T>(run: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(run)).ok()
}

/// Awaits a future; `None` when it panicked. The caller gives up what the future had its hands on.
pub async fn contain_future<T>(future: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(future).catch_unwind().await.ok()
}

/// Ends the process: a part that all others need is in an unknown state.
pub fn give_up(part: &str) -> ! {
    error!(part, "in an unknown state after a panic: the process ends");
    process::abort()
}

/// Awaits a part without which a process looks alive and is not: its panic ends the process.
pub async fn vital<T>(part: &str, future: impl Future<Output = T>) -> T {
    contain_future(future).await.unwrap_or_else(|| give_up(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    #[test]
    fn what_panics_gives_nothing_and_the_rest_goes_on() {
        assert_eq!(contain(|| 5), Some(5));
        assert_eq!(contain(|| panic_any(5)), None::<()>);
    }

    #[tokio::test]
    async fn a_future_that_panics_gives_nothing_at_whichever_poll() {
        assert_eq!(contain_future(async { 5 }).await, Some(5));
        let panics = async {
            tokio::task::yield_now().await;
            panic_any(5)
        };
        assert_eq!(contain_future(panics).await, None::<()>);
    }
}
