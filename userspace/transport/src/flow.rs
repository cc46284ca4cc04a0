//! What one end sends on a session, taken together: how much of it the network holds, and what waits for it to take
//! more. All messages and streams of a session share one flow, because they share the path.
//!
//! Only packets of messages in several fragments are counted and held back. A call or reply of one packet is charged
//! to the pacer where the network is congested, but never waits: there are at most as many as call slots, and nothing
//! but the answer tells when it has left the network.

use crate::congestion::Congestion;
use crate::outbox::Ready;
use crate::pacing::Pacer;
use crate::rtt::RoundTrip;
use crate::scoreboard::{Progress, Tolerance};
use crate::session::End;
use crate::timers::Owner;
use crate::transport::Transport;
use crate::window::Window;
use std::collections::VecDeque;

/// Packets of a message that may have to arrive before an earlier one counts as lost. A path that reorders more teaches
/// more, up to where waiting for what is lost costs more than sending again what is only late.
const REORDER_MIN: u32 = 3;
const REORDER_MAX: u32 = 64;
/// Packets lost without any having only been late, after which a path counts as half as bad.
const REORDER_FADES: u32 = 64;
/// The shortest time to wait for a packet that others have overtaken, in ns.
const REORDER_NS: u64 = 50_000;
/// A network that lets nothing through has stopped: where this part of a window is gone, or after so many round trips.
const STOPPED_SHARE: f64 = 3.0;
const STOPPED_ROUNDS: u64 = 8;
/// Of the turns of messages that wait for the network, one in so many goes to the one that has waited longest.
const OLDEST_EVERY: u32 = 8;
/// Assumed before anything was measured, in ns.
const UNKNOWN_NS: u64 = 1_000_000;

/// Whether a packet may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Now,
    /// When something has arrived.
    AfterAck,
    /// At this time.
    At(u64),
}

/// A message that waits for the network.
#[derive(Clone, Copy, Debug)]
struct Parked {
    message: Ready,
    /// Packets of it that are to be sent.
    left: u32,
}

/// All packets from one end of a session to the other.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Of the network alone: neither handlers' time nor the receiver's is in it.
    pub round_trip: RoundTrip,
    congestion: Congestion,
    pacer: Pacer,
    in_flight: u32,
    reorder: u32,
    /// Packets lost since one was only late.
    truly_lost: u32,
    /// When something last arrived or was sent with nothing under way.
    active_at: u64,
    /// What waits for the network, in order.
    parked: VecDeque<Parked>,
    /// Turns given to what waits here.
    turns: u32,
}

impl Flow {
    /// A flow on a path nothing is known of.
    pub fn new(queue_ns: u64, most: u32, now: u64) -> Flow {
        Flow {
            round_trip: RoundTrip::default(),
            congestion: Congestion::new(queue_ns, most),
            pacer: Pacer::default(),
            in_flight: 0,
            reorder: REORDER_MIN,
            truly_lost: 0,
            active_at: now,
            parked: VecDeque::new(),
            turns: 0,
        }
    }

    /// Whether the network takes one more packet of a long message.
    #[inline]
    pub fn admits(&mut self, now: u64) -> Admission {
        if self.in_flight == 0 {
            self.congestion.resume(now, now.saturating_sub(self.active_at));
        }
        let window = self.congestion.window();
        if f64::from(self.in_flight) >= window.max(1.0) {
            self.congestion.held_back();
            return Admission::AfterAck;
        }
        if !self.congestion.is_congested(now) && window >= 1.0 {
            return Admission::Now;
        }
        match self.pacer.admits(now, self.distance(), window) {
            Ok(()) => Admission::Now,
            Err(at) => {
                self.congestion.held_back();
                Admission::At(at)
            }
        }
    }

    /// A packet of a long message has left; `more`: it is one more in the network.
    #[inline]
    pub fn sent(&mut self, now: u64, more: bool) {
        if self.in_flight == 0 {
            self.active_at = now;
        }
        self.in_flight += u32::from(more);
        self.charge(now);
    }

    /// A packet of any kind has left.
    #[inline]
    pub fn charge(&mut self, now: u64) {
        if self.congestion.is_congested(now) {
            self.pacer.charge(now, self.distance(), self.congestion.window());
        }
    }

    /// The time between two packets: a window's worth in a round trip. A quarter faster than that, so that it is
    /// the window that limits, where there is one worth the name.
    fn distance(&self) -> u64 {
        let window = self.congestion.window();
        let gain = if window >= 4.0 { 1.25 } else { 1.0 };
        (self.smoothed() as f64 / (window * gain)) as u64
    }

    /// Takes what an ack of one of the flow's messages has brought.
    pub fn on_ack(&mut self, now: u64, progress: &Progress) {
        self.in_flight -= progress.landed + progress.lost;
        if let Some(round_trip) = progress.round_trip {
            self.round_trip.sample(round_trip);
        }
        if progress.arrived > 0 {
            self.active_at = now;
        }
        self.truly_lost += progress.lost;
        if progress.late > 0 {
            (self.reorder, self.truly_lost) = ((self.reorder * 2).min(REORDER_MAX), 0);
        } else if self.truly_lost >= REORDER_FADES {
            (self.reorder, self.truly_lost) = ((self.reorder / 2).max(REORDER_MIN), 0);
        }
        self.congestion.on_ack(now, progress, self.smoothed(), self.round_trip.variation());
    }

    /// So many packets count as lost without an ack that says so.
    pub fn on_loss(&mut self, now: u64, lost: u32) {
        self.on_ack(now, &Progress { lost, ..Progress::default() });
    }

