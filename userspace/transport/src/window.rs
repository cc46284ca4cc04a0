//! The sending side of one message: which of its fragments to send next, and which have arrived.

use std::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most fragments of one message that are under way at once.
pub(crate) const WINDOW: u32 = 32;
/// Later fragments that must have arrived before a missing one counts as lost rather than late.
const REORDER: u32 = 3;

/// The body of an ack packet: which fragments of a message have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Ack {
    /// All fragments below this one.
    pub base: u32,
    /// Zero.
    pub reserved: u32,
    /// Bit n: fragment `base + n`.
    pub mask: u64,
}

/// How many fragments a body takes at `size` bytes each; at least one.
pub(crate) fn fragments(body_len: u32, size: u32) -> u32 {
    body_len.div_ceil(size.max(1)).max(1)
}

/// Which fragments of a message are sent, lost, arrived. Bit n of a mask is fragment `base + n`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    length: u32,
    size: u32,
    fragments: u32,
    /// All fragments below have arrived.
    base: u32,
    /// The lowest fragment never sent.
    next: u32,
    arrived: u64,
    resend: u64,
    /// Resent because later ones had arrived; the next time only a timeout does it.
    repaired: u64,
    /// Send the first fragment although it has arrived: to ask what became of the call.
    probe: bool,
    /// A fragment sent once, and when: measures the round trip.
    timed: Option<(u32, u64)>,
}

impl Window {
    /// A message of `length` bytes, `size` to a fragment.
    pub fn new(length: u32, size: u32) -> Window {
        Window { length, size, fragments: fragments(length, size), ..Window::default() }
    }

    /// The fragment to send now, if any.
    #[inline]
    pub fn due(&self) -> Option<u32> {
        if self.probe {
            Some(0)
        } else if self.resend != 0 {
            Some(self.base + self.resend.trailing_zeros())
        } else {
            (self.next < self.fragments && self.next - self.base < WINDOW).then_some(self.next)
        }
    }

    /// The fragment to send now, if each is sent once and nobody says which have arrived.
    #[inline]
    pub fn unsent(&self) -> Option<u32> {
        (self.next < self.fragments).then_some(self.next)
    }

    /// Takes note that the fragment from [`Window::due`] or [`Window::unsent`] was sent. True if it was not its first time.
    #[inline]
    pub fn sent(&mut self, fragment: u32, now: u64) -> bool {
        if self.probe {
            self.probe = false;
            return true;
        }
        if fragment == self.next {
            self.next += 1;
            self.timed.get_or_insert((fragment, now));
            return false;
        }
        self.resend &= !(1 << (fragment - self.base));
        self.timed = None;
        true
    }

    /// Takes an ack. Returns whether it said anything new, and the round trip where it was measured.
    pub fn acknowledge(&mut self, ack: &Ack, now: u64) -> (bool, Option<u64>) {
        let &Ack { base, mask, .. } = ack;
        if base < self.base || base > self.next {
            return (false, None);
        }
        let before = (self.base, self.arrived);
        self.advance(base - self.base);
        self.arrived |= mask & self.under_way();
        self.advance(self.arrived.trailing_ones());
        self.resend &= !self.arrived;
        self.repair();
        let measured = self
            .timed
            .filter(|(fragment, _)| *fragment < self.base)
            .map(|(_, sent)| now.saturating_sub(sent));
        if measured.is_some() {
            self.timed = None;
        }
        ((self.base, self.arrived) != before, measured)
    }

    /// Takes note that the whole message has arrived.
    pub fn finish(&mut self) {
        *self = Window { base: self.fragments, next: self.fragments, ..Window::new(self.length, self.size) };
    }

    /// A timeout: everything under way counts as lost; a message that has arrived is probed for.
    pub fn lost(&mut self) {
        self.timed = None;
        if self.arrived_whole() {
            self.probe = true;
        } else {
            self.resend = self.under_way() & !self.arrived;
            self.repaired = 0;
        }
    }

    /// The peer asks again: sends the lowest missing fragment once more.
    pub fn nudge(&mut self) {
        if self.next > self.base {
            self.timed = None;
            self.resend |= 1;
        }
    }

    /// Whether every fragment has arrived.
    pub fn arrived_whole(&self) -> bool {
        self.base == self.fragments
    }

    /// How many fragments there are.
    pub fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Bytes of the message.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The bytes of a fragment.
    #[inline]
    pub fn range(&self, fragment: u32) -> Range<u32> {
        let start = fragment * self.size;
        start..self.length.min(start.saturating_add(self.size))
    }

    fn under_way(&self) -> u64 {
        (1 << (self.next - self.base)) - 1
    }

    fn advance(&mut self, by: u32) {
        // At most WINDOW: `next` is never further ahead.
        self.base += by;
        self.arrived >>= by;
        self.resend >>= by;
        self.repaired >>= by;
    }

    fn repair(&mut self) {
        let mut above = self.arrived.count_ones();
        for bit in 0..WINDOW {
            if self.arrived & (1 << bit) != 0 {
                above -= 1;
            } else if above >= REORDER && self.repaired & (1 << bit) == 0 {
                self.resend |= 1 << bit;
                self.repaired |= 1 << bit;
            }
            if above < REORDER {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn later_arrivals_repair_a_hole_once() {
        let mut window = Window::new(1000, 100);
        while let Some(fragment) = window.due() {
            window.sent(fragment, 0);
        }
        window.acknowledge(&Ack { base: 1, mask: 0b110, ..Ack::default() }, 5);
        assert_eq!(window.due(), None, "two later ones may be reordering");
        window.acknowledge(&Ack { base: 1, mask: 0b1110, ..Ack::default() }, 5);
        assert_eq!(window.due(), Some(1));
        assert!(window.sent(1, 6));
        window.acknowledge(&Ack { base: 1, mask: 0b11110, ..Ack::default() }, 7);
        assert_eq!(window.due(), None, "repaired already");
        window.lost();
        assert_eq!(window.due(), Some(1));
        window.finish();
        assert!(window.arrived_whole() && window.due().is_none());
        window.lost();
        assert_eq!(window.due(), Some(0), "probe");
        assert!(window.sent(0, 9));
        assert_eq!(window.due(), None);
    }

    proptest! {
        #[test]
        fn any_acks_keep_it_sound(length in 0..100_000u32, size in 1..3000u32, acks in proptest::collection::vec((any::<u16>(), any::<u64>(), any::<bool>()), 0..60)) {
            let mut window = Window::new(length, size);
            let mut sizes = 0u64;
            for fragment in 0..window.fragments() {
                sizes += window.range(fragment).len() as u64;
            }
            prop_assert_eq!(sizes, u64::from(length));
            for (base, mask, lost) in acks {
                for _ in 0..10 {
                    let Some(fragment) = window.due() else { break };
                    prop_assert!(fragment < window.fragments());
                    window.sent(fragment, 1);
                }
                if lost { window.lost() } else { window.nudge() }
                let base = u32::from(base) % (window.next + 2);
                window.acknowledge(&Ack { base, mask, ..Ack::default() }, 2);
                prop_assert!(window.base <= window.next && window.next <= window.fragments && window.next - window.base <= WINDOW);
            }
        }
    }
}
