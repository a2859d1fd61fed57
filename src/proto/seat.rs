//! Work that is mostly over at once: it begins where it came up, and only what has to wait gets a task of its own.

use std::{future::poll_fn, mem, pin::Pin, task::Poll};

/// Where such work stands until it is known which of the two it is; used again by the next.
pub struct Seat<F>(Pin<Box<Option<F>>>);

impl<F> Default for Seat<F> {
    fn default() -> Self {
        Seat(Box::pin(None))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Seat<F> {
    /// Begins it; returns when it is over or has a task.
    pub async fn begin(&mut self, work: F) {
        self.0.set(Some(work));
        let is_over = poll_fn(|cx| {
            let work = self.0.as_mut().as_pin_mut();
            Poll::Ready(work.is_none_or(|work| work.poll(cx).is_ready()))
        });
        if is_over.await {
            return self.0.set(None);
        }
        let mut taken = mem::take(self);
        tokio::spawn(async move {
            if let Some(work) = taken.0.as_mut().as_pin_mut() {
                work.await;
            }
        });
    }
}

/// What takes a while goes on in a task of its own, whoever began it.
pub async fn aside() {
    let mut is_aside = false;
    poll_fn(|cx| {
        if mem::replace(&mut is_aside, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_is_over_at_once_needs_no_task() {
        let (mut seat, done) = (Seat::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..3 {
            let done = done.clone();
            let work = async move {
                done.fetch_add(1, Ordering::Relaxed);
            };
            seat.begin(work).await;
        }
        assert_eq!(done.load(Ordering::Relaxed), 3);
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test]
    async fn what_waits_goes_on_and_the_next_begins() {
        let (says, hears) = oneshot::channel();
        let (tells, told) = oneshot::channel();
        let mut channels = vec![(Some(hears), Some(tells)), (None, None)];
        let mut seat = Seat::default();
        let mut work = || {
            let (hears, tells) = channels.remove(0);
            async move {
                aside().await;
                if let (Some(hears), Some(tells)) = (hears, tells) {
                    let _ = tells.send(hears.await.unwrap_or(0));
                }
            }
        };
        seat.begin(work()).await;
        seat.begin(work()).await;
        says.send(5).expect("somebody hears");
        assert_eq!(told.await, Ok(5));
    }
}
