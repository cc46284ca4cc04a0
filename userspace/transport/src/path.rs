//! How long packets may be on a path: what both ends' interfaces carry, as far as the path in between was seen to.
//!
//! A session begins with packets that any Ethernet carries ([`crate::Config::sure_payload`]). Where both ends could take
//! longer ones, long messages have probes sent along: packets as long as one would like them, which the peer answers. So
//! nothing depends on a probe; a message is only ever cut into packets of a length that has arrived before. Where
//! those stop to arrive all the same (a route has changed), everything goes back to what is sure, and messages under way are cut
//! again. That is no new call: a receiver that has part of one begins anew with the shorter pieces, and knows them by their
//! number.

use crate::event::{Blocked, Out};
use crate::extension::checksum_len;
use crate::outbox::Ready;
use crate::transport::Transport;
use tollfree_wire::header::{FLAG_OF_RESPONSE, HEADER_LEN};
use tollfree_wire::session::Role;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Packet, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Gains under this many bytes are not looked for.
const STEP: usize = 64;
/// How often a length is tried.
const TRIES: u8 = 3;
/// The shortest wait for a probe's answer, in ns.
const ANSWER_NS: u64 = 20_000_000;
/// After a path proved shorter than it was, longer packets are not tried for this long, in ns.
const AGAIN_NS: u64 = 600_000_000_000;
/// Times that everything of a message is lost in a row before its packets count as too long.
const STUCK: u8 = 2;
/// The longest packet probed for.
const PROBE_MAX: usize = 9_216;

/// The body of an ack of no call: how long it is, padding and base header included, or how long the probe was that it
/// answers. WIRE.md §10.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Probe {
    /// 0: a probe; 1: its answer.
    answer: u32,
    size: u32,
}

/// The length of packets on one path, in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    size: usize,
    sure: usize,
    /// What both ends can take.
    ends: usize,
    /// The shortest length that may not arrive, or one more than what both ends can take.
    limit: usize,
    /// The length asked for, and when.
    probe: Option<(usize, u64)>,
    tries: u8,
    /// Not before this time are longer packets tried.
    not_before: u64,
    stuck: u8,
}

impl Path {
    /// A path of which `sure` bytes are known to arrive and whose ends can take `ends`.
    pub fn new(sure: usize, ends: usize) -> Path {
        let ends = ends.min(PROBE_MAX);
        let size = sure.min(ends);
        Path { size, sure: size, ends, limit: ends + 1, probe: None, tries: 0, not_before: 0, stuck: 0 }
    }

    /// Bytes of a message that fit each of its packets, behind a flat block of this length.
    #[inline]
    pub fn room(&self, flat_len: usize, spec: &MethodSpec) -> u32 {
        let taken = HEADER_LEN + flat_len.next_multiple_of(8) + checksum_len(spec) as usize;
        self.size.saturating_sub(taken) as u32
    }

    /// The length to probe for now, if any. `round_trip` is the smoothed one, in ns.
    pub fn probe(&mut self, now: u64, round_trip: u64) -> Option<usize> {
        if self.limit <= self.size + STEP || now < self.not_before {
            return None;
        }
        if let Some((size, sent)) = self.probe {
            if now < sent.saturating_add(ANSWER_NS.max(4 * round_trip)) {
                return None;
            }
            self.tries += 1;
            if self.tries >= TRIES {
                (self.limit, self.tries) = (size, 0);
                if self.limit <= self.size + STEP {
                    self.probe = None;
                    return None;
                }
            }
        }
        // First what the ends can take, then what is between what arrives and what does not.
        let size = if self.limit > self.ends { self.ends } else { (self.size + self.limit) / 2 };
        self.probe = Some((size, now));
        Some(size)
    }

    /// A probe has arrived.
    pub fn answered(&mut self, size: usize) {
        if self.probe.is_some_and(|(asked, _)| asked == size) {
            (self.size, self.probe, self.tries) = (size, None, 0);
        }
    }

    /// Packets of so many bytes have arrived.
    #[inline]
    pub fn moved(&mut self, length: usize) {
        if length > self.sure {
            self.stuck = 0;
        }
    }

