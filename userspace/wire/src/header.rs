//! The base header: the first 56 bytes of every Tollfree packet, and the checks each packet must pass.

use crate::{Cursor, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `"TF"` in the first two bytes.
pub const MAGIC: u16 = u16::from_le_bytes(*b"TF");
/// The version this crate speaks.
pub const VERSION: u8 = 1;
/// Bytes in a base header.
pub const HEADER_LEN: usize = size_of::<Header>();
/// The longest flat block, in bytes.
pub const FLAT_MAX: usize = 192;
/// The longest message body, in bytes: 16 MiB.
pub const MESSAGE_MAX: u32 = 16 << 20;
/// The method id of calls between engines (agreeing on layouts). No service method has it.
pub const METHOD_CONTROL: u32 = 0;
/// A deadline budget that never runs out.
pub const NO_DEADLINE: u32 = u32::MAX;
/// Calls that one session can have outstanding. A call id's lowest byte is its slot.
pub const CALL_SLOTS: usize = 256;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Client to server: may I have a session? Padded, so that answers are never longer.
    Hello = 1,
    /// Server to client: repeat your hello with this cookie. The server keeps nothing.
    Challenge = 2,
    /// Server to client: here is your session.
    Welcome = 3,
    /// Client to server: a call, or a fragment of one.
    Request = 4,
    /// Server to client: a call's result, or a fragment of it.
    Response = 5,
    /// Either way: which fragments have arrived, or "still working on it".
    Ack = 6,
    /// Server to client: a policy refused the call; header only, built in the NIC's driver.
    Reject = 7,
    /// Either way: the session is over, or never was.
    Close = 8,
}

impl Kind {
    /// The kind a byte stands for.
    #[inline(always)]
    pub fn from_wire(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Challenge,
            3 => Kind::Welcome,
            4 => Kind::Request,
            5 => Kind::Response,
            6 => Kind::Ack,
            7 => Kind::Reject,
            8 => Kind::Close,
            _ => return None,
        })
    }

    /// Whether packets of this kind come before a session exists and so carry no valid session or tag.
    #[inline(always)]
    pub fn is_handshake(self) -> bool {
        matches!(self, Kind::Hello | Kind::Challenge | Kind::Welcome)
    }
}

/// Flag: the acknowledged request is complete and being worked on; stop retransmitting, the response will come.
pub const FLAG_WORKING: u8 = 1 << 0;
/// Flag on a close, by the server: open another session for new calls. Those under way end on this one.
pub const FLAG_RENEW: u8 = 1 << 0;
/// Flag on an ack: it acknowledges fragments of a response (client to server), not of a request.
pub const FLAG_OF_RESPONSE: u8 = 1 << 1;
/// Flag on a close: it answers a packet whose session is unknown, and proves it by echoing that packet's sequence and tag.
pub const FLAG_RESET: u8 = 1 << 2;
/// Flag on a request: the caller no longer wants the result. Header only.
pub const FLAG_CANCEL: u8 = 1 << 3;
/// Flag on a response: the status is the answering engine's own (a policy, no such service), not the application's.
pub const FLAG_ENGINE: u8 = 1 << 4;
/// Flag on a request or a response: its body begins with a metadata block.
pub const FLAG_METADATA: u8 = 1 << 5;
/// Every flag that has a meaning.
pub const FLAGS_KNOWN: u8 =
    FLAG_WORKING | FLAG_OF_RESPONSE | FLAG_RESET | FLAG_CANCEL | FLAG_ENGINE | FLAG_METADATA;

