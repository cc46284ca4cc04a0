//! Where things are in the shared memory, and descriptors as words. Pure arithmetic; the picture is in the crate's
//! documentation.

use crate::shared::Mapping;
use crate::{AppOp, Corrupt, DaemonOp, DeliveryHeader, Error, Flags, Span, Submission, VerdictAt};
use rustix::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use tollfree_wire::Code;
use tollfree_wire::header::{FLAT_MAX, MESSAGE_MAX};

/// Index of the writer's own producing, in its own memfd.
pub(crate) const PRODUCER: usize = 0;
/// Index up to which the owner has consumed the other's ring, in the owner's memfd.
pub(crate) const CONSUMER: usize = 64;
/// The owner's sleep word.
pub(crate) const SLEEP: usize = 128;
const PAGE: usize = 4096;
const DESCRIPTOR: usize = 64;

/// Sizes of one application's rings and regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Descriptors in each ring: a power of two, 4 to 65536.
    pub slots: u32,
    /// Bytes in the region the application writes: a power of two, 4 KiB to 1 GiB.
    pub tx_bytes: u32,
    /// Bytes in the region the daemon writes: a power of two, 4 KiB to 1 GiB.
    pub rx_bytes: u32,
    /// Bytes beside either region for long messages: a power of two, 4 KiB to 1 GiB, and so the longest message. They are
    /// taken from the system only while they are in use.
    pub long_bytes: u32,
}

/// A message is long, and goes beside the region, if it takes more than one part in so many of it.
const LONG_PART: u32 = 8;

impl Default for Geometry {
    fn default() -> Geometry {
        Geometry { slots: 1024, tx_bytes: 4 << 20, rx_bytes: 4 << 20, long_bytes: 64 << 20 }
    }
}

