//! The rings and regions between an application and the daemon.
//!
//! # Memory
//!
//! The daemon makes three memfds per application, seals their sizes, and passes them over a Unix socket ([`attach`]).
//! Two are one page of control words, a ring of 64-byte descriptors, and a region of bytes:
//!
//! ```text
//! the application's (it maps it read-write, the daemon read-only)     the daemon's (the application can only read it)
//!      0  u32  tx producer index                                           0  u32  rx producer index
//!     64  u32  rx consumer index                                          64  u32  tx consumer index
//!    128  u32  sleep word of the application                             128  u32  sleep word of the daemon
//!   4096  tx ring: slots × 64 bytes                                     4096  rx ring: slots × 64 bytes
//!   4096 + 64 × slots, rounded up to a page:                            the same offset:
//!         tx region: tx_bytes                                                 rx region: rx_bytes
//!         room for long messages: long_bytes                                  (in the third memfd: the same)
//! ```
//!
//! Indices count descriptors and run freely modulo 2³²; `producer − consumer` descriptors are in the ring, the one with
//! index `i` in slot `i mod slots`. A descriptor, as eight little-endian 64-bit words:
//!
//! ```text
//!   0  op: u8 | status: u8 | verdict_at: u8 (0 in the tx ring) | flags: u8 | method: u32
//!   1  call: u64         the application's cookie, or the daemon's handle for a call being served
//!   2  layout: u32       | deadline_us: u32
//!   3  flat offset: u32  | flat length: u32        offsets count from the region's start
//!   4  body offset: u32  | body length: u32
//!   5  count: u32        | 0: u32
//!   6  7  zero
//! ```
//!
//! Offsets from tx_bytes (rx_bytes) on name the room for long messages. A flat block or body that takes more than an eighth of
//! the region goes there, and gets a block of its own, so that one long message does not sweep the caches of all short ones.
//! Either side gives the pages of its room back to the system when it has been out of use for a second or two: what an
//! application costs is its rings and regions, and for as long as there are long messages up to long_bytes each way.
//!
//! Flags: bit 0, the body begins with a metadata block; bit 1, no message of the request follows; bit 2, the request has
//! no message at all.
//!
//! # Streams
//!
//! A call whose method streams begins as any call does: its first request message is the call's. What follows in either
//! direction are messages of their own, each with the call's cookie or handle:
//!
//! ```text
//! caller → daemon   Call · RequestMessage … RequestEnd          daemon → callee   Request · RequestMessage … RequestEnd
//! callee → daemon   ResponseHead · ResponseMessage … Respond    daemon → caller   ResponseHead · ResponseMessage … Response
//! ```
//!
//! *Credit* bounds what waits for a reader. A message may follow while the reader has yet to consume fewer than
//! [`STREAM_MESSAGES`] messages and [`STREAM_BYTES`] bytes before it; a credit says that its application has consumed the
//! `count` oldest. So a slow reader slows its writer and nobody else. A head is a message here, an end and a response are
//! not. *Taken* says that the room of the `count` oldest is free, usually long before they are consumed.
//!
//! The rx region is a byte ring in lockstep with the rx ring: consuming a descriptor frees its bytes, and those of its long
//! body. The tx region is the application's to allocate; a call's span is free again when its response (or "cancelled") arrives, a reply's
//! when "released" does, a stream's message's when it is "taken" or its call has ended, whichever is first.
//!
//! # Waking
//!
//! A side that wants to sleep stores a new odd sleep word (bit 0: asleep; bit 1: also wants to hear of room in the
//! ring it fills; above: a count), passes a sequentially consistent fence and looks at the rings once more. A side that
//! publishes stores its index, passes the same fence and reads the other's sleep word: one of the two always sees the
//! other. It rings at most once per sleep word, by writing a byte to a pipe. Pipes, not eventfds: an eventfd's
//! `O_NONBLOCK` is shared by both holders, so an application could turn it off and have the daemon block.
//!
//! # Trust
//!
//! The application is hostile: the daemon reads each descriptor once, checks every number in it, and copies. What can't
//! be is [`Corrupt`]; the daemon then closes that application's connection and nothing else happens. The application
//! trusts the daemon with its data, but a wrong offset from it is still an error and not a wild read.
//!
//! Not here: what the calls mean, which layouts fit, async.

