//! A host's clock: it starts somewhere, runs a little fast or slow, and leaps when the host was asleep. It never goes back, as
//! the monotonic clock that engines read never does.

/// A clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How much faster than the world's it runs, in millionths.
    pub fast_ppm: i64,
    /// How far it has leapt, in ns.
    pub leapt: u64,
}

impl Clock {
    /// What it shows at a time of the world's.
    pub fn shows(&self, now: u64) -> u64 {
        now.saturating_add_signed(drift(now, self.fast_ppm)).saturating_add(self.leapt)
    }

    /// The first time of the world's, not before `now`, at which it shows at least `local`.
    pub fn reaches(&self, local: u64, now: u64) -> u64 {
        if local == u64::MAX {
            return u64::MAX;
        }
        let without_leaps = local.saturating_sub(self.leapt);
        let mut at = without_leaps.saturating_add_signed(-drift(without_leaps, self.fast_ppm)).max(now);
        // The inverse of a drift is off by the drift's own drift.
        while self.shows(at) < local {
            at += local - self.shows(at);
        }
        at
    }
}

fn drift(ns: u64, ppm: i64) -> i64 {
    (i128::from(ns) * i128::from(ppm) / 1_000_000).try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_reached_when_it_is_shown_and_hardly_later() {
        for fast_ppm in [-50_000, -20, 0, 1, 100, 50_000] {
            for leapt in [0, 7_000_000_123] {
                let clock = Clock { fast_ppm, leapt };
                for local in [8_000_000_000, 12_345_678_901_234, 1_000_000_000_000] {
                    let at = clock.reaches(local, 0);
                    assert!(clock.shows(at) >= local);
                    assert!(clock.shows(at) - local < local / 100, "{clock:?} {local}");
                }
                assert_eq!(clock.reaches(5, 900), 900);
            }
        }
    }
}
