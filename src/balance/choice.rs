//! Which back end is next. Pure: what is known of each comes in, the place of one goes out.

use std::{fmt, str::FromStr};

/// How back ends are chosen.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Policy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest connections per weight.
    LeastConnections,
    /// Any, by weight.
    Random,
    /// The less busy one of two.
    TwoChoices,
    /// The same key goes to the same back end, as long as it is there.
    Hash(Key),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// The client's address.
    Ip,
    /// A request header's value.
    Header(String),
    /// A query parameter's value.
    Query(String),
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.splitn(3, ':').collect();
        Ok(match words[..] {
            ["round-robin"] => Policy::RoundRobin,
            ["least-connections"] => Policy::LeastConnections,
            ["random"] => Policy::Random,
            ["p2c"] => Policy::TwoChoices,
            ["hash", "ip"] => Policy::Hash(Key::Ip),
            ["hash", "header", name] if !name.is_empty() => Policy::Hash(Key::Header(name.to_ascii_lowercase())),
            ["hash", "query", name] if !name.is_empty() => Policy::Hash(Key::Query(name.into())),
            _ => {
                return Err(format!(
                    "`{text}` is not a policy: type round-robin, least-connections, random, p2c, hash:ip, \
                     hash:header:NAME or hash:query:NAME"
                ));
            }
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::RoundRobin => f.write_str("round-robin"),
            Policy::LeastConnections => f.write_str("least-connections"),
            Policy::Random => f.write_str("random"),
            Policy::TwoChoices => f.write_str("p2c"),
            Policy::Hash(Key::Ip) => f.write_str("hash:ip"),
            Policy::Hash(Key::Header(name)) => write!(f, "hash:header:{name}"),
            Policy::Hash(Key::Query(name)) => write!(f, "hash:query:{name}"),
        }
    }
}

/// What counts of a back end.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The same for the same back end, whoever else is there.
    pub name: u64,
    /// Its share, above 0.
    pub weight: f64,
    /// Connections to it now.
    pub active: usize,
    /// What it is owed by [`Policy::RoundRobin`].
    pub credit: f64,
}

impl Candidate {
    fn load(&self) -> f64 {
        (self.active as f64 + 1.0) / self.weight
    }

    /// Rendezvous hashing with weights: the highest score has the key, so that a key moves only when its own back end
    /// goes or a better one comes.
    fn score(&self, key: u64) -> f64 {
        let hash = mix(key ^ self.name.rotate_left(32));
        let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -self.weight / unit.ln()
    }
}

/// The place of the chosen one; `None` when there is none. `random` gives numbers from 0 up to 1. Credits change, as
/// smooth weighted round-robin does it: nobody gets two turns in a row that are not due.
pub fn choose(
    policy: &Policy,
    candidates: &mut [Candidate],
    key: u64,
    mut random: impl FnMut() -> f64,
) -> Option<usize> {
    let all = 0..candidates.len();
    let best = |score: &dyn Fn(&Candidate) -> f64| {
        all.clone().max_by(|&a, &b| score(&candidates[a]).total_cmp(&score(&candidates[b])))
    };
    match policy {
        Policy::RoundRobin => in_turn(candidates),
        Policy::Hash(_) => best(&|candidate| candidate.score(key)),
        Policy::LeastConnections => {
            // Any of those: several balancers must not all take the same one.
            let least = candidates.iter().map(Candidate::load).min_by(f64::total_cmp)?;
            let mut idle: Vec<usize> = all.filter(|&i| candidates[i].load() <= least).collect();
            let at = (random() * idle.len() as f64) as usize;
            Some(idle.swap_remove(at.min(idle.len() - 1)))
        }
        Policy::Random => by_weight(candidates, random()),
        Policy::TwoChoices => {
            let first = by_weight(candidates, random())?;
            let mut others: Vec<Candidate> = candidates.to_vec();
            others.remove(first);
            let Some(second) = by_weight(&others, random()) else { return Some(first) };
            let second = second + usize::from(second >= first);
            Some(if candidates[second].load() < candidates[first].load() { second } else { first })
        }
    }
}