mod alloc;
pub mod app;
pub mod attach;
pub mod daemon;
mod layout;
mod shared;
mod wake;

pub use layout::{Geometry, Handover};

use tollfree_wire::Code;
use tollfree_wire::header::NO_DEADLINE;

/// Bytes in a region, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Span {
    /// Where they start.
    pub offset: u32,
    /// How many.
    pub len: u32,
}

/// Messages of one direction of a stream that may wait for credit.
pub const STREAM_MESSAGES: usize = 256;
/// Bytes of flat blocks and bodies that may wait before another message is sent.
pub const STREAM_BYTES: usize = 256 << 10;

/// What an application submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AppOp {
    /// Makes a call.
    Call = 1,
    /// Answers a request; the last thing of a streaming response.
    Respond = 2,
    /// No longer wants a call's result; the daemon answers with [`DaemonOp::Cancelled`] or the response that crossed it.
    Cancel = 3,
    /// Caller: one more message of a streaming request.
    RequestMessage = 4,
    /// Caller: the streaming request is complete.
    RequestEnd = 5,
    /// Caller: `count` messages of the response were consumed.
    ResponseCredit = 6,
    /// Callee: the streaming response begins; the body is its metadata.
    ResponseHead = 7,
    /// Callee: one more message of a streaming response.
    ResponseMessage = 8,
    /// Callee: `count` messages of the request were consumed.
    RequestCredit = 9,
}

/// What the daemon delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DaemonOp {
    /// A call to serve.
    Request = 1,
    /// A call's result.
    Response = 2,
    /// To the caller: the cancelled call is over. To the callee: the caller no longer waits; no answer is needed.
    Cancelled = 3,
    /// The room of a reply may be reused.
    Released = 4,
    /// To the callee: one more message of a streaming request.
    RequestMessage = 5,
    /// To the callee: the streaming request is complete.
    RequestEnd = 6,
    /// To the callee: `count` messages of its response were consumed.
    ResponseCredit = 7,
    /// To the caller: the streaming response begins; the body is its metadata.
    ResponseHead = 8,
    /// To the caller: one more message of a streaming response.
    ResponseMessage = 9,
    /// To the caller: `count` messages of its request were consumed.
    RequestCredit = 10,
    /// To the caller: the room of the `count` oldest messages of its request is free.
    RequestTaken = 11,
    /// To the callee: the room of the `count` oldest messages of its response is free.
    ResponseTaken = 12,
}

/// What else is to know of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Its body begins with a metadata block (`tollfree_wire::metadata`).
    pub metadata: bool,
    /// In a request: no message of it follows.
    pub last: bool,
    /// In a request that is also the last: not even a first message, the streaming request is empty.
    pub bare: bool,
}

/// Where a status other than OK was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum VerdictAt {
    /// Not known, or not applicable.
    #[default]
    None = 0,
    /// A policy in the driver of the server's network card (XDP).
    Driver = 1,
    /// A policy in an engine, or the engine itself.
    Engine = 2,
    /// The service's handler.
    Application = 3,
    /// The transport between the engines.
    Transport = 4,
}

/// A descriptor of the tx ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What is asked for.
    pub op: AppOp,
    /// The result of a [`AppOp::Respond`]; else OK. Where it is not OK the body is the message for people, UTF-8.
    pub status: Code,
    /// What else is to know of the message.
    pub flags: Flags,
    /// The method id.
    pub method: u32,
    /// The application's cookie; from a callee the daemon's handle of the request.
    pub call: u64,
    /// Fingerprint of the flat block's layout.
    pub layout: u32,
    /// Time left, in µs, or [`NO_DEADLINE`].
    pub deadline_us: u32,
    /// The flat block in the tx region, at most 192 bytes.
    pub flat: Span,
    /// The body in the tx region, at most 16 MiB.
    pub body: Span,
    /// Messages that are consumed or taken, else 0.
    pub count: u32,
}