    /// Nothing was heard of a message for so long that what was under way of it, `given_up` packets, is gone.
    pub fn on_timeout(&mut self, now: u64, given_up: u32) {
        self.in_flight -= given_up;
        let (silence, round_trip) = (now.saturating_sub(self.active_at), self.smoothed());
        // Where other messages' packets arrive it is not the network that has stopped; and the last packet of a message may
        // be lost twice by chance.
        let many = f64::from(given_up) * STOPPED_SHARE > self.congestion.window();
        if given_up > 0 && silence > 2 * round_trip && (many || silence > STOPPED_ROUNDS * round_trip) {
            self.congestion.on_timeout(now, round_trip);
        }
    }

    /// So many packets are no longer waited for: their message is over, or they count as lost.
    #[inline]
    pub fn release(&mut self, packets: u32) {
        self.in_flight -= packets;
    }

    /// When an overtaken packet of the flow counts as lost.
    pub fn tolerance(&self) -> Tolerance {
        let ns = (self.smoothed() / 4).max(REORDER_NS) * u64::from(self.reorder / REORDER_MIN);
        Tolerance { packets: self.reorder, ns }
    }

    fn smoothed(&self) -> u64 {
        match self.round_trip.smoothed() {
            0 => UNKNOWN_NS,
            smoothed => smoothed,
        }
    }

    /// Keeps a message whose turn is over, or that is not admitted, with so many packets `left` to send. `parked`: whether
    /// it is kept already.
    #[inline]
    pub fn park(&mut self, message: Ready, left: u32, parked: &mut bool) {
        if !std::mem::replace(parked, true) {
            self.parked.push_back(Parked { message, left });
        }
    }

    /// Keeps a message that has something to send, where others wait before it. True if so: else it may go on at once.
    #[inline]
    pub fn park_behind_others(&mut self, message: Ready, window: &Window, parked: &mut bool) -> bool {
        let waits = window.is_held_back() && self.is_awaited();
        if waits {
            self.park(message, window.left(), parked);
        }
        waits
    }

    /// The message whose turn it is. The one with the least left goes first, and among equals who came first: so that the
    /// short do not wait for the long, and those begun are finished before others are. Now and then it is the
    /// turn of the one that has waited longest, so that it is not passed over for ever.
    fn next_parked(&mut self) -> Option<Ready> {
        self.turns = self.turns.wrapping_add(1);
        let place = match self.turns.is_multiple_of(OLDEST_EVERY) {
            true => 0,
            false => (0..self.parked.len()).min_by_key(|place| self.parked[*place].left)?,
        };
        self.parked.remove(place).map(|parked| parked.message)
    }

    /// Whether anything waits here. What comes up meanwhile goes behind it.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Nobody waits for a call any more that waits here.
    pub fn forget(&mut self, call: u64) {
        self.parked.retain(|parked| !matches!(parked.message, Ready::Call(key) if key == call));
    }

    /// Packets in the network.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

/// When a message was last heard about, once it has waited for the network for another `interval` with nothing under way:
/// nothing can be heard about it in particular, so that this time does not count as silence where its peer was heard
/// instead. The time for which something of it is under way does: that ends a message about which a peer is silent
/// that answers others.
pub(crate) fn excuse_wait(heard_at: u64, interval: u64, peer_heard_at: u64) -> u64 {
    heard_at.saturating_add(interval).min(peer_heard_at).max(heard_at)
}

impl Transport {
    /// Something of a session's flow was held back: wakes it up where no ack will.
    pub(crate) fn wait_for_flow(&mut self, index: u32, held_back: Admission) {
        let Admission::At(at) = held_back else { return };
        let Some(session) = self.table.get_mut(index) else { return };
        let timer = *session.flow_timer.get_or_insert_with(|| self.timers.create(Owner::Flow(index)));
        self.timers.set(timer, at);
    }

    /// Lets go of the next message that waits for a session's flow, if the network takes anything now. Whichever was let go
    /// calls this once its turn is over, so that none is forgotten.
    #[inline]
    pub(crate) fn unpark(&mut self, now: u64, index: u32) {
        let Some(session) = self.table.get_mut(index) else { return };
        if !session.flow.is_awaited() {
            return;
        }
        match session.flow.admits(now) {
            Admission::Now => {}
            held_back => return self.wait_for_flow(index, held_back),
        }
        while let Some(ready) = session.flow.next_parked() {
            let queued = match ready {
                Ready::Call(key) => self.calls.get_mut(key).and_then(|call| {
                    call.flight.as_mut()?.parked = false;
                    Some(&mut call.ready)
                }),
                Ready::Slot(_, slot) => match &mut session.end {
                    End::Server(server) => server.slots.get_mut(usize::from(slot)).map(|slot| {
                        slot.parked = false;
                        &mut slot.ready
                    }),
                    End::Client(_) => None,
                },
                _ => None,
            };
            if queued.is_some_and(|queued| !std::mem::replace(queued, true)) {
                return self.outbox.push(ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_goes_first_and_the_one_that_waited_longest_has_its_share() {
        let mut flow = Flow::new(50_000, 2048, 0);
        let park = |flow: &mut Flow, key, left| flow.park(Ready::Call(key), left, &mut false);
        park(&mut flow, 1, 1000);
        let mut turns = Vec::new();
        for key in 2..=2 * u64::from(OLDEST_EVERY) {
            park(&mut flow, key, 10);
            let Some(Ready::Call(turn)) = flow.next_parked() else { panic!("none though one waits") };
            turns.push(turn);
            if turn == 1 {
                park(&mut flow, 1, 1000);
            }
        }
        let of_the_longest = turns.iter().filter(|turn| **turn == 1).count();
        let others: Vec<u64> = turns.into_iter().filter(|turn| *turn != 1).collect();
        assert_eq!(of_the_longest, 1, "one in {OLDEST_EVERY}");
        assert!(others.is_sorted(), "among equals who came first: {others:?}");
    }
}
