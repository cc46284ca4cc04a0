//! Round trips, and the timeout that follows from them (after RFC 6298, without its one-second floor).

/// A smoothed round trip and its variation, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    smoothed: u64,
    variation: u64,
    /// Added to the floor of the timeout: grows when something was sent again in vain, shrinks while nothing is.
    patience: u64,
}

/// A handler's time is part of what a client measures; an estimate over this would make a lost packet cost too much.
const CEILING_NS: u64 = 200_000_000;
/// How many times the floor patience can come to.
const PATIENCE_MAX: u64 = 16;

impl RoundTrip {
    /// Takes a measurement.
    #[inline]
    pub fn sample(&mut self, ns: u64) {
        let ns = ns.max(1);
        self.patience -= self.patience.div_ceil(64);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (ns, ns / 2);
            return;
        }
        self.variation = self.variation - self.variation / 4 + self.smoothed.abs_diff(ns) / 4;
        self.smoothed = (self.smoothed - self.smoothed / 8 + ns / 8).max(1);
    }

    /// Something was sent again although it had arrived: whoever answers is slower than the floor allows for, as
    /// processes are that wait for a core.
    pub fn was_hasty(&mut self, floor: u64) {
        self.patience = (self.patience * 2).max(floor).min(floor * PATIENCE_MAX);
    }

    /// The smoothed round trip, 0 before the first measurement.
    #[inline]
    pub fn smoothed(&self) -> u64 {
        self.smoothed
    }

    /// By how much it varies, in ns.
    pub fn variation(&self) -> u64 {
        self.variation
    }

    /// How long to wait for an answer before sending again: about two round trips, more where they vary.
    #[inline]
    pub fn timeout(&self, initial: u64, floor: u64) -> u64 {
        match self.smoothed {
            0 => initial,
            smoothed => {
                (smoothed + (2 * self.variation).max(smoothed)).min(CEILING_NS).max(floor + self.patience)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_on_a_steady_round_trip_and_widens_with_variation() {
        let mut steady = RoundTrip::default();
        assert_eq!(steady.timeout(20, 2), 20);
        for _ in 0..200 {
            steady.sample(10_000_000);
        }
        assert!(steady.smoothed().abs_diff(10_000_000) < 100, "{}", steady.smoothed());
        assert!(steady.timeout(0, 0).abs_diff(20_000_000) < 200);
        let mut shaky = steady;
        for n in 0..50 {
            shaky.sample(if n % 2 == 0 { 2_000_000 } else { 30_000_000 });
        }
        assert!(shaky.timeout(0, 0) > 35_000_000);
        assert!(shaky.timeout(0, 0) <= CEILING_NS);
    }

    #[test]
    fn haste_teaches_patience_and_calm_forgets_it() {
        let mut round_trip = RoundTrip::default();
        round_trip.sample(10_000);
        assert_eq!(round_trip.timeout(0, 300_000), 300_000);
        round_trip.was_hasty(300_000);
        assert_eq!(round_trip.timeout(0, 300_000), 600_000);
        for _ in 0..10 {
            round_trip.was_hasty(300_000);
        }
        assert_eq!(round_trip.timeout(0, 300_000), 17 * 300_000);
        for _ in 0..1_000 {
            round_trip.sample(10_000);
        }
        assert_eq!(round_trip.timeout(0, 300_000), 300_000);
    }
}