/// The base header, as it is in the packet: little-endian, naturally aligned, no padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u16,
    /// [`VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// `FLAG_*` bits.
    pub flags: u8,
    /// A [`crate::Code`] in responses and rejects, else 0.
    pub status: u8,
    /// Bytes of the flat block in this packet, without the zero padding to a multiple of 8 that follows it.
    pub flat_len: u16,
    /// The session, by the index that the *receiver* of this packet chose.
    pub session: u32,
    /// The method; [`METHOD_CONTROL`] for calls between engines.
    pub method: u32,
    /// The call: its slot in the lowest byte, above it a count that grows each time the slot is used again.
    pub call: u64,
    /// Counts the packets sent on this session in this direction; a retransmission gets a new number.
    pub sequence: u64,
    /// Bytes of the whole message's body, over all fragments.
    pub message_len: u32,
    /// Which fragment this is, from 0.
    pub fragment: u16,
    /// How many fragments the message has, at least 1.
    pub fragments: u16,
    /// Time left for the call when this packet was sent, in µs; [`NO_DEADLINE`] for none.
    pub deadline_us: u32,
    /// Fingerprint of the flat block's layout as the sender knows it; 0 where there is no flat block.
    pub layout: u32,
    /// SipHash-2-4 of everything before it and the padded flat block, under the session's key.
    pub tag: u64,
}

const _: () =
    assert!(HEADER_LEN == 56 && align_of::<Header>() == 8 && core::mem::offset_of!(Header, tag) == 48);

impl Header {
    /// A header with magic, version and kind set, one fragment, no deadline; everything else zero.
    pub fn new(kind: Kind) -> Header {
        Header {
            magic: MAGIC,
            version: VERSION,
            kind: kind as u8,
            fragments: 1,
            deadline_us: NO_DEADLINE,
            ..Header::default()
        }
    }

    /// The call's slot in its session.
    #[inline(always)]
    pub fn slot(&self) -> usize {
        (self.call & 0xff) as usize
    }

    /// Bytes that the flat block takes in the packet, padding included: `flat_len` rounded up to a multiple of 8.
    #[inline(always)]
    pub fn flat_span(&self) -> usize {
        (self.flat_len as usize + 7) & !7
    }

    /// Checks every field that can be checked without a session, for a packet of `payload_len` bytes from the base
    /// header on. A packet without our magic is `None`: not Tollfree's.
    // WIRE.md §3: "A receiver checks in this order".
    #[inline(always)]
    pub fn check(&self, payload_len: usize) -> Option<Result<Kind, Reason>> {
        if self.magic != MAGIC {
            return None;
        }
        Some(self.check_fields(payload_len))
    }

    #[inline(always)]
    fn check_fields(&self, payload_len: usize) -> Result<Kind, Reason> {
        if self.version != VERSION {
            return Err(Reason::BadVersion);
        }
        let Some(kind) = Kind::from_wire(self.kind) else {
            return Err(Reason::BadKind);
        };
        if self.flags & !FLAGS_KNOWN != 0 {
            return Err(Reason::BadFlags);
        }
        if self.flat_len as usize > FLAT_MAX || (self.fragment != 0 && self.flat_len != 0) {
            return Err(Reason::BadFlatLength);
        }
        if self.fragment >= self.fragments {
            return Err(Reason::BadFragment);
        }
        let Some(body_len) = payload_len.checked_sub(HEADER_LEN + self.flat_span()) else {
            return Err(Reason::Truncated);
        };
        if self.message_len > MESSAGE_MAX || body_len > self.message_len as usize {
            return Err(Reason::BadLength);
        }
        // A fragment of several carries at least one byte, and never the whole message.
        let complete = body_len == self.message_len as usize;
        if (self.fragments == 1) != complete || (self.fragments > 1 && body_len == 0) {
            return Err(Reason::BadLength);
        }
        Ok(kind)
    }
}

/// A packet from the base header on, with its parts found. For user space; XDP works on [`Header`] and a cursor.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The base header.
    pub header: Header,
    /// What it is.
    pub kind: Kind,
    /// The flat block without padding.
    pub flat: &'a [u8],
    /// The flat block with its padding: what the tag covers.
    pub flat_padded: &'a [u8],
    /// This fragment's part of the body.
    pub body: &'a [u8],
    /// It met congestion on its way: its IP header carried ECN's CE. For whoever received the packet to set.
    pub marked: bool,
}

