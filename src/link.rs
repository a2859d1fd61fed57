//! What one instance says to another beside the payloads: the texts of a link's pings and the handshake's headers.
//!
//! A ping frame (at most 125 bytes, legal between any two frames) says where the stream stands; its pong comes back
//! when everything before it was received. So payloads stay untouched, and ids cost nothing per event (LINKS 10).

use crate::{
    id::{Id, Since},
    log::{Gap, Window},
};

/// The WebSocket subprotocol of a link.
pub const SUBPROTOCOL: &str = "wsevent.v1";
/// The WebSocket subprotocol of a plain reader that must name one: browsers fail a handshake that takes up none of the
/// protocols that they offer, for instance beside `bearer.<token>`.
pub const PLAIN_SUBPROTOCOL: &str = "wsevent.plain";
/// The reason of a close 1008 when the token that let a reader in has ended: with another one it may come back.
pub const EXPIRED: &str = "token expired";
/// Says that the ids of this answer are ours (LINKS 1).
pub const VERSION_HEADER: &str = "wsevent";
/// `<oldest> <next>` of the answering log (LINKS 8).
pub const WINDOW_HEADER: &str = "wsevent-window";
/// Instances up to the origin, comma separated (LINKS 25).
pub const PATH_HEADER: &str = "wsevent-path";
/// The topic's slow-reader policy, which a forwarder without one of its own adopts.
pub const POLICY_HEADER: &str = "wsevent-policy";
/// The largest event that the sender of this header takes, in bytes (LINKS 17).
pub const MAX_MESSAGE_HEADER: &str = "wsevent-max-message";
/// Names the reader's process, so that it finds the pin that it left (LINKS 21).
pub const INSTANCE_HEADER: &str = "wsevent-instance";
/// Hash of all stages so far; failover by id needs equal epoch and view (LINKS 3).
pub const VIEW_HEADER: &str = "wsevent-view";
/// Where a page or a list stands among the events of a topic.
pub const POSITION_HEADER: &str = "wsevent-position";
/// Trailer of an HTTP stream that has ended: its last position (LINKS 18). Nobody need look at it.
pub const END_TRAILER: &str = "wsevent-end";
/// Instances at most between a reader and the origin: more is a loop that hides.
pub const MAX_HOPS: usize = 32;
/// How many unacknowledged bytes may pass before the next `p` (LINKS 11).
pub const POSITION_EVERY: u64 = 256 << 10;

/// What a ping says.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// `p`: the next message has this id, published at `ms`; `n` data messages were sent on this connection so far.
    Position {
        /// The next message's id.
        next: Id,
        /// Its time in Unix milliseconds, by the origin's clock.
        ms: u64,
        /// Data messages so far.
        n: u64,
    },
    /// `g`: these are lost for you.
    Gap {
        /// First missing position.
        from: Id,
        /// Last missing position.
        to: Id,
        /// How many, where known.
        count: Option<u64>,
    },
    /// `a`: the next message is the attributes of the event after it.
    Attributes(Id),
    /// `e`: the stream has ended behind this position.
    End(Id),
    /// `u`: the path upstream changed.
    PathChanged,
    /// `k`, from the reader: nobody at or behind me needs anything up to here.
    Keep(Id),
}

impl Signal {
    /// The ping's payload.
    pub fn to_text(&self) -> String {
        match self {
            Signal::Position { next, ms, n } => format!("p {next} {ms} {n}"),
            Signal::Gap { from, to, count: Some(count) } => format!("g {from} {to} {count}"),
            Signal::Gap { from, to, count: None } => format!("g {from} {to} ?"),
            Signal::Attributes(id) => format!("a {id}"),
            Signal::End(id) => format!("e {id}"),
            Signal::PathChanged => "u".into(),
            Signal::Keep(id) => format!("k {id}"),
        }
    }

    /// `None` for a ping that is not ours.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let signal = match words[..] {
            ["p", next, ms, n] => Signal::Position { next: Id::parse(next)?, ms: ms.parse().ok()?, n: n.parse().ok()? },
            ["g", from, to, count] => {
                let count = if count == "?" { None } else { Some(count.parse().ok()?) };
                Signal::Gap { from: Id::parse(from)?, to: Id::parse(to)?, count }
            }
            ["a", id] => Signal::Attributes(Id::parse(id)?),
            ["e", id] => Signal::End(Id::parse(id)?),
            ["k", id] => Signal::Keep(Id::parse(id)?),
            ["u"] => Signal::PathChanged,
            _ => return None,
        };
        Some(signal)
    }
}

