//! What goes into and comes out of a transport.

use std::ops::Range;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::session::{Guard, Role};
use tollfree_wire::spec::CHECKSUM_LEN;
use tollfree_wire::{Code, Header};
use zerocopy::IntoBytes;

/// A call to make.
#[derive(Clone, Copy, Debug)]
pub struct NewCall<'a> {
    /// The method's id.
    pub method: u32,
    /// Fingerprint of the flat block's layout; 0 without one.
    pub layout: u32,
    /// The flat block, unpadded, at most [`tollfree_wire::header::FLAT_MAX`] bytes. Copied.
    pub flat: &'a [u8],
    /// The body begins with a metadata block.
    pub metadata: bool,
    /// Bytes of the body, which stays with the caller: [`Body::Source`] asks for parts of it while the call is open.
    pub body_len: u32,
    /// When the call is to end, on the transport's clock; `u64::MAX`: never.
    pub deadline_ns: u64,
    /// The caller's name for the call, in its response and in [`Body::Source`].
    pub token: u64,
}

/// A call made, for [`crate::Transport::cancel`]. Never reused, so a handle of a call that has ended is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallHandle(pub(crate) u64);

/// A call received, for [`crate::Transport::respond`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IncomingCall {
    pub(crate) session: u32,
    pub(crate) call: u64,
}

/// The answer to a call.
pub struct Reply<'a> {
    /// How the call ended.
    pub status: Code,
    /// Whether the status is the engine's own rather than the application's.
    pub by_engine: bool,
    /// Fingerprint of the flat block's layout; 0 without one.
    pub layout: u32,
    /// The flat block, unpadded, at most [`tollfree_wire::header::FLAT_MAX`] bytes. Copied.
    pub flat: &'a [u8],
    /// The body begins with a metadata block.
    pub metadata: bool,
    /// Bytes of the body.
    pub body_len: u32,
    /// The body's name in [`Body::Source`] and [`Event::Released`], where it does not fit one packet.
    pub token: u64,
    /// Writes the whole body. Called at once, or (when the body does not fit one packet) never.
    pub copy_body: &'a mut dyn FnMut(&mut [u8]),
}

/// Between which ends a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The UDP port that it leaves from, counted from this host's first.
    pub from: u16,
    /// Where to.
    pub to: Peer,
}

impl From<Peer> for Route {
    /// From the port that peers call, as a server answers.
    fn from(to: Peer) -> Route {
        Route { from: 0, to }
    }
}

/// A packet to send.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// From where to where.
    pub route: Route,
    /// The base header, tag included.
    pub header: &'a Header,
    /// The flat block, padded.
    pub flat: &'a [u8],
    /// What the transport says between flat block and body.
    pub extension: &'a [u8],
    /// The part of the body that goes into this packet.
    pub body: Body<'a>,
    /// Whether a CRC32C of extension and body follows the body.
    pub checksum: bool,
}

impl<'a> Transmit<'a> {
    /// A packet that is a header and no more.
    pub(crate) fn bare(route: Route, header: &'a Header) -> Transmit<'a> {
        Transmit { route, header, flat: &[], extension: &[], body: Body::Empty, checksum: false }
    }

    /// Bytes of the packet, from the base header on.
    pub fn payload_len(&self) -> usize {
        let body = match &self.body {
            Body::Empty => 0,
            Body::Inline(bytes) => bytes.len(),
            Body::Source { range, .. } => range.len(),
        };
        let checksum = if self.checksum { CHECKSUM_LEN } else { 0 };
        HEADER_LEN + self.flat.len() + self.extension.len() + body + checksum
    }

    /// Writes the packet into a frame of [`Transmit::payload_len`] bytes. `source` copies a part of the body of the
    /// message with a token, from an offset on.
    #[inline]
    pub fn write(&self, frame: &mut [u8], source: impl FnOnce(u64, u32, &mut [u8])) {
        let Transmit { route: _, header, flat, extension, body, checksum } = self;
        let (head, rest) = frame.split_at_mut(HEADER_LEN);
        head.copy_from_slice(header.as_bytes());
        let (block, rest) = rest.split_at_mut(flat.len());
        block.copy_from_slice(flat);
        let (covered, trailer) = rest.split_at_mut(rest.len() - if *checksum { CHECKSUM_LEN } else { 0 });
        let (extra, contents) = covered.split_at_mut(extension.len());
        extra.copy_from_slice(extension);
        match body {
            Body::Empty => {}
            Body::Inline(bytes) => contents.copy_from_slice(bytes),
            Body::Source { token, range } => source(*token, range.start, contents),
        }
        if *checksum {
            trailer.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
        }
    }
}

/// Where a packet's body comes from.
#[derive(Debug)]
pub enum Body<'a> {
    /// There is none.
    Empty,
    /// These bytes.
    Inline(&'a [u8]),
    /// This part of the body of the message with this token.
    Source {
        /// The token of the call or reply.
        token: u64,
        /// Which of its bytes.
        range: Range<u32>,
    },
}

/// Nothing can be sent now; the packet stays with the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked;

/// A request that has arrived whole.
#[derive(Clone, Copy, Debug)]
pub struct IncomingRequest<'a> {
    /// The call, to answer it with.
    pub call: IncomingCall,
    /// Who calls.
    pub peer: Peer,
    /// The session, by this host's index.
    pub session: u32,
    /// The method's id.
    pub method: u32,
    /// Fingerprint of the flat block's layout.
    pub layout: u32,
    /// When the caller stops waiting, on this host's clock; `u64::MAX`: never.
    pub deadline_ns: u64,
    /// How far the policy in front of this transport has judged it, as [`tollfree_wire::maps::JUDGED`] says; 0 where
    /// nothing is in front.
    pub judged: u64,
    /// The flat block, without padding.
    pub flat: &'a [u8],
    /// The body begins with a metadata block.
    pub metadata: bool,
    /// The body.
    pub body: &'a [u8],
}

