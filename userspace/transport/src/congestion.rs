//! How many packets the network may hold of one sender on one path: a window, in packets and fractions of one.
//!
//! Delay tells congestion before loss does. A packet's round trip, without the time its receiver held it, beyond the
//! lowest one seen lately is time spent in queues; where *every* packet of a round trip waited longer than the target, a
//! queue stands, and the window shrinks in proportion (Swift's rule). The lowest of a round is taken because processes
//! that wait for a core delay some packets by milliseconds, but not all of them: a rule that listened to each
//! packet would take a busy host for a busy network. Marks (ECN) count too, once per round.
//!
//! A loss is congestion only where a queue may have overflowed. Links and hosts lose packets by chance as well, and who takes
//! each for congestion gets next to nothing through there: the less it sends, the less it needs to lose. A queue that drops is
//! full, and a full one delays: so what is lost while packets come through much sooner than they have on this
//! path before was not lost to a queue. Until a queue has been seen at all, only a flood of losses is one.
//!
//! The base round trip goes stale: routes change, and a sender that starts when a queue stands takes it for the path.
//! So a sender that has not seen its base for a while nearly stops for a few round trips to measure it; senders
//! that share a queue soon do so at the same time, see the same base, and get the same share.

use crate::scoreboard::Progress;

/// The window a path begins with, and returns to after a pause.
const INITIAL: f64 = 32.0;
/// Below one packet the pacer spreads packets over several round trips; more spread than this helps nobody.
const MIN: f64 = 1.0 / 64.0;
/// The window while the base is measured.
const DRAINED: f64 = 4.0;
/// How strongly a round above the target shrinks the window, and how much one round may.
const BETA: f64 = 0.8;
const SHRINK_MOST: f64 = 0.5;
/// A round with loss by congestion leaves this much of the window.
const AFTER_LOSS: f64 = 0.7;
/// So many losses in a round, and this part of the window, are congestion whatever else is known.
const FLOOD: u32 = 8;
const FLOOD_SHARE: f64 = 3.0;
/// A round trip that is longer than the base by less than this part of it shows no queue.
const SEEN: u64 = 16;
/// Queues shorter than the deepest one seen by this part were not full.
const FULL: u64 = 4;
/// Rounds for which the deepest queue is remembered, about.
const DEEPEST_ROUNDS: u64 = 256;
/// The weight of a round in the average of marked packets.
const MARK_WEIGHT: f64 = 1.0 / 16.0;
/// The base is measured anew when it was not seen for this long, in ns, or for this many round trips if that is longer.
const STALE_NS: u64 = 200_000_000;
const STALE_ROUNDS: u64 = 100;
/// Round trips that measuring takes: what is under way drains in one, the next tell.
const DRAIN_ROUNDS: u64 = 3;
/// How many times the round trips' mean variation is tolerated besides.
const JITTER: u64 = 2;
/// Rounds without congestion before the network counts as free again.
const CALM_ROUNDS: u64 = 16;
/// After a pause of this long, in ns, what was learned of the network's load is forgotten.
const IDLE_NS: u64 = 1_000_000_000;

/// The window of one sender on one path.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: f64,
    /// No more than this, whatever the network takes.
    most: f64,
    /// Below it the window doubles each round.
    threshold: f64,
    /// Time in queues that is no congestion yet, in ns.
    queue_ns: u64,
    /// By how much round trips vary, in ns.
    variation: u64,
    /// The lowest round trip, in ns, and when it was last seen.
    base: Option<(u64, u64)>,
    /// While it is measured anew: until when, and the lowest since.
    draining: Option<(u64, u64)>,
    round: Round,
    /// The share of packets that are marked, averaged over rounds.
    marking: f64,
    /// The longest round trip at which a queue stood that did not overflow, in ns; fades. 0: none is known.
    deepest: u64,
    /// Until then, a loss is the same congestion as the last.
    reacted_until: u64,
    congested_until: u64,
}

/// What the current round trip has shown.
#[derive(Clone, Copy, Debug)]
struct Round {
    ends: u64,
    /// The lowest round trip.
    lowest: u64,
    arrived: u32,
    lost: u32,
    marked: u32,
    /// The window has held something back.
    limited: bool,
}

