//! The XDP program in front of a host whose transport is *verified*: the checks of WIRE.md §5 on the session table, made with the
//! same code, and the answers of §7. What it lets through reaches the engine; the engine relies on that.

use std::collections::HashMap;
use tollfree_transport::SessionChange;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAG_CANCEL, FLAG_RESET, METHOD_CONTROL};
use tollfree_wire::session::place;
use tollfree_wire::tag::tag;
use tollfree_wire::{Code, Cursor, Header, Kind, Packet, Reason, SessionEntry};

/// Calls to this method are refused by every driver's policy.
pub const DENIED: u32 = 13;

/// The program and its session table, which outlives the daemon.
#[derive(Default)]
pub struct Driver {
    sessions: HashMap<u32, SessionEntry>,
}

/// What the program does with a packet.
pub enum Verdict {
    /// Hands it to the engine.
    Deliver,
    /// Sends this back.
    Answer(Header, Reason),
    /// Drops it.
    Drop(Reason),
}

impl Driver {
    /// A daemon has started: the sessions of its previous life are over.
    pub fn restart(&mut self) {
        self.sessions.clear();
    }

    /// Takes note of a session opened or closed.
    pub fn mirror(&mut self, change: SessionChange) {
        match change {
            SessionChange::Opened(guard, idle_ns) => {
                self.sessions.insert(place(guard.index), SessionEntry::new(guard, 0, idle_ns));
            }
            SessionChange::Closed(index) => {
                self.sessions.remove(&place(index));
            }
        }
    }

    /// Judges a packet. `racing`: another CPU judges one of the same session at this moment, and this one's note in the
    /// replay window is lost.
    pub fn judge(&mut self, from: Peer, packet: &Packet<'_>, racing: bool) -> Verdict {
        let &Packet { ref header, kind, flat_padded, .. } = packet;
        if kind.is_handshake() || (kind == Kind::Close && header.flags & FLAG_RESET != 0) {
            return Verdict::Deliver;
        }
        let Some(entry) = self.sessions.get_mut(&place(header.session)) else {
            return unknown(packet);
        };
        let guard = &mut entry.guard;
        match guard.check(header, kind, from.address, from.port, Cursor::new(flat_padded)) {
            Ok(()) => {}
            Err(Reason::UnknownSession) => return unknown(packet),
            Err(reason) => return Verdict::Drop(reason),
        }
        let before = guard.replay;
        if let Err(reason) = guard.accept(kind, header.sequence) {
            return Verdict::Drop(reason);
        }
        if racing {
            guard.replay = before;
        }
        if kind != Kind::Request || header.method == METHOD_CONTROL || header.flags & FLAG_CANCEL != 0 {
            return Verdict::Deliver;
        }
        if header.fragment != 0 {
            let admitted = entry.admitted[header.slot()] == header.call;
            return if admitted { Verdict::Deliver } else { Verdict::Drop(Reason::NotAdmitted) };
        }
        if header.method == DENIED {
            let mut reject = Header {
                status: Code::PermissionDenied as u8,
                session: guard.peer_index,
                method: header.method,
                call: header.call,
                sequence: header.sequence,
                ..Header::new(Kind::Reject)
            };
            reject.tag = tag(guard.key, &reject, Cursor::new(&[])).unwrap_or(0);
            return Verdict::Answer(reject, Reason::PolicyReject);
        }
        if header.fragments > 1 {
            let admitted = &mut entry.admitted[header.slot()];
            *admitted = header.call.max(*admitted);
        }
        Verdict::Deliver
    }
}

fn unknown(packet: &Packet<'_>) -> Verdict {
    if !matches!(packet.kind, Kind::Request | Kind::Response) {
        return Verdict::Drop(Reason::UnknownSession);
    }
    let Header { session, call, sequence, tag, .. } = packet.header;
    let answer =
        Header { flags: FLAG_RESET, method: session, call, sequence, tag, ..Header::new(Kind::Close) };
    Verdict::Answer(answer, Reason::UnknownSession)
}
