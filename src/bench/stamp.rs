//! What a stamped payload begins with: whose event it is, its number, and when it was made.
//!
//! `#ssssssss.nnnnnnnnnnnn.tttttttttttttt `: source, number and Unix microseconds in hexadecimal, of one width, so that
//! nothing is computed per byte. It may stand behind other text (a hop's prefix, an NDJSON line's fields).

use std::ops::Range;

/// One event of one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp {
    /// Drawn at random by each source, so that two of them do not count as one.
    pub source: u32,
    /// From 0.
    pub number: u64,
    /// Unix microseconds, by the source's clock.
    pub time: u64,
}

/// Bytes of a stamp.
pub const LEN: usize = 38;
const SOURCE: Range<usize> = 1..9;
const NUMBER: Range<usize> = 10..22;
const TIME: Range<usize> = 23..37;

impl Stamp {
    /// The first stamp in a payload.
    pub fn find(payload: &[u8]) -> Option<Self> {
        memchr::memchr_iter(b'#', payload).find_map(|at| Stamp::read(payload.get(at..at + LEN)?))
    }

    fn read(text: &[u8]) -> Option<Self> {
        if (text[9], text[22], text[37]) != (b'.', b'.', b' ') {
            return None;
        }
        let source = u32::try_from(hex(&text[SOURCE])?).ok()?;
        Some(Stamp { source, number: hex(&text[NUMBER])?, time: hex(&text[TIME])? })
    }

    /// Writes it over the first [`LEN`] bytes of `out`, which must be there.
    pub fn put(&self, out: &mut [u8]) {
        (out[0], out[9], out[22], out[37]) = (b'#', b'.', b'.', b' ');
        put_hex(&mut out[SOURCE], self.source.into());
        put_hex(&mut out[NUMBER], self.number);
        put_hex(&mut out[TIME], self.time);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_wherever_it_stands() {
        let stamp = Stamp { source: 0xdead_beef, number: 77, time: 0x6_1234_5678_9abc };
        let mut text = [b'x'; 60];
        stamp.put(&mut text);
        assert_eq!(Stamp::find(&text), Some(stamp));
        assert_eq!(Stamp::find(&[b"host#1<- ", &text[..LEN]].concat()), Some(stamp));
        for none in [&b""[..], b"no stamp", &text[..LEN - 1], &text[1..]] {
            assert_eq!(Stamp::find(none), None);
        }
        text[12] = b'g';
        assert_eq!(Stamp::find(&text), None);
    }
}
