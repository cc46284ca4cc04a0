//! The receiving side of messages in several fragments, in bounded memory.
//!
//! Room for a whole message is reserved when its first fragment arrives, so that what was begun can be finished; the
//! buffer itself grows with what has really arrived.

use crate::window::{Ack, WINDOW};
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::{Packet, Reason};

/// Fragments ahead of the first missing one that are accepted: more than a sender may have under way.
const AHEAD: u32 = 64;
const _: () = assert!(AHEAD >= WINDOW);
/// Buffers kept for the next message, and the capacity up to which one is.
const SPARE_BUFFERS: usize = 4;
const SPARE_BYTES: usize = 2 << 20;

/// A message of which fragments are missing.
#[derive(Debug)]
pub(crate) struct Assembly {
    message_len: u32,
    fragments: u32,
    size: u32,
    base: u32,
    mask: u64,
    /// When a fragment last arrived.
    pub heard_at: u64,
    flat: [u8; FLAT_MAX],
    flat_len: usize,
    /// Layout of the flat block.
    pub layout: u32,
    /// Status and flags of the fragment that had the flat block.
    pub status: u8,
    pub flags: u8,
    /// Its tag, or what the program in front of the transport has put in its place.
    pub judged: u64,
    buffer: Vec<u8>,
}

/// Room for messages under reassembly.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    reserved: usize,
    spare: Vec<Vec<u8>>,
}

impl Pool {
    pub fn new(limit: usize) -> Pool {
        Pool { limit, reserved: 0, spare: Vec::new() }
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Starts a message with whichever of its fragments came first. `session` is what the session has reserved.
    pub fn open(
        &mut self,
        packet: &Packet<'_>,
        session: &mut usize,
        now: u64,
    ) -> Result<Box<Assembly>, Reason> {
        let header = &packet.header;
        let (fragments, message_len) = (u32::from(header.fragments), header.message_len);
        let body_len = packet.body.len() as u32;
        // Every fragment but the last has the same size; the last one's follows from it.
        let size = match fragments - 1 - u32::from(header.fragment) {
            0 if (message_len - body_len).is_multiple_of(fragments - 1) => {
                (message_len - body_len) / (fragments - 1)
            }
            0 => return Err(Reason::BadLength),
            _ => body_len,
        };
        let before_last = u64::from(size) * u64::from(fragments - 1);
        if before_last >= u64::from(message_len) || before_last + u64::from(size) < u64::from(message_len) {
            return Err(Reason::BadLength);
        }
        let bytes = message_len as usize;
        if self.reserved + bytes > self.limit || *session + bytes > self.limit / 2 {
            return Err(Reason::ReassemblyLimit);
        }
        self.reserved += bytes;
        *session += bytes;
        Ok(Box::new(Assembly {
            message_len,
            fragments,
            size,
            base: 0,
            mask: 0,
            heard_at: now,
            flat: [0; FLAT_MAX],
            flat_len: 0,
            layout: 0,
            status: 0,
            flags: 0,
            judged: 0,
            buffer: self.spare.pop().unwrap_or_default(),
        }))
    }

    /// Frees a message, finished or not.
    pub fn close(&mut self, assembly: Box<Assembly>, session: &mut usize) {
        let bytes = assembly.message_len as usize;
        self.reserved -= bytes;
        *session -= bytes;
        let mut buffer = assembly.buffer;
        buffer.clear();
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BYTES {
            self.spare.push(buffer);
        }
    }
}

impl Assembly {
    /// Takes a fragment. True once the message is whole.
    pub fn add(&mut self, packet: &Packet<'_>, now: u64) -> Result<bool, Reason> {
        let header = &packet.header;
        let fragment = u32::from(header.fragment);
        let start = fragment * self.size;
        let expected = self.size.min(self.message_len.saturating_sub(start));
        if header.message_len != self.message_len
            || u32::from(header.fragments) != self.fragments
            || packet.body.len() as u32 != expected
        {
            return Err(Reason::BadLength);
        }
        self.heard_at = now;
        let Some(ahead) = fragment.checked_sub(self.base) else {
            return Ok(self.is_whole());
        };
        if ahead >= AHEAD {
            return Err(Reason::BadFragment);
        }
        if self.mask & (1 << ahead) != 0 {
            return Ok(false);
        }
        let range = start as usize..start as usize + packet.body.len();
        if self.buffer.len() < range.end {
            self.buffer.resize(range.end, 0);
        }
        self.buffer[range].copy_from_slice(packet.body);
        if fragment == 0 {
            self.flat[..packet.flat.len()].copy_from_slice(packet.flat);
            self.flat_len = packet.flat.len();
            (self.layout, self.status, self.flags) = (header.layout, header.status, header.flags);
            self.judged = header.tag;
        }
        self.mask |= 1 << ahead;
        let whole = self.mask.trailing_ones();
        self.base += whole;
        self.mask = self.mask.checked_shr(whole).unwrap_or(0);
        Ok(self.is_whole())
    }

