//! When a sender may send its next packet, once the network is congested: no faster than it empties.

/// Spreads packets over time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacer {
    /// When the next packet would leave if each kept its distance to the one before.
    next_at: u64,
}

/// Distances that may be caught up on, where half a window is not more: timers go off late, processes wait for cores, and
/// packets in bunches cost less.
const BUNCH: u64 = 8;

impl Pacer {
    /// Whether a packet may leave now; otherwise when.
    #[inline]
    pub fn admits(&self, now: u64, distance: u64, window: f64) -> Result<(), u64> {
        let at = self.next_at.saturating_sub(ahead(distance, window));
        // The distance may have been a far longer one when the last packet left.
        if now >= at { Ok(()) } else { Err(at.min(now + distance)) }
    }

    /// A packet has left, admitted or not. What was not admitted is no debt without end.
    #[inline]
    pub fn charge(&mut self, now: u64, distance: u64, window: f64) {
        let most = now + ahead(distance, window) + distance;
        self.next_at = (self.next_at.max(now) + distance).min(most);
    }
}

/// How far packets may be ahead of their time. A window of less than a bunch is not sent in one.
fn ahead(distance: u64, window: f64) -> u64 {
    let window = window as u64;
    BUNCH.min(window).max(window / 2).saturating_sub(1) * distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_a_pause_is_not_caught_up_on() {
        let mut pacer = Pacer::default();
        let (mut now, mut sent) = (1_000, 0);
        while now < 101_000 {
            match pacer.admits(now, 100, 16.0) {
                Ok(()) => {
                    pacer.charge(now, 100, 16.0);
                    sent += 1;
                }
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert_eq!(sent, 1_000 + 7);
        let bunch = (0..100).take_while(|_| {
            let admitted = pacer.admits(now + 1_000_000, 100, 16.0).is_ok();
            pacer.charge(now + 1_000_000, 100, 16.0);
            admitted
        });
        assert_eq!(bunch.count(), 8);
    }

    #[test]
    fn less_than_a_packet_per_round_trip_goes_out_one_by_one() {
        let mut pacer = Pacer::default();
        pacer.charge(1_000, 400, 0.25);
        assert_eq!(pacer.admits(1_100, 400, 0.25), Err(1_400));
        assert_eq!(pacer.admits(1_400, 400, 0.25), Ok(()));
        for _ in 0..100 {
            pacer.charge(1_400, 400, 0.25); // small calls, which do not wait
        }
        assert_eq!(pacer.admits(1_400, 400, 0.25), Err(1_800));
    }
}
