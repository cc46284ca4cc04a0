//! The receiving side of messages in several fragments: putting them together, in memory that `credit` bounds.
//!
//! Room for a whole message is reserved before its fragments are kept, so that what was begun can be finished; the
//! buffer itself grows with what has really arrived.

use crate::credit::{Credit, Room};
use crate::sack::{AckBody, AckHead, Arrival, Arrivals};
use tollfree_wire::frame::Address;
use tollfree_wire::header::{FLAT_MAX, Header};
use tollfree_wire::{Packet, Reason};

/// Assemblies kept for the next message, and the capacity of their buffers up to which one is.
const SPARES: usize = 8;
const SPARE_BYTES: usize = 2 << 20;

/// How a message is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub message_len: u32,
    pub fragments: u32,
    /// Bytes of every fragment but the last.
    pub size: u32,
}

impl Shape {
    /// The shape of the message that a packet is a fragment of, whichever that is.
    pub fn of(packet: &Packet<'_>) -> Result<Shape, Reason> {
        let header = &packet.header;
        let (fragments, message_len) = (u32::from(header.fragments), header.message_len);
        let body_len = packet.body.len() as u32;
        // Every fragment but the last has the same size; the last one's follows from it.
        let size = match fragments - 1 - u32::from(header.fragment) {
            0 if fragments > 1 && (message_len - body_len).is_multiple_of(fragments - 1) => {
                (message_len - body_len) / (fragments - 1)
            }
            0 => return Err(Reason::BadLength),
            _ => body_len,
        };
        let before_last = u64::from(size) * u64::from(fragments - 1);
        if before_last >= u64::from(message_len) || before_last + u64::from(size) < u64::from(message_len) {
            return Err(Reason::BadLength);
        }
        Ok(Shape { message_len, fragments, size })
    }
}

/// A message of which fragments are missing.
#[derive(Debug)]
pub(crate) struct Assembly {
    shape: Shape,
    /// Whose share of the room it has.
    from: Address,
    arrivals: Arrivals,
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

/// Messages under reassembly.
#[derive(Debug)]
pub(crate) struct Pool {
    pub credit: Credit,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
    spares: Vec<Box<Assembly>>,
}

impl Pool {
    /// Room for `limit` bytes of messages.
    pub fn new(limit: usize) -> Pool {
        Pool { credit: Credit::new(limit), spares: Vec::new() }
    }

    /// Starts a message from a host, which does not get ahead of those that wait for room.
    pub fn begin(&mut self, shape: Shape, from: Address, now: u64) -> Result<Box<Assembly>, Room> {
        match self.credit.is_short() {
            true => Err(Room::Later),
            false => self.open(shape, from, now),
        }
    }

    /// Starts a message from a host if there is room.
    pub fn open(&mut self, shape: Shape, from: Address, now: u64) -> Result<Box<Assembly>, Room> {
        match self.credit.reserve(shape.message_len as usize, from) {
            Room::Reserved => {}
            room => return Err(room),
        }
        let mut assembly = self.spares.pop().unwrap_or_else(|| Box::new(Assembly::empty()));
        let buffer = std::mem::take(&mut assembly.buffer);
        *assembly = Assembly { shape, from, heard_at: now, buffer, ..Assembly::empty() };
        Ok(assembly)
    }

    /// Keeps a message that has come from a host whole in one packet.
    pub fn hold(&mut self, packet: &Packet<'_>, from: Address, now: u64) -> Result<Box<Assembly>, Reason> {
        let length = packet.body.len() as u32;
        let shape = Shape { message_len: length, fragments: 1, size: length };
        let mut assembly = self.begin(shape, from, now).map_err(|_| Reason::ReassemblyLimit)?;
        if let Err(reason) = assembly.add(packet, now) {
            self.close(assembly);
            return Err(reason);
        }
        Ok(assembly)
    }

    /// Frees a message, finished or not.
    pub fn close(&mut self, mut assembly: Box<Assembly>) {
        self.credit.free(assembly.shape.message_len as usize, assembly.from);
        assembly.buffer.clear();
        if self.spares.len() < SPARES && assembly.buffer.capacity() <= SPARE_BYTES {
            self.spares.push(assembly);
        }
    }
}

impl Assembly {
    fn empty() -> Assembly {
        Assembly {
            shape: Shape::default(),
            from: Address::default(),
            arrivals: Arrivals::default(),
            heard_at: 0,
            flat: [0; FLAT_MAX],
            flat_len: 0,
            layout: 0,
            status: 0,
            flags: 0,
            judged: 0,
            buffer: Vec::new(),
        }
    }

