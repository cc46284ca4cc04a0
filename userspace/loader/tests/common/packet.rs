//! Frames for the tests, and the two hosts and sessions that they speak of.

use super::PORT;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use tollfree_wire::session::{Guard, Role, SessionEntry};
use tollfree_wire::tag::tag;
use tollfree_wire::{Cursor, Header, Kind, Replay};
use zerocopy::IntoBytes;

/// The peer's MAC address and ours.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The port the peer's engine uses: not ours, so that a swap shows.
pub const PEER_PORT: u16 = 7401;
/// The key of every session.
pub const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfeed_face_cafe_beef];
/// The session by which we serve the peer, and the one by which we call it; IPv6's have the next place.
pub const SERVER: u32 = 0x1005;
pub const CLIENT: u32 = 0x2007;
/// The index by which the peer knows its end.
pub const PEER_INDEX: u32 = 77;

/// What comes before UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    pub vlan: bool,
    pub ipv6: bool,
}

pub const STACKS: [Stack; 4] = [
    Stack { vlan: false, ipv6: false },
    Stack { vlan: true, ipv6: false },
    Stack { vlan: false, ipv6: true },
    Stack { vlan: true, ipv6: true },
];

impl Stack {
    /// Where IP starts.
    pub fn ip(self) -> usize {
        if self.vlan { 18 } else { 14 }
    }

    /// Where the base header starts.
    pub fn header(self) -> usize {
        self.ip() + if self.ipv6 { 40 } else { 20 } + 8
    }

    pub fn peer(self) -> IpAddr {
        if self.ipv6 { "fd77::1".parse().unwrap() } else { "10.77.0.1".parse().unwrap() }
    }

    pub fn ours(self) -> IpAddr {
        if self.ipv6 { "fd77::2".parse().unwrap() } else { "10.77.0.2".parse().unwrap() }
    }

    pub fn elsewhere(self) -> IpAddr {
        if self.ipv6 { "fd77::99".parse().unwrap() } else { "10.77.0.99".parse().unwrap() }
    }

    /// The session with this index for the stack's peer.
    pub fn session(self, index: u32) -> u32 {
        index + u32::from(self.ipv6)
    }
}

/// The entries of every session above.
pub fn sessions() -> Vec<SessionEntry> {
    let mut entries = Vec::new();
    for stack in [STACKS[0], STACKS[2]] {
        for (index, role) in [(SERVER, Role::Server), (CLIENT, Role::Client)] {
            let guard = Guard {
                index: stack.session(index),
                peer_index: PEER_INDEX,
                peer: stack.peer().into(),
                peer_port: PEER_PORT,
                role: role as u8,
                reserved: 0,
                identity: 0,
                key: KEY,
                replay: Replay::NONE,
            };
            entries.push(SessionEntry::new(guard, 0, 0));
        }
    }
    entries
}

/// A packet in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    pub stack: Stack,
    pub destination_mac: [u8; 6],
    pub destination: IpAddr,
    pub source_port: u16,
    pub port: u16,
    pub header: Header,
    pub flat: Vec<u8>,
    pub body: Vec<u8>,
    /// Applied to the header after it was signed.
    pub lie: fn(&mut Header),
    /// Applied to the whole frame.
    pub mangle: fn(&mut Vec<u8>, Stack),
}

/// A sequence number not used before.
pub fn sequence() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Packet {
    /// A packet from the peer to us, without flat block and body.
    pub fn new(stack: Stack, kind: Kind) -> Packet {
        let index = match kind {
            Kind::Request | Kind::Ack | Kind::Close => stack.session(SERVER),
            Kind::Response | Kind::Reject => stack.session(CLIENT),
            Kind::Hello | Kind::Challenge | Kind::Welcome => 0,
        };
        Packet {
            stack,
            destination_mac: OUR_MAC,
            destination: stack.ours(),
            source_port: PEER_PORT,
            port: PORT,
            header: Header {
                session: index,
                method: 5,
                call: 0x103,
                sequence: sequence(),
                ..Header::new(kind)
            },
            flat: Vec::new(),
            body: Vec::new(),
            lie: |_| {},
            mangle: |_, _| {},
        }
    }

    /// A request that asks the test policy for a verdict.
    pub fn request(stack: Stack, verdict: u32, user: u32) -> Packet {
        let mut packet = Packet::new(stack, Kind::Request);
        packet.flat.extend(verdict.to_le_bytes());
        packet.flat.extend(user.to_le_bytes());
        packet.flat.extend([9, 9, 9]);
        packet.body = b"the body".to_vec();
        packet
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let Packet {
            stack,
            destination_mac,
            destination,
            source_port,
            port,
            mut header,
            flat,
            body,
            lie,
            mangle,
        } = self.clone();
        let mut padded = flat.clone();
        padded.resize(flat.len().next_multiple_of(8), 0);
        header.flat_len = flat.len() as u16;
        if header.fragments == 1 {
            header.message_len = body.len() as u32;
        }
        header.tag = tag(KEY, &header, Cursor::new(&padded)).expect("padded");
        lie(&mut header);
        let payload = [header.as_bytes(), &padded, &body].concat();
        let udp_len = (8 + payload.len()) as u16;

        let mut frame = [destination_mac, PEER_MAC].concat();
        if stack.vlan {
            frame.extend([0x81, 0x00, 0x20, 0x07]);
        }
        match (stack.peer(), destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + udp_len).to_be_bytes());
                frame.extend([0x12, 0x34, 0, 0, 63, 17, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 1, 2, 3]);
                frame.extend(udp_len.to_be_bytes());
                frame.extend([17, 63]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            _ => panic!("addresses of two families"),
        }
        for word in [source_port, port, udp_len, 0] {
            frame.extend(word.to_be_bytes());
        }
        frame.extend(payload);
        mangle(&mut frame, stack);
        frame
    }
}