impl Round {
    fn new(ends: u64) -> Round {
        Round { ends, lowest: u64::MAX, arrived: 0, lost: 0, marked: 0, limited: false }
    }
}

impl Congestion {
    /// A path nothing is known of. `queue_ns` is the time in queues that is tolerated on it, `most` the packets that a
    /// receiver can take before it looks at them.
    pub fn new(queue_ns: u64, most: u32) -> Congestion {
        let most = f64::from(most).max(DRAINED);
        Congestion {
            window: INITIAL.min(most),
            most,
            threshold: most,
            queue_ns,
            variation: 0,
            base: None,
            draining: None,
            round: Round::new(0),
            marking: 1.0,
            deepest: 0,
            reacted_until: 0,
            congested_until: 0,
        }
    }

    /// Packets that may be under way now.
    #[inline]
    pub fn window(&self) -> f64 {
        if self.draining.is_some() { self.window.min(DRAINED) } else { self.window }
    }

    /// Whether the network was found congested lately, so that packets are to be spread over time.
    #[inline]
    pub fn is_congested(&self, now: u64) -> bool {
        now < self.congested_until
    }

    /// The lowest round trip, in ns; 0 before the first.
    pub fn base(&self) -> u64 {
        self.base.map_or(0, |(base, _)| base)
    }

    /// The round trip above which a queue is too long, in ns. Senders with a small window tolerate more: where many
    /// share a queue, one packet of each is a long one.
    pub fn target(&self) -> u64 {
        let many = 1.0 + 2.0 / self.window.max(1.0).sqrt();
        self.base() + (self.tolerated() as f64 * many) as u64
    }

    /// Time in queues that is no congestion, for a sender whose window is large, in ns.
    fn tolerated(&self) -> u64 {
        self.queue_ns.max(self.base() / 4).max(JITTER * self.variation)
    }

    /// The window has held a packet back.
    pub fn held_back(&mut self) {
        self.round.limited = true;
    }

    /// Takes what an ack has brought. `smoothed` is the smoothed round trip, in ns.
    pub fn on_ack(&mut self, now: u64, progress: &Progress, smoothed: u64, variation: u64) {
        self.variation = variation;
        let mut calm = self.draining.is_none() && progress.marked == 0;
        if let Some(round_trip) = progress.round_trip {
            self.measure(now, round_trip);
            calm &= round_trip <= self.target();
        }
        self.round.arrived += progress.arrived;
        self.round.marked += progress.marked;
        self.round.lost = (self.round.lost + progress.lost).saturating_sub(progress.late);
        if progress.lost > 0 && self.is_flooded() {
            calm = false;
            if now >= self.reacted_until {
                self.shrink(now, AFTER_LOSS, smoothed);
            }
        }
        if calm && self.round.limited {
            self.grow(f64::from(progress.arrived));
        }
        if now >= self.round.ends {
            self.end_round(now, smoothed);
        }
    }

    fn grow(&mut self, arrived: f64) {
        let by = if self.window < self.threshold { arrived } else { arrived / self.window.max(1.0) };
        self.window = (self.window + by).min(self.most);
    }

    /// Whether what the round has lost may have been lost to a full queue.
    fn overflows(&self) -> bool {
        let Round { lowest, lost, .. } = self.round;
        let (base, depth) = (self.base(), self.deepest.saturating_sub(self.base()));
        let full = depth > base / SEEN && lowest >= self.deepest - depth / FULL;
        // While the window doubles, the network has not shown what it takes.
        lost > 0 && full && self.window >= self.threshold
    }

    /// Whether the round has lost more than chance takes anywhere where one would want to send.
    fn is_flooded(&self) -> bool {
        let Round { lost, .. } = self.round;
        lost >= FLOOD && f64::from(lost) * FLOOD_SHARE > self.window
    }

    fn measure(&mut self, now: u64, round_trip: u64) {
        self.round.lowest = self.round.lowest.min(round_trip);
        if let Some((_, lowest)) = &mut self.draining {
            *lowest = round_trip.min(*lowest);
        }
        self.base = Some(match self.base {
            // It is the same base, seen again.
            Some((base, _)) if round_trip <= base + base / SEEN => (base.min(round_trip), now),
            Some(base) => base,
            None => (round_trip, now),
        });
    }