    /// Takes a fragment. True once the message is whole.
    pub fn add(&mut self, packet: &Packet<'_>, now: u64) -> Result<bool, Reason> {
        let header = &packet.header;
        let Shape { message_len, fragments, size } = self.shape;
        let fragment = u32::from(header.fragment);
        let start = fragment.saturating_mul(size);
        let expected = size.min(message_len.saturating_sub(start));
        if header.message_len != message_len
            || u32::from(header.fragments) != fragments
            || packet.body.len() as u32 != expected
        {
            return Err(Reason::BadLength);
        }
        self.heard_at = now;
        let arrival = self.arrivals.judge(fragment);
        if arrival == Arrival::TooFar {
            return Err(Reason::BadFragment);
        }
        self.arrivals.note(fragment, header.sequence, packet.marked, now);
        if arrival == Arrival::New {
            self.keep(start as usize, packet.body);
            if fragment == 0 {
                self.flat[..packet.flat.len()].copy_from_slice(packet.flat);
                self.flat_len = packet.flat.len();
                (self.layout, self.status, self.flags) = (header.layout, header.status, header.flags);
                self.judged = header.tag;
            }
        }
        Ok(self.arrivals.base() == fragments)
    }

    fn keep(&mut self, start: usize, body: &[u8]) {
        let (buffer, end) = (&mut self.buffer, start + body.len());
        if end > buffer.capacity() {
            // Twice as much each time, but never more than the message needs.
            let wanted = (2 * end).min(self.shape.message_len as usize);
            buffer.reserve_exact(wanted - buffer.len());
        }
        if start == buffer.len() {
            return buffer.extend_from_slice(body);
        }
        if end > buffer.len() {
            buffer.resize(end, 0);
        }
        buffer[start..end].copy_from_slice(body);
    }

    /// Whether a fragment is of the same message cut into shorter pieces, as its sender does once the path carries no longer ones.
    pub fn is_outdated_by(&self, header: &Header) -> bool {
        u32::from(header.fragments) > self.shape.fragments
    }

    /// What has arrived, for the sender.
    pub fn ack(&mut self, now: u64) -> AckBody {
        self.arrivals.ack(self.shape.fragments, now)
    }

    /// The same without the bitmap: all there is to say once the message is whole.
    pub fn ack_head(&self, now: u64) -> AckHead {
        self.arrivals.head(self.shape.fragments, now)
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
    use tollfree_wire::{Kind, Packet};

    fn packet<'a>(message: &'a [u8], size: u32, fragment: u32) -> Packet<'a> {
        let window = Window::once(message.len() as u32, size);
        let range = window.range(fragment);
        let header = Header {
            message_len: message.len() as u32,
            fragment: fragment as u16,
            fragments: fragments(message.len() as u32, size) as u16,
            ..Header::new(Kind::Request)
        };
        let body = &message[range.start as usize..range.end as usize];
        Packet { header, kind: Kind::Request, flat: &[], flat_padded: &[], body, marked: false }
    }

    proptest! {
        #[test]
        fn any_order_gives_the_message(length in 2..5000usize, size in 1..1000u32, order in proptest::collection::vec(any::<u32>(), 2000)) {
            prop_assume!(fragments(length as u32, size) > 1);
            let message: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            let mut pool = Pool::new(20_000);
            let count = fragments(length as u32, size);
            let shape = Shape::of(&packet(&message, size, order[0] % count)).unwrap();
            prop_assert_eq!(shape, Shape { message_len: length as u32, fragments: count, size });
            let mut assembly = pool.open(shape, Address::v4(1), 0).unwrap();
            let mut whole = false;
            // A second time in order, for what was too far ahead at first.
            for pick in order.iter().copied().chain(0..count) {
                whole |= assembly.add(&packet(&message, size, pick % count), 1).unwrap_or(false);
            }
            while !whole {
                let missing = assembly.arrivals.base();
                whole = assembly.add(&packet(&message, size, missing), 1).unwrap();
            }
            prop_assert_eq!(assembly.body(), &message[..]);
            prop_assert!(assembly.buffer.capacity() <= length);
            pool.close(assembly);
            prop_assert_eq!(pool.credit.reserved(), 0);
        }
    }
}