fn in_turn(candidates: &mut [Candidate]) -> Option<usize> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    for candidate in candidates.iter_mut() {
        candidate.credit += candidate.weight;
    }
    let mut next: Option<usize> = None;
    for (i, candidate) in candidates.iter().enumerate() {
        if next.is_none_or(|best| candidate.credit > candidates[best].credit) {
            next = Some(i);
        }
    }
    candidates[next?].credit -= total;
    next
}

fn by_weight(candidates: &[Candidate], at: f64) -> Option<usize> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut left = at * total;
    for (i, candidate) in candidates.iter().enumerate() {
        left -= candidate.weight;
        if left < 0.0 {
            return Some(i);
        }
    }
    candidates.len().checked_sub(1)
}

/// FNV-1a: the same on every machine, so that several balancers agree.
pub fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
}

/// The finaliser of SplitMix64: every bit counts for every other.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[f64]) -> Vec<Candidate> {
        let one = |(i, &weight)| Candidate { name: hash(&[i as u8]), weight, active: 0, credit: 0.0 };
        weights.iter().enumerate().map(one).collect()
    }

    fn counts(policy: &Policy, candidates: &mut [Candidate], times: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        let mut seed = 1u64;
        for key in 0..times {
            let random = || {
                seed = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
                (seed >> 11) as f64 / (1u64 << 53) as f64
            };
            let chosen = choose(policy, candidates, mix(key), random).expect("one");
            candidates[chosen].active += 1;
            counts[chosen] += 1;
        }
        counts
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in
            ["round-robin", "least-connections", "random", "p2c", "hash:ip", "hash:header:x-user", "hash:query:u"]
        {
            assert_eq!(text.parse::<Policy>().expect(text).to_string(), text);
        }
        for wrong in ["", "hash", "hash:", "hash:header:", "hash:ip:x", "roundrobin"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn turns_are_exact_and_smooth() {
        let mut three = candidates(&[5.0, 1.0, 1.0]);
        let order: Vec<_> = (0..7).filter_map(|_| choose(&Policy::RoundRobin, &mut three, 0, || 0.0)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(counts(&Policy::RoundRobin, &mut candidates(&[1.0; 3]), 300), [100, 100, 100]);
    }

    #[test]
    fn every_policy_is_even_and_minds_weights() {
        use Policy::*;
        for (policy, slack) in [(LeastConnections, 2), (Random, 300), (TwoChoices, 300), (Hash(Key::Ip), 300)] {
            for (weights, shares) in [([1.0, 1.0, 1.0], [2000, 2000, 2000]), ([1.0, 2.0, 3.0], [1000, 2000, 3000])] {
                let counts = counts(&policy, &mut candidates(&weights), 6000);
                for (count, share) in counts.iter().zip(shares) {
                    assert!(count.abs_diff(share) <= slack, "{policy}: {counts:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_moves_only_when_its_own_back_end_goes() {
        let (mut all, policy) = (candidates(&[1.0; 5]), Policy::Hash(Key::Ip));
        let before: Vec<_> = (0..500).map(|key| choose(&policy, &mut all, mix(key), || 0.0)).collect();
        let mut fewer = all[..4].to_vec();
        for (key, before) in before.into_iter().enumerate().filter(|(_, before)| *before != Some(4)) {
            assert_eq!(choose(&policy, &mut fewer, mix(key as u64), || 0.0), before);
        }
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        use Policy::*;
        for policy in [RoundRobin, LeastConnections, Random, TwoChoices, Hash(Key::Ip)] {
            assert_eq!(choose(&policy, &mut [], 7, || 0.999), None);
            assert_eq!(choose(&policy, &mut candidates(&[1.0]), 7, || 0.999), Some(0));
        }
    }
}