    fn end_round(&mut self, now: u64, smoothed: u64) {
        let Round { lowest, arrived, marked, limited, .. } = self.round;
        let target = self.target();
        let overflows = self.overflows();
        if limited {
            self.deepest -= self.deepest.saturating_sub(self.base()) / DEEPEST_ROUNDS;
        }
        if lowest != u64::MAX && !self.is_flooded() {
            self.deepest = self.deepest.max(lowest);
        }
        let share = f64::from(marked) / f64::from(arrived.max(marked).max(1));
        self.marking += (share - self.marking) * MARK_WEIGHT;
        let waited_too_long = lowest != u64::MAX && lowest > target;
        if marked > 0 {
            self.shrink(now, 1.0 - self.marking / 2.0, smoothed);
        } else if overflows && now >= self.reacted_until {
            self.shrink(now, AFTER_LOSS, smoothed);
        } else if waited_too_long {
            let over = (lowest - target) as f64 / lowest as f64;
            self.shrink(now, 1.0 - BETA * over, smoothed);
        }
        self.look_after_base(now, smoothed);
        // Held back at the end of a round is held back until something else is known.
        self.round = Round { limited: limited && self.draining.is_some(), ..Round::new(now + smoothed) };
    }

    fn look_after_base(&mut self, now: u64, smoothed: u64) {
        match (self.draining, self.base) {
            (Some((until, lowest)), _) if now >= until => {
                self.draining = None;
                if lowest != u64::MAX {
                    self.base = Some((lowest, now));
                }
            }
            (None, Some((_, seen))) => {
                let stale = STALE_NS.max(STALE_ROUNDS * smoothed);
                if now.saturating_sub(seen) > stale {
                    self.draining = Some((now + DRAIN_ROUNDS * smoothed, u64::MAX));
                }
            }
            _ => {}
        }
    }

    fn shrink(&mut self, now: u64, to: f64, smoothed: u64) {
        self.window = (self.window * to.max(SHRINK_MOST)).max(MIN);
        self.threshold = self.window;
        self.reacted_until = now + smoothed;
        self.congested_until = now + CALM_ROUNDS * smoothed;
    }

    /// Nothing comes back any more: what was under way is gone, and so is what was known.
    pub fn on_timeout(&mut self, now: u64, smoothed: u64) {
        if now < self.reacted_until {
            return;
        }
        let half = (self.window / 2.0).max(1.0);
        self.shrink(now, SHRINK_MOST, smoothed);
        self.window = self.window.min(1.0);
        self.threshold = half;
    }

