//! Percentiles of many durations in little memory: each octave of microseconds in 64 steps, so within 1.6 %.

use serde_json::{Value, json};

const STEPS: u32 = 6;
const BUCKETS: usize = (64 - STEPS as usize + 1) << STEPS;

/// How often which duration was seen.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

/// The usual four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Half were not longer, in microseconds; and so on.
    pub p50: u64,
    /// See above.
    pub p90: u64,
    /// See above.
    pub p99: u64,
    /// The longest, exactly.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS].into(), total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a duration in microseconds.
    pub fn add(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max = self.max.max(us);
    }

    /// `None` when nothing was seen.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |share: f64| self.at((self.total as f64 * share).ceil() as u64);
        (self.total > 0).then(|| Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.max })
    }

    /// The upper end of the bucket that holds the n-th shortest.
    fn at(&self, n: u64) -> u64 {
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= n
        });
        found.map_or(self.max, |bucket| upper(bucket).min(self.max))
    }
}

impl Percentiles {
    /// As members of an object.
    pub fn to_json(self) -> Value {
        json!({ "p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max })
    }
}

fn bucket(us: u64) -> usize {
    let shift = (63 - (us | 1).leading_zeros()).saturating_sub(STEPS);
    ((shift as usize) << STEPS) + (us >> shift) as usize
}

fn upper(bucket: usize) -> u64 {
    let shift = (bucket >> STEPS).saturating_sub(1);
    let step = (bucket - (shift << STEPS)) as u64;
    (step << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_as_wide_as_promised(us: u64) {
            let upper = upper(bucket(us));
            prop_assert!(upper >= us && upper - us <= us / 64, "{us} is in the bucket up to {upper}");
        }
    }

    #[test]
    fn percentiles_of_one_to_thousand() {
        let mut seen = Histogram::default();
        assert_eq!(seen.percentiles(), None);
        (1..=1000).for_each(|us| seen.add(us));
        let found = seen.percentiles().expect("some were seen");
        assert!((500..=507).contains(&found.p50) && (990..=1000).contains(&found.p99), "{found:?}");
        assert_eq!(found.max, 1000);
    }
}