impl Submission {
    /// A descriptor that says what is asked for, and of which call.
    pub const fn new(op: AppOp, call: u64) -> Submission {
        Submission {
            op,
            status: Code::Ok,
            flags: Flags { metadata: false, last: false, bare: false },
            method: 0,
            call,
            layout: 0,
            deadline_us: NO_DEADLINE,
            flat: Span { offset: 0, len: 0 },
            body: Span { offset: 0, len: 0 },
            count: 0,
        }
    }
}

/// A descriptor of the rx ring, but for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryHeader {
    /// What has happened.
    pub op: DaemonOp,
    /// A response's status. Where it is not OK the body is the message for people, UTF-8.
    pub status: Code,
    /// What else is to know of the message.
    pub flags: Flags,
    /// The method id.
    pub method: u32,
    /// The application's cookie; in [`DaemonOp::Request`], and what concerns it, the daemon's handle.
    pub call: u64,
    /// Fingerprint of the flat block's layout.
    pub layout: u32,
    /// Time left, in µs, or [`NO_DEADLINE`].
    pub deadline_us: u32,
    /// Where a status other than OK was decided.
    pub verdict_at: VerdictAt,
    /// Messages that are consumed or taken, else 0.
    pub count: u32,
}

impl DeliveryHeader {
    /// A descriptor that says what has happened, and to which call.
    pub const fn new(op: DaemonOp, call: u64) -> DeliveryHeader {
        DeliveryHeader {
            op,
            status: Code::Ok,
            flags: Flags { metadata: false, last: false, bare: false },
            method: 0,
            call,
            layout: 0,
            deadline_us: NO_DEADLINE,
            verdict_at: VerdictAt::None,
            count: 0,
        }
    }
}

/// A descriptor of the rx ring with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What has happened.
    pub op: DaemonOp,
    /// A response's status.
    pub status: Code,
    /// What else is to know of the message.
    pub flags: Flags,
    /// The method id.
    pub method: u32,
    /// The application's cookie, or the daemon's handle.
    pub call: u64,
    /// Fingerprint of the flat block's layout.
    pub layout: u32,
    /// Time left, in µs.
    pub deadline_us: u32,
    /// The flat block.
    pub flat: &'a [u8],
    /// The body, or the message of a status.
    pub body: &'a [u8],
    /// Where a status other than OK was decided.
    pub verdict_at: VerdictAt,
    /// Messages that are consumed or taken, else 0.
    pub count: u32,
}

/// No room now. It comes when the other side has consumed more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full; try again when the other side has read more of it")]
pub struct Full;

/// The other side wrote what no working library writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// An index that is ahead of, or behind, what it can be.
    #[error("an index says {claimed} descriptors are in a ring of {slots}")]
    Index {
        /// Descriptors, by the index.
        claimed: u32,
        /// Descriptors that fit.
        slots: u32,
    },
    /// An operation that does not exist.
    #[error("operation {0} does not exist")]
    Op(u8),
    /// A status outside gRPC's range.
    #[error("status {0} does not exist")]
    Status(u8),
    /// Bits set that must be zero.
    #[error("reserved bits of a descriptor are set")]
    Reserved,
    /// A span outside the region, or over a limit.
    #[error("a {what} of {len} bytes at {offset} is outside the region or over the limit")]
    Span {
        /// `flat block` or `body`.
        what: &'static str,
        /// Where it claims to start.
        offset: u32,
        /// How long it claims to be.
        len: u32,
    },
}

/// Why rings could not be made, opened or passed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{what} failed: {source}")]
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A size that rings can't have.
    #[error("ring geometry: {0}")]
    Geometry(&'static str),
    /// The other side of the socket does not keep to the protocol.
    #[error("attaching: {0}; are the library and the daemon of one version?")]
    Protocol(&'static str),
    /// The daemon refused, and says why.
    #[error("the daemon refuses the application: {0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn system(what: &'static str, source: impl Into<std::io::Error>) -> Error {
        Error::System { what, source: source.into() }
    }
}
