//! The sending side of one message: which of its fragments to send next, and whether it has arrived.

use crate::extension::checksum_len;
use crate::flow::Flow;
use crate::sack::{Ack, SPAN};
use crate::scoreboard::{Progress, Scoreboard, Tolerance};
use std::ops::Range;
use tollfree_wire::header::MESSAGE_MAX;
use tollfree_wire::spec::MethodSpec;

/// Fragments that are sent before the receiver has said how many it takes.
pub(crate) const UNASKED: u32 = 64;
const _: () = assert!(UNASKED <= SPAN - 64);
/// Fragments of one message that are sent before others have their turn.
pub(crate) const BUNCH: u32 = 16;
/// Scoreboards kept for the next long messages.
const SPARE_BOARDS: usize = 64;

/// How many fragments a body takes at `size` bytes each; at least one.
pub(crate) fn fragments(body_len: u32, size: u32) -> u32 {
    body_len.div_ceil(size.max(1)).max(1)
}

/// Scoreboards that no message uses, so that a new message does not need new memory.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "they move between here and the messages without being copied")]
pub(crate) struct Boards(Vec<Box<Scoreboard>>);

impl Boards {
    fn take(&mut self) -> Box<Scoreboard> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, board: Box<Scoreboard>) {
        if self.0.len() < SPARE_BOARDS {
            self.0.push(board);
        }
    }
}

/// A message on its way. One of a single fragment, as most are, has no scoreboard, nor has one that nobody acknowledges.
#[derive(Debug, Default)]
pub(crate) struct Window {
    length: u32,
    size: u32,
    fragments: u32,
    /// Without a scoreboard: the lowest fragment never sent.
    next: u32,
    arrived: bool,
    /// Send the first missing fragment (or, when all have arrived, the first) once more, whatever is under way: to learn
    /// what has become of it.
    probe: bool,
    board: Option<Box<Scoreboard>>,
}

/// What a transmission was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Not the fragment's first.
    pub again: bool,
    /// One more packet of a long message is in the network.
    pub more: bool,
}

impl Window {
    /// A message of `length` bytes, `size` to a fragment, each of which is sent once.
    #[inline]
    pub fn once(length: u32, size: u32) -> Window {
        Window { length, size, fragments: fragments(length, size), ..Window::default() }
    }

    /// A message whose fragments are sent until they have arrived, at most `most` at once (0: no limit of its own).
    #[inline]
    pub fn acknowledged(length: u32, size: u32, most: u16, boards: &mut Boards) -> Window {
        let mut window = Window::once(length, size);
        if window.fragments > 1 {
            let mut board = boards.take();
            board.reset(window.fragments, UNASKED, u32::from(most));
            window.board = Some(board);
        }
        window
    }

    /// The fragment to send now, if any.
    #[inline]
    pub fn due(&mut self) -> Option<u32> {
        if self.probe {
            let missing = self.board.as_ref().filter(|_| !self.arrived);
            return Some(missing.map_or(0, |board| board.base()));
        }
        match &mut self.board {
            None => (self.next < self.fragments && !self.arrived).then_some(self.next),
            Some(board) => board.due(self.fragments),
        }
    }

    /// Whether it is a single fragment that is to be sent for the first time.
    #[inline]
    pub fn is_one_unsent(&self) -> bool {
        self.fragments == 1 && self.next == 0 && self.board.is_none() && !self.arrived && !self.probe
    }

    /// Whether the fragment that is due waits for the network to take it: anything but a probe, of a long message.
    #[inline]
    pub fn is_held_back(&self) -> bool {
        self.board.is_some() && !self.probe
    }

    /// Takes note that the fragment from [`Window::due`] was sent.
    #[inline]
    pub fn sent(&mut self, fragment: u32, sequence: u64, now: u64) -> Sent {
        let probe = std::mem::take(&mut self.probe);
        match &mut self.board {
            None => {
                let again = fragment < self.next;
                self.next = self.next.max(fragment + 1);
                Sent { again, more: false }
            }
            Some(board) => {
                let again = probe || fragment < board.next();
                Sent { again, more: board.sent(fragment, sequence, now) }
            }
        }
    }

    /// Takes an ack, which came in the packet with this sequence.
    pub fn acknowledge(&mut self, ack: &Ack<'_>, sequence: u64, now: u64, tolerance: Tolerance) -> Progress {
        let Some(board) = &mut self.board else { return Progress::default() };
        let progress = board.acknowledge(ack, sequence, now, tolerance);
        self.arrived = board.base() == self.fragments;
        progress
    }

    /// Takes note that the whole message has arrived, or that nobody waits for it any more. Returns how many of its
    /// packets need not be waited for.
    #[inline]
    pub fn finish(&mut self, boards: &mut Boards) -> u32 {
        (self.arrived, self.probe) = (true, false);
        self.next = self.fragments;
        self.board.take().map_or(0, |board| {
            let outstanding = board.outstanding();
            boards.put(board);
            outstanding
        })
    }

