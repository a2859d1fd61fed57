//! Positions: who numbered an event, and where in order.
//!
//! An [`Id`] is `<epoch>-<seq>`. It is given once, by the origin, and travels with the event through every hop, so
//! a position that a reader learned on one replica means the same on any other.

use std::{fmt, sync::Arc, time::Duration};

/// Crockford base32 in lower case: sorts like the number it spells.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Largest sequence number: the last integer that JavaScript holds exactly (LINKS 1).
pub const MAX_SEQ: u64 = (1 << 53) - 1;
/// One life of one origin: `e`, nine base32 characters of its birth time (ms), thirteen of OS randomness.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// `e`, 9 characters of birth time, 13 of randomness (LINKS 1).
    pub const LEN: usize = 23;

    /// A fresh epoch, born at `ms` (Unix time in milliseconds).
    pub fn new(ms: u64, random: u64) -> Self {
        let mut text = String::with_capacity(Epoch::LEN);
        text.push('e');
        push_base32(&mut text, ms, 9);
        push_base32(&mut text, random, 13);
        Epoch(text.into())
    }

    /// `None` when the text is not exactly an epoch's form.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, digits) = text.split_at_checked(1)?;
        let well_formed = head == "e" && text.len() == Epoch::LEN && digits.bytes().all(|b| BASE32.contains(&b));
        well_formed.then(|| Epoch(text.into()))
    }

    /// When this epoch began, in Unix milliseconds.
    pub fn birth(&self) -> u64 {
        let digit = |b: u8| BASE32.iter().position(|&d| d == b).unwrap_or(0) as u64;
        self.0.bytes().skip(1).take(9).fold(0, |ms, b| ms << 5 | digit(b))
    }

    /// The epoch as it stands in ids.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn push_base32(text: &mut String, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        let digit = (u128::from(value) >> (5 * place)) & 31;
        text.push(char::from(BASE32[digit as usize]));
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of an event within its epoch: `n`, or `n.k` for the k-th of the events that a stage split `n` into
/// (LINKS 3). As a resume position `n` alone means *after all of n*: see [`Seq::end_of`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq {
    /// The origin's number, at most [`MAX_SEQ`].
    pub n: u64,
    /// 0 for a whole event, 1.. for the parts of a split one.
    pub k: u32,
}

impl Seq {
    /// The sequence number of an event that was never split.
    pub const fn whole(n: u64) -> Self {
        Seq { n, k: 0 }
    }

    /// The position behind every part of `n`.
    pub const fn end_of(n: u64) -> Self {
        Seq { n, k: u32::MAX }
    }

    /// As a position: a whole `n` covers all its parts.
    pub const fn covering(self) -> Self {
        if self.k == 0 { Seq::end_of(self.n) } else { self }
    }

    /// The position right before this one.
    pub const fn before(self) -> Self {
        match self.k {
            0 | 1 => Seq::whole(self.n.saturating_sub(1)),
            k => Seq { n: self.n, k: k - 1 },
        }
    }

    /// The first position behind this one.
    pub const fn after(self) -> Self {
        Seq::whole(self.n + 1)
    }

    fn parse(text: &str) -> Option<Self> {
        let (n, k) = match text.split_once('.') {
            Some((n, k)) => (n, decimal(k).filter(|&k| k > 0 && k < u64::from(u32::MAX))? as u32),
            None => (text, 0),
        };
        decimal(n).filter(|&n| n <= MAX_SEQ).map(|n| Seq { n, k })
    }
}

/// Digits only: `u64::from_str` would also take a leading plus.
fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.k {
            0 | u32::MAX => write!(f, "{}", self.n),
            k => write!(f, "{}.{k}", self.n),
        }
    }
}

/// `<epoch>-<seq>`: names one event for good.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Id {
    /// Who numbered it.
    pub epoch: Epoch,
    /// Where in order.
    pub seq: Seq,
}

impl Id {
    /// `None` when the text is not an id of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.rsplit_once('-')?;
        Some(Id { epoch: Epoch::parse(epoch)?, seq: Seq::parse(seq)? })
    }
}