impl<'a> Packet<'a> {
    /// Decodes and checks a UDP payload. The reason is [`Reason::ForeignUdp`] where the magic is missing.
    pub fn decode(payload: &'a [u8]) -> Result<Packet<'a>, Reason> {
        let mut cursor = Cursor::new(payload);
        let Ok(header) = cursor.read::<Header>() else {
            // Too short for a header: ours only if the magic says so.
            let ours = Cursor::new(payload).read::<u16>() == Ok(MAGIC);
            return Err(if ours { Reason::Truncated } else { Reason::ForeignUdp });
        };
        let kind = header.check(payload.len()).ok_or(Reason::ForeignUdp)??;
        let flat_padded = cursor.take(header.flat_span()).map_err(|_| Reason::Truncated)?;
        let flat = flat_padded.get(..usize::from(header.flat_len)).ok_or(Reason::Truncated)?;
        let body = cursor.take(cursor.remaining()).map_err(|_| Reason::Truncated)?;
        Ok(Packet { header, kind, flat, flat_padded, body, marked: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn packet(header: Header, rest: usize) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(HEADER_LEN + rest, 0xab);
        bytes
    }

    fn request() -> Header {
        Header { flat_len: 13, message_len: 5, ..Header::new(Kind::Request) }
    }

    #[test]
    fn a_request_comes_apart() {
        let bytes = packet(request(), 16 + 5);
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!((packet.kind, packet.flat.len(), packet.body.len()), (Kind::Request, 13, 5));
    }

    #[test]
    fn every_truncation_has_a_reason() {
        let bytes = packet(request(), 16 + 5);
        for length in 0..bytes.len() {
            let reason = Packet::decode(&bytes[..length]).unwrap_err();
            let expected = match length {
                0..2 => Reason::ForeignUdp,
                2..72 => Reason::Truncated,
                _ => Reason::BadLength,
            };
            assert_eq!(reason, expected, "at {length} bytes");
        }
    }

    #[test]
    fn every_bad_field_has_its_reason() {
        type Edit = fn(&mut Header);
        let cases: &[(&str, Edit, Reason)] = &[
            ("magic", |h| h.magic = 0, Reason::ForeignUdp),
            ("version", |h| h.version = 2, Reason::BadVersion),
            ("kind 0", |h| h.kind = 0, Reason::BadKind),
            ("kind 9", |h| h.kind = 9, Reason::BadKind),
            ("flags", |h| h.flags = 0x80, Reason::BadFlags),
            ("flat over the limit", |h| h.flat_len = 193, Reason::BadFlatLength),
            ("flat in a later fragment", |h| (h.fragment, h.fragments) = (1, 2), Reason::BadFlatLength),
            ("no fragments", |h| h.fragments = 0, Reason::BadFragment),
            (
                "fragment past the count",
                |h| (h.fragment, h.fragments, h.flat_len) = (2, 2, 0),
                Reason::BadFragment,
            ),
            ("flat past the end", |h| h.flat_len = 24, Reason::Truncated),
            ("message shorter than the packet", |h| h.message_len = 4, Reason::BadLength),
            ("message longer than its only packet", |h| h.message_len = 6, Reason::BadLength),
            (
                "message over the limit",
                |h| (h.message_len, h.fragments) = (MESSAGE_MAX + 1, 2),
                Reason::BadLength,
            ),
            ("whole message in one of two", |h| h.fragments = 2, Reason::BadLength),
        ];
        for (name, edit, reason) in cases {
            let mut header = request();
            edit(&mut header);
            assert_eq!(Packet::decode(&packet(header, 21)).unwrap_err(), *reason, "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_invents_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), ours in any::<bool>()) {
            let mut bytes = bytes;
            if ours && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[b'T', b'F', VERSION, Kind::Request as u8]);
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(HEADER_LEN + packet.flat_padded.len() + packet.body.len(), bytes.len());
            }
        }
    }
}