/// Who says how a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer, in a response.
    Peer {
        /// The status is the peer's engine's rather than its application's.
        by_engine: bool,
    },
    /// A policy in the peer's network driver.
    Driver,
    /// This transport; the text says why.
    Transport(&'static str),
}

/// What has happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A call for an application here. Delivered once per call.
    Request(IncomingRequest<'a>),
    /// A call made here has ended. Exactly one per [`crate::Transport::call`], none after
    /// [`crate::Transport::cancel`].
    Response {
        /// The call's token, which is free now.
        token: u64,
        /// How it ended.
        status: Code,
        /// Fingerprint of the flat block's layout.
        layout: u32,
        /// The flat block, without padding.
        flat: &'a [u8],
        /// The body begins with a metadata block.
        metadata: bool,
        /// The body; of a reject the text that says why, in UTF-8, if it has one.
        body: &'a [u8],
        /// Who says so.
        verdict: Verdict,
    },
    /// Nobody waits for this received call's answer any more.
    Cancelled {
        /// The call.
        call: IncomingCall,
    },
    /// The body of a long reply is no longer needed.
    Released {
        /// The reply's token.
        token: u64,
    },
    /// A session was agreed on; for logs.
    SessionUp {
        /// With whom.
        peer: Peer,
    },
    /// A session is over; for logs.
    SessionDown {
        /// With whom.
        peer: Peer,
        /// Why, for people.
        why: &'static str,
    },
}

/// A change of the table of sessions. To be mirrored to whoever checks packets before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A session was agreed on: what its packets are checked against, and its idle limit in ns (0: none).
    Opened(Guard, u64),
    /// The session with this index is over.
    Closed(u32),
}

/// A session, for people to look at.
#[derive(Clone, Copy, Debug)]
pub struct SessionInfo {
    /// This host's index for it.
    pub index: u32,
    /// The other end.
    pub peer: Peer,
    /// Which end this host is.
    pub role: Role,
    /// Calls that have not ended.
    pub calls: usize,
    /// The smoothed round trip, in ns; 0 before the first.
    pub round_trip_ns: u64,
}

impl SessionInfo {
    /// The role as a word.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Client => "client",
            Role::Server => "server",
        }
    }
}

/// What a transport has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub calls_made: u64,
    pub calls_received: u64,
    pub packets_sent: u64,
    pub packets_resent: u64,
    pub replies_repeated: u64,
    pub acks_sent: u64,
    pub requests_expired: u64,
    pub requests_deferred: u64,
    pub calls_dead: u64,
    pub resets_sent: u64,
    pub resets_believed: u64,
    pub challenges_sent: u64,
    pub sessions_opened: u64,
    pub sessions_closed: u64,
}

/// What a transport holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Calls made that have not ended.
    pub calls: usize,
    /// Sessions, agreed on or on their way there.
    pub sessions: usize,
    /// Bytes reserved for messages under reassembly.
    pub reassembly_bytes: usize,
    /// Packets of long messages that have neither arrived nor been given up.
    pub in_flight: u64,
    /// Timers, set or kept for reuse.
    pub timers: usize,
}

/// Where packets go.
pub(crate) type Out<'o> = &'o mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>;
/// Where events go.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Event<'_>);