impl Id {
    /// The first position behind this one.
    pub fn next(&self) -> Id {
        Id { epoch: self.epoch.clone(), seq: self.seq.after() }
    }

    /// The position right before this one.
    pub fn previous(&self) -> Id {
        Id { epoch: self.epoch.clone(), seq: self.seq.before() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a reader wants to start. Every form is exclusive: `After(x)` begins with the event behind x (LINKS 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Only what is published from now on.
    Now,
    /// Everything retained.
    Oldest,
    /// What follows this position.
    After(Id),
    /// What was published after this Unix time in milliseconds.
    Time(u64),
    /// What was published within this long before now.
    Ago(Duration),
    /// The newest n events.
    Last(u64),
}

impl Since {
    /// Reads `now`, `oldest`, `last:N`, an id, Unix milliseconds, or a duration such as `5m`.
    ///
    /// # Errors
    /// A sentence that lists the accepted forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let relative = || text.strip_prefix("last:").and_then(decimal).map(Since::Last);
        let absolute = || decimal(text).map(Since::Time).or_else(|| Id::parse(text).map(Since::After));
        match text {
            "now" => Ok(Since::Now),
            "oldest" | "earliest" => Ok(Since::Oldest),
            _ => relative().or_else(absolute).or_else(|| crate::units::duration(text).ok().map(Since::Ago)).ok_or_else(
                || "expected now, oldest, last:N, an event id, Unix milliseconds or a duration such as 5m".into(),
            ),
        }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Since::Now => f.write_str("now"),
            Since::Oldest => f.write_str("oldest"),
            Since::After(id) => id.fmt(f),
            Since::Time(ms) => ms.fmt(f),
            Since::Ago(ago) => write!(f, "{}ms", ago.as_millis()),
            Since::Last(n) => write!(f, "last:{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_1_an_epoch_spells_its_birth_and_sorts_by_it() {
        let (old, new) = (Epoch::new(1_700_000_000_000, 7), Epoch::new(1_700_000_000_001, 3));
        assert_eq!(old.birth(), 1_700_000_000_000);
        assert!(old.as_str() < new.as_str());
        assert_eq!(Epoch::parse(old.as_str()), Some(old));
    }

    #[test]
    fn links_1_only_the_exact_form_is_an_id() {
        let epoch = Epoch::new(1, u64::MAX);
        for good in ["0", "1", "9007199254740991", "7.1"] {
            let text = format!("{epoch}-{good}");
            assert_eq!(Id::parse(&text).map(|id| id.to_string()), Some(text));
        }
        for bad in ["", "-1", "+1", "9007199254740992", "1.0", "1.", "1.2.3", "x"] {
            assert_eq!(Id::parse(&format!("{epoch}-{bad}")), None, "{bad}");
        }
        for bad in ["42", "e-1", "urn:uuid:1", "E0000000000000000000000-1", "eéééééééééééé-1"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn links_3_a_whole_position_covers_its_parts() {
        let part = |k| Seq { n: 5, k };
        assert!(part(1) > Seq::whole(4).covering() && part(3) < Seq::whole(5).covering());
        assert!(part(2) > part(1).covering());
    }

    #[test]
    fn since_reads_every_documented_form() {
        let id = Id { epoch: Epoch::new(5, 6), seq: Seq::whole(7) };
        let table = [
            ("now", Since::Now),
            ("oldest", Since::Oldest),
            ("last:10", Since::Last(10)),
            ("1640995200000", Since::Time(1_640_995_200_000)),
            ("5m", Since::Ago(Duration::from_secs(300))),
            (&id.to_string(), Since::After(id.clone())),
        ];
        for (text, meant) in table {
            assert_eq!(Since::parse(text), Ok(meant));
        }
        for bad in ["", "abc", "last:", "last:x", "-5", "5 parsecs"] {
            assert!(Since::parse(bad).is_err(), "{bad}");
        }
    }
}
