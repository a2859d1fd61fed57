//! What one reader missed, got twice or got late, by the numbers of the stamps.

use super::stamp::Stamp;
use std::ops::Range;

/// Holes that are remembered per source: what comes out of an older one counts as repeated.
const MAX_HOLES: usize = 1024;

/// The numbers of one source as one reader got them.
#[derive(Clone, Debug)]
struct Track {
    source: u32,
    /// The number that is expected; a reader begins with whatever comes first.
    next: u64,
    holes: Vec<Range<u64>>,
}

/// One reader's events, of however many sources.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    tracks: Vec<Track>,
    faults: Faults,
}

/// What should not be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Numbers that never came.
    pub lost: u64,
    /// Numbers that came again.
    pub repeated: u64,
    /// Numbers that came after a higher one.
    pub late: u64,
}

impl Faults {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Faults) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.late += other.late;
    }
}

impl Tracks {
    /// Of a reader that is there before a source says its first number.
    pub fn expecting(source: u32) -> Self {
        Tracks { tracks: vec![Track { source, next: 0, holes: Vec::new() }], ..Tracks::default() }
    }

    /// Whether no source was heard.
    pub fn is_silent(&self) -> bool {
        self.tracks.iter().all(|track| track.next == 0)
    }

    /// Takes the next event's stamp.
    pub fn take(&mut self, stamp: &Stamp) {
        let (source, number) = (stamp.source, stamp.number);
        let Some(track) = self.tracks.iter_mut().find(|track| track.source == source) else {
            self.tracks.push(Track { source, next: number + 1, holes: Vec::new() });
            return;
        };
        if number < track.next {
            return track.take_back(number, &mut self.faults);
        }
        if number > track.next {
            self.faults.lost += number - track.next;
            if track.holes.len() == MAX_HOLES {
                track.holes.remove(0);
            }
            track.holes.push(track.next..number);
        }
        track.next = number + 1;
    }

    /// What is wrong, given the last number that each source said to anybody.
    pub fn judge(&self, ends: &[(u32, u64)]) -> Faults {
        let missing = |end: u64, next: u64| (end + 1).saturating_sub(next);
        let tail = |(source, end): &(u32, u64)| self.next_of(*source).map_or(0, |next| missing(*end, next));
        Faults { lost: self.faults.lost + ends.iter().map(tail).sum::<u64>(), ..self.faults }
    }

    /// Whether everything up to these last numbers was seen, or never begun.
    pub fn has_reached(&self, ends: &[(u32, u64)]) -> bool {
        ends.iter().all(|(source, end)| self.next_of(*source).is_none_or(|next| next > *end))
    }

    fn next_of(&self, source: u32) -> Option<u64> {
        self.tracks.iter().find(|track| track.source == source).map(|track| track.next)
    }
}

impl Track {
    /// A number that should have come before: out of a hole it is late, else it is there twice.
    fn take_back(&mut self, number: u64, faults: &mut Faults) {
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&number)) else {
            faults.repeated += 1;
            return;
        };
        let hole = self.holes.remove(at);
        let rest = [hole.start..number, number + 1..hole.end];
        self.holes.splice(at..at, rest.into_iter().filter(|rest| !rest.is_empty()));
        faults.late += 1;
        faults.lost -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(numbers: &[u64]) -> Tracks {
        let mut tracks = Tracks::default();
        numbers.iter().for_each(|&number| tracks.take(&Stamp { source: 1, number, time: 0 }));
        tracks
    }

    #[test]
    fn each_fault_has_its_name() {
        let table: [(&[u64], Faults); 7] = [
            (&[5, 6, 7, 8, 9], Faults::default()),
            (&[5, 6, 9], Faults { lost: 2, ..Faults::default() }),
            (&[5, 6, 7], Faults { lost: 2, ..Faults::default() }),
            (&[5, 6, 6, 7, 5, 8, 9], Faults { repeated: 2, ..Faults::default() }),
            (&[5, 9, 7, 6, 8], Faults { late: 3, ..Faults::default() }),
            (&[5, 9, 7, 7], Faults { lost: 2, repeated: 1, late: 1 }),
            (&[5, 6, 7, 8, 9, 4], Faults { repeated: 1, ..Faults::default() }),
        ];
        for (numbers, faults) in table {
            assert_eq!(read(numbers).judge(&[(1, 9)]), faults, "{numbers:?}");
        }
    }

    #[test]
    fn who_was_there_first_misses_what_it_did_not_get() {
        let mut tracks = Tracks::expecting(1);
        assert!(tracks.is_silent());
        tracks.take(&Stamp { source: 1, number: 3, time: 0 });
        assert!(!tracks.is_silent());
        assert_eq!(tracks.judge(&[(1, 3)]).lost, 3);
    }

    #[test]
    fn sources_do_not_mix() {
        let mut tracks = read(&[1, 2, 3]);
        tracks.take(&Stamp { source: 2, number: 70, time: 0 });
        tracks.take(&Stamp { source: 1, number: 4, time: 0 });
        assert!(tracks.judge(&[(1, 4), (2, 70), (3, 9)]).is_none() && tracks.has_reached(&[(1, 4), (2, 70)]));
        assert!(!tracks.has_reached(&[(1, 5), (2, 70)]));
    }
}
