//! The round trip of a session, and the retransmission timeout that follows from it (RFC 6298, without its one-second
//! floor). Only packets sent once are measured: which transmission an answer belongs to is not known otherwise.

/// A smoothed round trip and its variation, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    smoothed: u64,
    variation: u64,
}

/// A handler's time is part of what a client measures; an estimate over this would make a lost packet cost too much.
const CEILING_NS: u64 = 200_000_000;

impl RoundTrip {
    /// Takes a measurement.
    pub fn sample(&mut self, ns: u64) {
        let ns = ns.max(1);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (ns, ns / 2);
            return;
        }
        self.variation = self.variation - self.variation / 4 + self.smoothed.abs_diff(ns) / 4;
        self.smoothed = (self.smoothed - self.smoothed / 8 + ns / 8).max(1);
    }

    /// The smoothed round trip, 0 before the first measurement.
    pub fn smoothed(&self) -> u64 {
        self.smoothed
    }

    /// How long to wait for an answer before sending again.
    pub fn timeout(&self, initial: u64, floor: u64) -> u64 {
        match self.smoothed {
            0 => initial,
            smoothed => (smoothed + 4 * self.variation).min(CEILING_NS).max(floor),
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
        assert!(steady.timeout(0, 0) < 10_100_000);
        let mut shaky = steady;
        for n in 0..50 {
            shaky.sample(if n % 2 == 0 { 2_000_000 } else { 18_000_000 });
        }
        assert!(shaky.timeout(0, 0) > 20_000_000);
        assert!(shaky.timeout(0, 0) <= CEILING_NS);
    }
}