    /// Packets of so many bytes were sent again and again in vain.
    pub fn lost(&mut self, now: u64, length: usize) {
        if length <= self.sure {
            return; // not for their length
        }
        self.stuck = self.stuck.saturating_add(1);
        if self.stuck >= STUCK && self.size > self.sure {
            *self = Path { not_before: now.saturating_add(AGAIN_NS), ..Path::new(self.sure, self.ends) };
        }
    }
}

impl Transport {
    /// A long message is about to be sent: has a probe go with it, where longer packets might arrive.
    pub(crate) fn probe_path(&mut self, now: u64, index: u32) {
        let Some(session) = self.table.get_mut(index) else { return };
        let round_trip = session.round_trip_ns();
        if let Some(size) = session.path.probe(now, round_trip) {
            self.outbox.push_stateless(Ready::Path { session: index, size: size as u32, answer: false });
        }
    }

    /// An ack of no call: a probe, an answer to one, or just a sign of life.
    pub(crate) fn on_path_ack(&mut self, packet: &Packet<'_>) -> Result<(), Reason> {
        let Ok((Probe { answer, size }, _)) = Probe::read_from_prefix(packet.body) else { return Ok(()) };
        let index = packet.header.session;
        if answer == 0 {
            let size = (HEADER_LEN + packet.body.len()) as u32;
            self.outbox.push_stateless(Ready::Path { session: index, size, answer: true });
        } else if let Some(session) = self.table.get_mut(index) {
            session.path.answered(size as usize);
        }
        Ok(())
    }

    /// Sends a probe, or an answer to one.
    pub(crate) fn send_path(
        &mut self,
        index: u32,
        size: u32,
        answer: bool,
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let mut body = [0; PROBE_MAX];
        let head = Probe { answer: u32::from(answer), size };
        body[..size_of::<Probe>()].copy_from_slice(head.as_bytes());
        let length = if answer {
            size_of::<Probe>()
        } else {
            (size as usize).clamp(HEADER_LEN, PROBE_MAX) - HEADER_LEN
        };
        let from_client = session.guard.role == Role::Client as u8;
        let flags = if from_client { FLAG_OF_RESPONSE } else { 0 };
        session.signer.send_ack(session.route(), 0, flags, &body[..length], out)?;
        self.counters.packets_sent += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Lets messages go by until nothing is probed for any more, on a path that carries so much.
    fn settle(path: &mut Path, carries: usize, now: &mut u64) {
        for _ in 0..100 {
            *now += 100 * MS;
            if let Some(size) = path.probe(*now, MS)
                && size <= carries
            {
                path.answered(size);
            }
        }
    }

    #[test]
    fn the_ends_limit_is_tried_first_and_then_what_is_between() {
        for (carries, least) in [(9_000, 9_000), (4_000, 3_900), (1_500, 1_472), (1_472, 1_472)] {
            let (mut path, mut now) = (Path::new(1_472, 9_000), 0);
            settle(&mut path, carries, &mut now);
            assert!((least..=carries).contains(&path.size), "{carries}: {}", path.size);
            assert_eq!(path.probe(now + 100 * MS, MS), None, "{carries}");
        }
    }

    #[test]
    fn one_probe_at_a_time_and_none_where_there_is_nothing_to_gain() {
        let mut path = Path::new(1_472, 9_000);
        assert_eq!(path.probe(MS, MS), Some(9_000));
        assert_eq!(path.probe(2 * MS, MS), None);
        path.answered(8_000);
        assert_eq!(path.size, 1_472, "never asked for");
        assert_eq!(Path::new(1_472, 1_472).probe(MS, MS), None);
        assert_eq!(Path::new(1_472, 600).size, 600);
    }

    #[test]
    fn a_path_that_swallows_long_packets_goes_back_to_what_is_sure() {
        let (mut path, mut now) = (Path::new(1_472, 9_000), 0);
        settle(&mut path, 9_000, &mut now);
        path.lost(now, 9_000);
        path.moved(1_000);
        path.moved(9_000);
        path.lost(now, 9_000);
        path.lost(now, 1_000);
        assert_eq!(path.size, 9_000);
        path.lost(now, 9_000);
        assert_eq!((path.size, path.probe(now + 1_000 * MS, MS)), (1_472, None));
        assert_eq!(path.probe(now + AGAIN_NS, MS), Some(9_000));
    }
}