impl Geometry {
    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Geometry`], saying which.
    pub fn check(&self) -> Result<(), Error> {
        let Geometry { slots, tx_bytes, rx_bytes, long_bytes } = *self;
        if !slots.is_power_of_two() || !(4..=1 << 16).contains(&slots) {
            return Err(Error::Geometry("slots must be a power of two from 4 to 65536"));
        }
        if ![tx_bytes, rx_bytes, long_bytes]
            .iter()
            .all(|bytes| bytes.is_power_of_two() && (4096..=1 << 30).contains(bytes))
        {
            return Err(Error::Geometry(
                "tx_bytes, rx_bytes and long_bytes must be powers of two from 4 KiB to 1 GiB",
            ));
        }
        if long_bytes < tx_bytes.max(rx_bytes) / LONG_PART {
            return Err(Error::Geometry("long_bytes must be an eighth of tx_bytes and rx_bytes at least"));
        }
        Ok(())
    }

    /// Where a memfd's region starts.
    pub(crate) fn region(&self) -> usize {
        (PAGE + self.slots as usize * DESCRIPTOR).next_multiple_of(PAGE)
    }

    /// Where the room for long messages starts in the application's memfd.
    pub(crate) fn long(&self) -> usize {
        self.region() + self.tx_bytes as usize
    }

    /// Bytes of the application's memfd.
    pub(crate) fn app_len(&self) -> usize {
        self.long() + self.long_bytes as usize
    }

    /// Bytes of the daemon's memfd.
    pub(crate) fn daemon_len(&self) -> usize {
        self.region() + self.rx_bytes as usize
    }

    /// Bytes of the daemon's memfd for long messages.
    pub(crate) fn long_len(&self) -> usize {
        self.long_bytes as usize
    }

    /// Whether a part of a message goes beside a region of so many bytes.
    pub(crate) fn is_long(len: usize, region: u32) -> bool {
        len > (region / LONG_PART) as usize
    }

    /// The longest body that there will ever be room for, in bytes.
    pub(crate) fn largest_body(&self) -> usize {
        self.long_bytes.min(MESSAGE_MAX) as usize
    }

    /// Bytes that offsets in the tx ring can name.
    pub(crate) fn tx_reach(&self) -> u32 {
        self.tx_bytes + self.long_bytes
    }

    /// Bytes that offsets in the rx ring can name.
    pub(crate) fn rx_reach(&self) -> u32 {
        self.rx_bytes + self.long_bytes
    }

    fn slot(&self, index: u32) -> usize {
        PAGE + (index & (self.slots - 1)) as usize * DESCRIPTOR
    }
}

/// What an application needs to open its end of the rings.
#[derive(Debug)]
pub struct Handover {
    /// The sizes.
    pub geometry: Geometry,
    /// The memory the application writes.
    pub app_memory: OwnedFd,
    /// The memory the daemon writes.
    pub daemon_memory: OwnedFd,
    /// The memory the daemon writes long messages to.
    pub long_memory: OwnedFd,
    /// Read end of the pipe that wakes the application.
    pub doorbell: OwnedFd,
    /// Write end of the pipe that wakes the daemon.
    pub bell: OwnedFd,
}

/// A descriptor's words.
pub(crate) type Words = [u64; 8];

pub(crate) fn load(mapping: &Mapping, geometry: &Geometry, index: u32) -> Words {
    let slot = geometry.slot(index);
    std::array::from_fn(|word| u64::from_le(mapping.word64(slot + word * 8).load(Relaxed)))
}

pub(crate) fn store(mapping: &Mapping, geometry: &Geometry, index: u32, words: &Words) {
    let slot = geometry.slot(index);
    for (place, word) in words.iter().enumerate() {
        mapping.word64(slot + place * 8).store(word.to_le(), Relaxed);
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

pub(crate) fn encode_submission(submission: &Submission) -> Words {
    let Submission { op, status, flags, method, call, layout, deadline_us, flat, body, count } = *submission;
    let kind = u32::from_le_bytes([op as u8, status as u8, 0, encode_flags(flags)]);
    [
        pair(kind, method),
        call,
        pair(layout, deadline_us),
        pair(flat.offset, flat.len),
        pair(body.offset, body.len),
        pair(count, 0),
        0,
        0,
    ]
}

pub(crate) fn encode_delivery(header: &DeliveryHeader, flat: Span, body: Span) -> Words {
    let DeliveryHeader { op, status, flags, method, call, layout, deadline_us, verdict_at, count } = *header;
    let kind = u32::from_le_bytes([op as u8, status as u8, verdict_at as u8, encode_flags(flags)]);
    [
        pair(kind, method),
        call,
        pair(layout, deadline_us),
        pair(flat.offset, flat.len),
        pair(body.offset, body.len),
        pair(count, 0),
        0,
        0,
    ]
}

/// Checks everything in a descriptor that can be checked without knowing the calls.
pub(crate) fn decode_submission(words: &Words, region: u32) -> Result<Submission, Corrupt> {
    let [op, status, verdict, flags] = low(words[0]).to_le_bytes();
    let op = match op {
        1 => AppOp::Call,
        2 => AppOp::Respond,
        3 => AppOp::Cancel,
        4 => AppOp::RequestMessage,
        5 => AppOp::RequestEnd,
        6 => AppOp::ResponseCredit,
        7 => AppOp::ResponseHead,
        8 => AppOp::ResponseMessage,
        9 => AppOp::RequestCredit,
        other => return Err(Corrupt::Op(other)),
    };
    if verdict != 0 {
        return Err(Corrupt::Reserved);
    }
    let (flat, body) = spans(words, region)?;
    let status = known_status(status)?;
    Ok(Submission {
        op,
        status,
        flags: known_flags(flags)?,
        method: high(words[0]),
        call: words[1],
        layout: low(words[2]),
        deadline_us: high(words[2]),
        flat,
        body,
        count: count(words)?,
    })
}

pub(crate) fn decode_delivery(words: &Words, region: u32) -> Result<(DeliveryHeader, Span, Span), Corrupt> {
    let [op, status, verdict, flags] = low(words[0]).to_le_bytes();
    let op = match op {
        1 => DaemonOp::Request,
        2 => DaemonOp::Response,
        3 => DaemonOp::Cancelled,
        4 => DaemonOp::Released,
        5 => DaemonOp::RequestMessage,
        6 => DaemonOp::RequestEnd,
        7 => DaemonOp::ResponseCredit,
        8 => DaemonOp::ResponseHead,
        9 => DaemonOp::ResponseMessage,
        10 => DaemonOp::RequestCredit,
        11 => DaemonOp::RequestTaken,
        12 => DaemonOp::ResponseTaken,
        other => return Err(Corrupt::Op(other)),
    };
    let verdict_at = match verdict {
        0 => VerdictAt::None,
        1 => VerdictAt::Driver,
        2 => VerdictAt::Engine,
        3 => VerdictAt::Application,
        4 => VerdictAt::Transport,
        _ => return Err(Corrupt::Reserved),
    };
    let (flat, body) = spans(words, region)?;
    let header = DeliveryHeader {
        op,
        status: known_status(status)?,
        flags: known_flags(flags)?,
        method: high(words[0]),
        call: words[1],
        layout: low(words[2]),
        deadline_us: high(words[2]),
        verdict_at,
        count: count(words)?,
    };
    Ok((header, flat, body))
}

const METADATA: u8 = 1 << 0;
const LAST: u8 = 1 << 1;
const BARE: u8 = 1 << 2;

fn encode_flags(flags: Flags) -> u8 {
    let Flags { metadata, last, bare } = flags;
    (u8::from(metadata) * METADATA) | (u8::from(last) * LAST) | (u8::from(bare) * BARE)
}

fn known_flags(byte: u8) -> Result<Flags, Corrupt> {
    if byte & !(METADATA | LAST | BARE) != 0 {
        return Err(Corrupt::Reserved);
    }
    Ok(Flags { metadata: byte & METADATA != 0, last: byte & LAST != 0, bare: byte & BARE != 0 })
}

/// The count of the fifth word; the rest of a descriptor is reserved.
fn count(words: &Words) -> Result<u32, Corrupt> {
    let [.., fifth, 0, 0] = *words else { return Err(Corrupt::Reserved) };
    if high(fifth) == 0 { Ok(low(fifth)) } else { Err(Corrupt::Reserved) }
}

fn known_status(byte: u8) -> Result<Code, Corrupt> {
    Code::ALL.get(usize::from(byte)).copied().ok_or(Corrupt::Status(byte))
}

fn spans(words: &Words, region: u32) -> Result<(Span, Span), Corrupt> {
    let flat = checked("flat block", words[3], FLAT_MAX as u32, region)?;
    let body = checked("body", words[4], MESSAGE_MAX, region)?;
    Ok((flat, body))
}

fn checked(what: &'static str, word: u64, limit: u32, region: u32) -> Result<Span, Corrupt> {
    let span = Span { offset: low(word), len: high(word) };
    let inside = span.offset.checked_add(span.len).is_some_and(|end| end <= region);
    if span.len > limit || !inside {
        return Err(Corrupt::Span { what, offset: span.offset, len: span.len });
    }
    Ok(span)
}