impl From<&Gap> for Signal {
    fn from(gap: &Gap) -> Self {
        Signal::Gap { from: gap.from.clone(), to: gap.to.clone(), count: gap.count }
    }
}

/// The value of [`WINDOW_HEADER`].
pub fn window_text(window: &Window) -> String {
    format!("{} {}", window.oldest, window.next)
}

/// Reads the value of [`WINDOW_HEADER`].
pub fn parse_window(text: &str) -> Option<Window> {
    let (oldest, next) = text.trim().split_once(' ')?;
    Some(Window { oldest: Id::parse(oldest)?, next: Id::parse(next)? })
}

/// Adds `since` to a URL that may have a query.
pub fn with_since(url: &url::Url, since: Option<&Since>) -> url::Url {
    let mut url = url.clone();
    if let Some(since) = since {
        url.query_pairs_mut().append_pair("since", &since.to_string());
    }
    url
}

/// Why a connection is closed with 1013: the first word is for our clients to branch on (LINKS 16).
#[derive(Clone, Debug, PartialEq)]
pub enum GoAway {
    /// `slow <last-id>`: the reader did not keep up; it may resume behind this.
    Slow(Option<Id>),
    /// `gone <oldest-id>`: the asked position is no longer retained.
    Gone(Option<Id>),
    /// `retry <ms>`: not ready yet; why may follow.
    Retry(u64),
}

impl GoAway {
    /// The close reason.
    pub fn to_text(&self) -> String {
        let named = |word: &str, id: &Option<Id>| id.as_ref().map_or(word.into(), |id| format!("{word} {id}"));
        match self {
            GoAway::Slow(id) => named("slow", id),
            GoAway::Gone(id) => named("gone", id),
            GoAway::Retry(ms) => format!("retry {ms}"),
        }
    }

    /// `None` for a reason that is not ours.
    pub fn parse(reason: &str) -> Option<Self> {
        let (word, rest) = reason.split_once(' ').unwrap_or((reason, ""));
        match word {
            "slow" => Some(GoAway::Slow(Id::parse(rest))),
            "gone" => Some(GoAway::Gone(Id::parse(rest))),
            "retry" => rest.split(' ').next()?.parse().ok().map(GoAway::Retry),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, MAX_SEQ, Seq};

    fn id(n: u64, k: u32) -> Id {
        Id { epoch: Epoch::new(1, 2), seq: Seq { n, k } }
    }

    #[test]
    fn links_10_every_signal_survives_its_text_and_fits_a_ping() {
        let longest = id(MAX_SEQ, 999_999_999);
        let all = [
            Signal::Position { next: longest.clone(), ms: 9_999_999_999_999, n: u64::MAX },
            Signal::Gap { from: longest.clone(), to: longest.clone(), count: Some(MAX_SEQ) },
            Signal::Gap { from: id(1, 0), to: id(2, 0), count: None },
            Signal::Attributes(longest.clone()),
            Signal::End(id(3, 0)),
            Signal::Keep(id(3, 1)),
            Signal::PathChanged,
        ];
        for signal in all {
            let text = signal.to_text();
            assert!(text.len() <= 125, "{text}");
            assert_eq!(Signal::parse(text.as_bytes()), Some(signal));
        }
    }

    #[test]
    fn foreign_pings_are_not_signals() {
        for foreign in ["", "p", "p x 1 2", "hello", "p  1 2", "e 7", "\u{0}"] {
            assert_eq!(Signal::parse(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(Signal::parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn links_16_close_reasons_begin_with_one_word() {
        for reason in [GoAway::Slow(Some(id(4, 0))), GoAway::Gone(None), GoAway::Retry(250)] {
            assert_eq!(GoAway::parse(&reason.to_text()), Some(reason));
        }
        assert_eq!(GoAway::parse("retry 1000 the journal cannot be written"), Some(GoAway::Retry(1000)));
        assert_eq!(GoAway::parse("sorry"), None);
    }
}
