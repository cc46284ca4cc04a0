//! How packets leave and arrive: one trait, [`Nic`], and its backends.
//!
//! A backend moves the payload of UDP packets (a Tollfree base header and what follows it) between this host and its
//! peers. [`udp`] does it with an ordinary socket and no privileges; [`afxdp`] with rings shared with the driver,
//! behind the XDP programs.
//!
//! Not here: what the bytes mean (transport), loading XDP programs (loader), waiting strategies (engine).

pub mod afxdp;
mod counters;
mod error;
mod headers;
mod paths;
pub mod udp;

pub use counters::{Counters, Frames};
pub use error::{Error, TxError};
use std::os::fd::BorrowedFd;
pub use tollfree_wire::frame::Peer;

/// A packet as a backend hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The engine that sent it.
    pub from: Peer,
    /// The UDP payload: from the base header on, without Ethernet's padding.
    pub payload: &'a [u8],
    /// A router on the way was congested and said so (ECN's CE). All packets leave able to be marked; switches and qdiscs
    /// mark them where they are told to. A veth pair never does.
    pub marked: bool,
}

/// A source and sink of packets, driven by one polling thread. Nothing here blocks.
pub trait Nic {
    /// Whether received packets have passed the root XDP program, which checked session, tag and replay.
    const VERIFIED: bool;

    /// The longest payload of one packet in bytes: base header, flat block and body together.
    fn max_payload(&self) -> usize;

    /// The UDP ports in a row that packets can leave from and arrive at; the first is the one that peers call.
    fn ports(&self) -> u16;

    /// Hands up to `budget` waiting packets to `sink` and says how many they were.
    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(Received<'_>)) -> Result<usize, Error>;

    /// Queues one packet of `len` payload bytes from the port that is `from` after the first, below [`Nic::ports`]. `fill`
    /// is called at most once, with exactly `len` bytes whose
    /// content is unspecified, and must write them all. The packet leaves at the next [`Nic::flush`].
    fn transmit(
        &mut self,
        from: u16,
        to: &Peer,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TxError>;

    /// Sends everything queued since the last flush, with one system call where possible. What the kernel has no
    /// room for stays queued and goes with a later flush: it is never sent twice.
    fn flush(&mut self) -> Result<(), Error>;

    /// Readable when packets wait.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What happened so far.
    fn counters(&self) -> Counters;

    /// Why the last attempt to find the way to `peer` failed, if it did: a sentence for the log. Backends that leave
    /// that to the kernel do not know.
    fn why_unreachable(&self, _peer: &Peer) -> Option<&str> {
        None
    }

    /// Slow housekeeping, to be called about every 100 ms with the CLOCK_MONOTONIC time in nanoseconds.
    fn tick(&mut self, now_ns: u64);
}