    fn is_whole(&self) -> bool {
        self.base == self.fragments
    }

    /// What has arrived, for the sender.
    pub fn ack(&self) -> Ack {
        Ack { base: self.base, reserved: 0, mask: self.mask }
    }

    /// The flat block, without padding.
    pub fn flat(&self) -> &[u8] {
        &self.flat[..self.flat_len]
    }

    /// The body, once it is whole.
    pub fn body(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Window, fragments};
    use proptest::prelude::*;
    use tollfree_wire::header::Header;
    use tollfree_wire::{Kind, Packet};

    fn packet<'a>(message: &'a [u8], size: u32, fragment: u32) -> Packet<'a> {
        let window = Window::new(message.len() as u32, size);
        let range = window.range(fragment);
        let header = Header {
            message_len: message.len() as u32,
            fragment: fragment as u16,
            fragments: fragments(message.len() as u32, size) as u16,
            ..Header::new(Kind::Request)
        };
        let body = &message[range.start as usize..range.end as usize];
        Packet { header, kind: Kind::Request, flat: &[], flat_padded: &[], body }
    }

    proptest! {
        #[test]
        fn any_order_within_the_window_gives_the_message(length in 2..5000usize, size in 1..1000u32, order in proptest::collection::vec(any::<u32>(), 2000)) {
            prop_assume!(fragments(length as u32, size) > 1);
            let message: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            let (mut pool, mut session) = (Pool::new(20_000), 0);
            let count = fragments(length as u32, size);
            let first = order[0] % count.min(AHEAD);
            let mut assembly = pool.open(&packet(&message, size, first), &mut session, 0).unwrap();
            prop_assert_eq!(assembly.size, size.min(assembly.size.max(size)));
            let mut whole = false;
            for pick in order.iter().copied().chain(0..count) {
                whole |= assembly.add(&packet(&message, size, pick % count), 1).unwrap_or(false);
            }
            prop_assert!(whole);
            prop_assert_eq!(assembly.body(), &message[..]);
            pool.close(assembly, &mut session);
            prop_assert_eq!((pool.reserved(), session), (0, 0));
        }
    }

    #[test]
    fn room_is_reserved_for_the_whole_message_and_shared() {
        let message = vec![0; 600];
        let mut pool = Pool::new(2000);
        let (mut a, mut b) = (0, 0);
        let first = pool.open(&packet(&message, 100, 0), &mut a, 0).unwrap();
        assert_eq!(pool.open(&packet(&message, 100, 0), &mut a, 0).unwrap_err(), Reason::ReassemblyLimit);
        let second = pool.open(&packet(&message, 100, 0), &mut b, 0).unwrap();
        pool.close(first, &mut a);
        pool.close(second, &mut b);
        assert_eq!(pool.reserved(), 0);
    }
}