    /// Sending begins again after `idle` ns with nothing under way.
    pub fn resume(&mut self, now: u64, idle: u64) {
        if idle >= IDLE_NS {
            self.threshold = self.threshold.max(self.window * 0.75);
            self.window = self.window.clamp(1.0, INITIAL);
            self.round = Round::new(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: u64 = 100_000;

    /// Lets a round pass in which everything arrived after `round_trip`.
    fn round(congestion: &mut Congestion, now: &mut u64, round_trip: u64, edit: impl Fn(&mut Progress)) {
        let arrived = congestion.window().max(1.0) as u32;
        *now += RTT;
        congestion.held_back();
        let mut progress =
            Progress { arrived, landed: arrived, round_trip: Some(round_trip), ..Progress::default() };
        edit(&mut progress);
        congestion.on_ack(*now, &progress, RTT, 0);
    }

    #[test]
    fn a_free_network_is_taken_by_doubling_and_a_sender_that_needs_no_more_keeps_its_window() {
        let mut congestion = Congestion::new(100_000, 2048);
        let mut now = 1_000_000;
        for _ in 0..5 {
            round(&mut congestion, &mut now, RTT, |_| {});
        }
        assert_eq!(congestion.window(), 1024.0);
        assert!(!congestion.is_congested(now));
        congestion.on_ack(now, &Progress { arrived: 50, ..Progress::default() }, RTT, 0);
        assert_eq!(congestion.window(), 1024.0);
    }

    #[test]
    fn a_standing_queue_shrinks_the_window_once_a_round_and_then_it_grows_by_one() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        round(&mut congestion, &mut now, RTT, |_| {});
        round(&mut congestion, &mut now, RTT, |_| {});
        let before = congestion.window();
        round(&mut congestion, &mut now, 4 * RTT, |_| {});
        let after = congestion.window();
        assert!(after < before * 0.7 && after >= before * 0.5, "{before} to {after}");
        assert!(congestion.is_congested(now) && congestion.is_congested(now + 15 * RTT));
        round(&mut congestion, &mut now, RTT, |_| {});
        assert!((congestion.window() - after - 1.0).abs() < 0.01, "{}", congestion.window());
    }

    #[test]
    fn one_packet_on_time_in_a_round_clears_the_network() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        round(&mut congestion, &mut now, RTT, |_| {});
        let before = congestion.window();
        now += RTT / 2;
        let ack = |round_trip| Progress { arrived: 1, round_trip: Some(round_trip), ..Progress::default() };
        congestion.on_ack(now, &ack(RTT), RTT, 0);
        now += RTT;
        congestion.on_ack(now, &ack(40 * RTT), RTT, 0); // its process waited for a core
        assert!(congestion.window() >= before);
    }

    #[test]
    fn marks_shrink_by_their_share() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        for _ in 0..60 {
            round(&mut congestion, &mut now, RTT, |_| {}); // the average of marks falls
        }
        let before = congestion.window();
        round(&mut congestion, &mut now, RTT, |progress| progress.marked = progress.arrived);
        assert!(congestion.window() < before && congestion.window() > before * 0.9);
    }

    #[test]
    fn a_loss_is_congestion_where_the_queue_is_as_deep_as_it_ever_was_or_in_floods() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        let lose = |congestion: &mut Congestion, now: u64, lost| {
            let before = congestion.window();
            congestion.on_ack(now, &Progress { lost, ..Progress::default() }, RTT, 0);
            congestion.window() / before
        };
        for round_trip in [RTT, RTT, RTT + 90_000, RTT] {
            round(&mut congestion, &mut now, round_trip, |_| {});
        }
        assert_eq!(lose(&mut congestion, now + 1, 5), 1.0, "nothing waits");
        let late = |progress: &mut Progress| progress.lost = 1;
        let before = congestion.window();
        round(&mut congestion, &mut now, RTT + 40_000, late);
        assert!(congestion.window() > before, "a queue as long has lost nothing before");
        let before = congestion.window();
        round(&mut congestion, &mut now, RTT + 80_000, late);
        assert!(congestion.window() < before * 0.8, "{} of {before}", congestion.window());
        now += 3 * RTT;
        round(&mut congestion, &mut now, RTT, |_| {});
        assert_eq!(lose(&mut congestion, now + 1, 100), AFTER_LOSS, "a flood");
        assert_eq!(lose(&mut congestion, now + RTT / 2, 100), 1.0, "once a round");
    }

    #[test]
    fn timeouts_lead_to_fractions_of_a_packet_and_never_to_nothing() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        congestion.on_timeout(now, RTT);
        assert_eq!(congestion.window(), 1.0);
        for _ in 0..100 {
            now += 2 * RTT;
            congestion.on_timeout(now, RTT);
        }
        assert_eq!(congestion.window(), MIN);
        congestion.resume(now, 2_000_000_000);
        assert_eq!(congestion.window(), 1.0);
    }

    #[test]
    fn a_base_not_seen_for_long_is_measured_anew() {
        let mut congestion = Congestion::new(50_000, 2048);
        let mut now = 1_000_000;
        round(&mut congestion, &mut now, RTT, |_| {});
        let longer = RTT + RTT / 4; // another route: below the target, but not the base
        let mut least = f64::MAX;
        for _ in 0..STALE_NS / RTT + 20 {
            round(&mut congestion, &mut now, longer, |_| {});
            least = least.min(congestion.window());
        }
        assert_eq!(least, DRAINED);
        assert_eq!(congestion.base(), longer);
        assert!(congestion.window() > INITIAL);
    }
}
