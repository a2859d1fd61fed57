//! `--register-rate`: how many new registrations an address may make.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Addresses that are remembered before those that owe nothing are forgotten.
const MANY: usize = 10_000;

/// A leaky bucket per address that holds a second's worth. Time is a parameter.
#[derive(Debug, Default)]
pub struct Rates {
    /// When the address has paid for what it took.
    paid: HashMap<IpAddr, Instant>,
}

impl Rates {
    /// Takes one of `per_second` (not 0), or says how long to wait for it.
    pub fn take(&mut self, who: IpAddr, per_second: u32, now: Instant) -> Result<(), Duration> {
        if self.paid.len() >= MANY {
            self.paid.retain(|_, paid| *paid > now);
        }
        let share = Duration::from_secs(1) / per_second;
        let paid = self.paid.get(&who).map_or(now, |paid| (*paid).max(now)) + share;
        let ahead = paid - now;
        if ahead > Duration::from_secs(1) {
            return Err(ahead - Duration::from_secs(1));
        }
        self.paid.insert(who, paid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_for_each_address() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let (one, other): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let taken = (0..10).filter(|_| rates.take(one, 4, now).is_ok()).count();
        assert_eq!(taken, 4);
        assert_eq!(rates.take(one, 4, now), Err(Duration::from_millis(250)));
        assert_eq!(rates.take(other, 4, now), Ok(()));
        assert_eq!(rates.take(one, 4, now + Duration::from_millis(250)), Ok(()));
    }
}
