//! How many calls were made once more lately, of how many: what keeps retries from feeding on themselves.

/// After so many calls, older ones count half.
const WINDOW: u32 = 1024;
const ALL_PPM: u32 = 1_000_000;

#[derive(Clone, Debug, Default)]
pub struct Retries {
    calls: u32,
    retries: u32,
}

impl Retries {
    #[inline]
    pub fn count_call(&mut self) {
        self.calls += 1;
        if self.calls >= 2 * WINDOW {
            self.calls /= 2;
            self.retries /= 2;
        }
    }

    /// Whether another call may be made once more; counts it then.
    pub fn allow(&mut self, budget_ppm: u32) -> bool {
        let within =
            u64::from(self.retries) * u64::from(ALL_PPM) <= u64::from(self.calls) * u64::from(budget_ppm);
        let allowed = budget_ppm >= ALL_PPM || within;
        if allowed {
            self.retries = self.retries.saturating_add(1);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_a_tenth_in_the_long_run() {
        let mut retries = Retries::default();
        let mut made = 0;
        for _ in 0..100_000 {
            retries.count_call();
            made += u32::from(retries.allow(100_000));
        }
        assert!((9_900..10_200).contains(&made), "{made}");
        for _ in 0..5 {
            assert!(retries.allow(ALL_PPM), "no budget");
        }
    }
}
