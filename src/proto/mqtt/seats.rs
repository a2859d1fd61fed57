//! Sessions by client identifier: one connection at a time sits on each. Who comes later takes over, and who comes back
//! within the session's expiry finds what it left.

use super::session::Session;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex as Turns, OwnedMutexGuard, watch};

/// Sessions whose clients are away, at most: beyond, the one that would end first goes.
const MAX_AWAY: usize = 10_000;
/// Longer than this nobody is waited for.
pub const MAX_EXPIRY: Duration = Duration::from_secs(86_400);

/// See the module's text.
#[derive(Default)]
pub struct Seats {
    seats: Mutex<HashMap<String, Seat>>,
}

struct Seat {
    /// Rises with each connection that wants to sit here: only the newest may.
    newest: watch::Sender<u64>,
    session: Arc<Turns<Option<Session>>>,
    /// When an empty seat is taken away.
    until: Option<Instant>,
}

/// A connection's seat.
pub struct Seated {
    /// Its own while it sits here.
    pub session: OwnedMutexGuard<Option<Session>>,
    /// Who sits here.
    pub sitter: Sitter,
}

/// A connection among those that sat on one seat.
#[derive(Clone)]
pub struct Sitter {
    client: String,
    number: u64,
    newest: watch::Receiver<u64>,
}

impl Sitter {
    /// Resolves when somebody else wants to sit here.
    pub async fn taken_over(&mut self) {
        let number = self.number;
        if self.newest.wait_for(|newest| *newest != number).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Seats {
    fn seats(&self) -> MutexGuard<'_, HashMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Sits down, once whoever sat there has left; `None` when somebody else came meanwhile. Without a session there is
    /// none to go on with.
    pub async fn take(&self, client: &str) -> Option<Seated> {
        let (mut newest, session, number) = {
            let mut seats = self.seats();
            let seat = seats.entry(client.to_owned()).or_insert_with(|| Seat {
                newest: watch::Sender::new(0),
                session: Arc::default(),
                until: None,
            });
            seat.until = None;
            seat.newest.send_modify(|newest| *newest += 1);
            let newest = seat.newest.subscribe();
            let number = *newest.borrow();
            (newest, seat.session.clone(), number)
        };
        let session = tokio::select! {
            // Who was overtaken does not sit down, also where the seat is free by now.
            biased;
            _ = newest.wait_for(|newest| *newest != number) => return None,
            session = session.lock_owned() => session,
        };
        Some(Seated { session, sitter: Sitter { client: client.to_owned(), number, newest } })
    }

    /// Gets up. The session waits for so long; with zero it ends here.
    pub fn leave(&self, mut seated: Seated, expiry: Duration) {
        let mut seats = self.seats();
        if expiry.is_zero() {
            *seated.session = None;
        }
        let Sitter { client, number, newest } = &seated.sitter;
        let is_newest = *newest.borrow() == *number;
        if expiry.is_zero() && is_newest {
            seats.remove(client);
        } else if let Some(seat) = seats.get_mut(client).filter(|_| is_newest) {
            seat.until = Some(Instant::now() + expiry.min(MAX_EXPIRY));
            bound(&mut seats);
        }
    }

    /// Whether nobody has come back to sit there.
    pub fn is_empty_since(&self, sitter: &Sitter) -> bool {
        self.seats().get(&sitter.client).is_none_or(|seat| *seat.newest.borrow() == sitter.number)
    }

    /// Forgets sessions whose time is over.
    pub fn expire(&self, now: Instant) {
        self.seats().retain(|_, seat| seat.until.is_none_or(|until| until > now));
    }

    /// Sessions whose clients are away.
    pub fn away(&self) -> usize {
        self.seats().values().filter(|seat| seat.until.is_some()).count()
    }
}

fn bound(seats: &mut HashMap<String, Seat>) {
    let away = seats.iter().filter_map(|(client, seat)| Some((seat.until?, client)));
    if away.clone().count() > MAX_AWAY {
        let first = away.min().map(|(_, client)| client.clone());
        first.map(|client| seats.remove(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn the_newest_sits() {
        let seats = Seats::default();
        let mut first = seats.take("a").await.expect("an empty seat");
        *first.session = Some(Session::default());
        let (second, third) = (seats.take("a"), seats.take("a"));
        tokio::pin!(second, third);
        // Both ask before the first has heard of it.
        assert!(timeout(Duration::ZERO, &mut second).await.is_err());
        assert!(timeout(Duration::ZERO, &mut third).await.is_err());
        first.sitter.taken_over().await;
        seats.leave(first, Duration::from_secs(60));
        assert!(second.await.is_none(), "somebody came after it");
        let third = third.await.expect("the newest");
        assert!(third.session.is_some() && seats.away() == 0);
        let sitter = third.sitter.clone();
        seats.leave(third, Duration::from_secs(60));
        assert!(seats.away() == 1 && seats.is_empty_since(&sitter));
        seats.expire(Instant::now() + Duration::from_secs(61));
        assert!(seats.take("a").await.is_some_and(|seated| seated.session.is_none()));
    }

    #[tokio::test]
    async fn a_session_that_ends_leaves_nothing() {
        let seats = Seats::default();
        let mut seated = seats.take("a").await.expect("an empty seat");
        *seated.session = Some(Session::default());
        seats.leave(seated, Duration::ZERO);
        assert!(seats.seats().is_empty());
    }
}
