//! What both sides of the kernel boundary know of a session, and the checks every packet of a session must pass.

use crate::frame::Address;
use crate::header::CALL_SLOTS;
use crate::replay::Replay;
use crate::tag::{Key, tag};
use crate::{Cursor, Header, Kind, Reason};
use bytemuck::{Pod, Zeroable};

/// Sessions one engine can have: the length of the session table. The low bits of a session index are its place.
pub const SESSION_SLOTS: u32 = 4096;

/// Which end of a session this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// It calls: accepts responses, rejects, acks, closes.
    Client = 1,
    /// It is called: accepts requests, acks, closes.
    Server = 2,
}

/// The place of a session index in the session table.
#[inline(always)]
pub const fn place(index: u32) -> u32 {
    index & (SESSION_SLOTS - 1)
}

/// What it takes to judge a packet of a session. All zero: no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Guard {
    /// The index this host chose: its place in the table in the low bits, a generation above. Never 0 in use.
    pub index: u32,
    /// The index the peer chose: what packets to it carry.
    pub peer_index: u32,
    /// The peer's address.
    pub peer: Address,
    /// The peer's UDP port.
    pub peer_port: u16,
    /// A [`Role`].
    pub role: u8,
    /// Zero.
    pub reserved: u8,
    /// The peer's identity as the handshake established it; 0 for none.
    pub identity: u32,
    /// The session's key.
    pub key: Key,
    /// The packets accepted.
    pub replay: Replay,
}

impl Guard {
    /// Checks that a packet may be part of this session: index, peer, kind and tag. `flat` stands at the flat block.
    /// Changes nothing; follow with [`Guard::accept`].
    #[inline(always)]
    pub fn check(
        &self,
        header: &Header,
        kind: Kind,
        source: Address,
        source_port: u16,
        flat: Cursor<'_>,
    ) -> Result<(), Reason> {
        if self.index == 0 || self.index != header.session {
            return Err(Reason::UnknownSession);
        }
        if self.peer != source || self.peer_port != source_port {
            return Err(Reason::WrongPeer);
        }
        let accepted = match kind {
            Kind::Request => self.role == Role::Server as u8,
            Kind::Response | Kind::Reject => self.role == Role::Client as u8,
            Kind::Ack | Kind::Close => true,
            Kind::Hello | Kind::Challenge | Kind::Welcome => false,
        };
        if !accepted {
            return Err(Reason::WrongKind);
        }
        match tag(self.key, header, flat) {
            Ok(expected) if expected == header.tag => Ok(()),
            Ok(_) => Err(Reason::BadTag),
            Err(_) => Err(Reason::Truncated),
        }
    }

    /// Takes note of a checked packet's sequence number; see [`Replay::accept`]. Rejects have no number of their own: the call
    /// they end guards against repetition.
    #[inline(always)]
    pub fn accept(&mut self, kind: Kind, sequence: u64) -> Result<(), Reason> {
        match kind {
            Kind::Reject => Ok(()),
            _ => self.replay.accept(sequence),
        }
    }
}

/// The value type of the session table in the kernel.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SessionEntry {
    /// Identity and keys; written by user space, its replay window by XDP.
    pub guard: Guard,
    /// When `session_tracker()` last admitted a call, in ns of the monotonic clock; user space sets the opening time.
    pub last_seen_ns: u64,
    /// How long the session may idle before `session_tracker()` refuses it, in ns; 0: forever.
    pub idle_ns: u64,
    /// Calls admitted by `session_tracker()`. Where two CPUs admit calls of one session at the same moment, one may be
    /// missing.
    pub calls: u64,
    /// Calls answered with a reject.
    pub rejected: u64,
    /// Per call slot: the call whose first fragment was admitted, so that its other fragments are too.
    pub admitted: [u64; CALL_SLOTS],
}

const _: () = assert!(size_of::<Guard>() == 184 && size_of::<SessionEntry>() == 184 + 32 + 8 * CALL_SLOTS);

impl SessionEntry {
    /// An entry for a session that has just been agreed on.
    pub fn new(guard: Guard, now_ns: u64, idle_ns: u64) -> SessionEntry {
        SessionEntry {
            guard,
            last_seen_ns: now_ns,
            idle_ns,
            calls: 0,
            rejected: 0,
            admitted: [0; CALL_SLOTS],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            index: 0x1_0005,
            peer_index: 9,
            peer: Address::v4(1),
            peer_port: 7400,
            role: Role::Server as u8,
            key: [7, 8],
            ..Guard::zeroed()
        }
    }

    fn signed(guard: &Guard, edit: impl FnOnce(&mut Header)) -> Header {
        let mut header = Header { session: guard.index, sequence: 1, ..Header::new(Kind::Request) };
        header.tag = tag(guard.key, &header, Cursor::new(&[])).unwrap();
        edit(&mut header);
        header
    }

    #[test]
    fn each_lie_has_its_reason() {
        let guard = guard();
        let check =
            |header: &Header, kind, source, port| guard.check(header, kind, source, port, Cursor::new(&[]));
        let good = signed(&guard, |_| {});
        let peer = guard.peer;
        assert_eq!(check(&good, Kind::Request, peer, 7400), Ok(()));
        assert_eq!(check(&good, Kind::Request, Address::v4(2), 7400), Err(Reason::WrongPeer));
        assert_eq!(check(&good, Kind::Request, peer, 7401), Err(Reason::WrongPeer));
        assert_eq!(check(&good, Kind::Response, peer, 7400), Err(Reason::WrongKind));
        let other = signed(&guard, |h| h.session = 0x2_0005);
        assert_eq!(check(&other, Kind::Request, peer, 7400), Err(Reason::UnknownSession));
        let forged = signed(&guard, |h| h.call = 3);
        assert_eq!(check(&forged, Kind::Request, peer, 7400), Err(Reason::BadTag));
        let nobody = Guard::zeroed();
        let zero = signed(&nobody, |_| {});
        assert_eq!(
            nobody.check(&zero, Kind::Request, peer, 7400, Cursor::new(&[])),
            Err(Reason::UnknownSession)
        );
    }
}