    /// Cuts the message again into fragments of at most `size` bytes, from this sequence on, where it has longer ones and
    /// still has to arrive or is asked after. Returns how many of its packets need not be waited for; `None` where nothing has changed.
    pub fn cut_again(
        &mut self,
        size: u32,
        sequence: u64,
        spec: &MethodSpec,
        boards: &mut Boards,
    ) -> Option<u32> {
        let (length, total) = (self.length, self.length + checksum_len(spec) * fragments(self.length, size));
        if !spec.is_reliable() || self.longest() <= size as usize || total > MESSAGE_MAX {
            return None;
        }
        let arrived = self.arrived;
        let outstanding = self.finish(boards);
        if arrived {
            // Its receiver knows it whole: a first fragment that gets there is all it takes to ask.
            let next = fragments(length, size);
            *self = Window { arrived, next, ..Window::once(length, size) };
            return Some(outstanding);
        }
        *self = Window::acknowledged(length, size, spec.window, boards);
        if let Some(board) = &mut self.board {
            board.begins_at(sequence);
        }
        Some(outstanding)
    }

    /// Whether something under way has been overtaken by what has arrived.
    pub fn is_behind(&mut self) -> bool {
        self.board.as_mut().is_some_and(|board| board.is_behind())
    }

    /// Nothing new was heard for as long as was to be waited. What was overtaken by then counts as lost; where nothing
    /// was, one fragment is sent again to hear more (`probed`); where that was not heard of either, all counts as lost.
    /// True in this case.
    pub fn overdue(&mut self, now: u64, flow: &mut Flow, probed: &mut bool) -> bool {
        let expired = self.board.as_mut().map_or(0, |board| board.expire());
        if expired > 0 {
            flow.on_loss(now, expired);
            return false;
        }
        let again = std::mem::replace(probed, true);
        if again && self.is_under_way() {
            flow.on_timeout(now, self.give_up());
        } else {
            self.probe();
        }
        again
    }

    /// The receiver has no room for the message and has kept nothing of it: it is to be sent from its beginning once
    /// there is. Returns how many packets need not be waited for.
    pub fn turn_back(&mut self, sequence: u64) -> u32 {
        self.board.as_mut().map_or(0, |board| board.turn_back(sequence))
    }

    /// Everything under way counts as lost. Returns how many packets of a long message that were.
    pub fn give_up(&mut self) -> u32 {
        self.board.as_mut().map_or(0, |board| board.give_up())
    }

    /// Has the first missing fragment sent once more, or the first of all where none is missing.
    pub fn probe(&mut self) {
        self.probe = self.has_begun();
    }

    /// Whether anything has been sent.
    pub fn has_begun(&self) -> bool {
        match &self.board {
            Some(board) => board.has_begun(),
            None => self.next > 0,
        }
    }

    /// Whether packets of a long message are under way.
    pub fn is_under_way(&self) -> bool {
        self.board.as_ref().is_some_and(|board| board.outstanding() > 0)
    }

    /// Whether every fragment has arrived.
    pub fn arrived_whole(&self) -> bool {
        self.arrived
    }

    /// How many fragments there are.
    pub fn fragments(&self) -> u32 {
        self.fragments
    }

    /// How many fragments of a message of several are to be sent, for the first time or again.
    pub fn left(&self) -> u32 {
        self.board.as_ref().map_or(0, |board| board.left(self.fragments))
    }

    /// Bytes of it in its longest fragment.
    pub fn longest(&self) -> usize {
        self.size.min(self.length) as usize
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sack::{AckBody, AckHead};
    use proptest::prelude::*;

    #[test]
    fn a_message_of_one_packet_is_sent_once_and_then_only_probed_for() {
        let mut boards = Boards::default();
        let mut window = Window::acknowledged(100, 100, 0, &mut boards);
        assert_eq!((window.due(), window.is_held_back()), (Some(0), false));
        assert_eq!(window.sent(0, 1, 0), Sent { again: false, more: false });
        assert_eq!(window.due(), None);
        window.probe();
        assert_eq!(window.due(), Some(0));
        assert_eq!(window.sent(0, 2, 0), Sent { again: true, more: false });
        window.finish(&mut boards);
        assert_eq!(window.due(), None);
        window.probe();
        assert_eq!(window.due(), Some(0));
    }

    #[test]
    fn a_probe_of_a_long_message_goes_out_whatever_is_under_way() {
        let mut boards = Boards::default();
        let mut window = Window::acknowledged(1000, 100, 0, &mut boards);
        while let Some(fragment) = window.due() {
            assert!(window.sent(fragment, 1, 0).more);
        }
        let ack = AckBody::from(AckHead { base: 4, limit: 10, ..AckHead::default() });
        let tolerance = Tolerance { packets: 3, ns: 1000 };
        assert_eq!(window.acknowledge(&Ack::read(ack.bytes()).unwrap(), 1, 5, tolerance).landed, 4);
        window.probe();
        assert_eq!((window.due(), window.is_held_back()), (Some(4), false));
        assert_eq!(window.sent(4, 2, 6), Sent { again: true, more: false });
        assert_eq!((window.due(), window.finish(&mut boards)), (None, 6));
    }

    #[test]
    fn an_unacknowledged_message_is_sent_once_whole() {
        let mut window = Window::once(1000, 300);
        let mut sent = Vec::new();
        while let Some(fragment) = window.due() {
            assert!(!window.sent(fragment, 1, 0).again);
            sent.push(fragment);
        }
        assert_eq!((sent, window.is_held_back()), (vec![0, 1, 2, 3], false));
    }

    proptest! {
        #[test]
        fn fragments_are_the_message(length in 0..100_000u32, size in 1..3000u32) {
            let window = Window::once(length, size);
            let sizes: u64 = (0..window.fragments()).map(|fragment| window.range(fragment).len() as u64).sum();
            prop_assert_eq!(sizes, u64::from(length));
        }
    }
}
