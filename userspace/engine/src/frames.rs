//! What a stream between hosts is made of: the head of the call that opens it, and frames (WIRE.md §13). Bytes from a
//! peer are hostile.

use crate::streams::Written;
use std::collections::VecDeque;
use tollfree_transport::{CallHandle, IncomingCall};
use tollfree_wire::header::{FLAT_MAX, MESSAGE_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in front of the body of a call that opens a stream.
pub const HEAD_LEN: usize = size_of::<Head>();
/// Bytes of frames that one call carries, unless a single frame is longer.
const BATCH: usize = 256 << 10;
/// A peer's control calls that begin so are about streams; binds never do.
const MARK: u8 = 0;

/// In front of the body of a call that opens a stream.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// The stream, by the client's number.
    pub stream: u64,
    /// [`LAST`] and [`BARE`].
    pub flags: u64,
}

/// The request has no further message.
pub const LAST: u64 = 1 << 0;
/// The request has no message at all.
pub const BARE: u64 = 1 << 1;

impl Head {
    /// Takes the head from the front of a body; `None` for what cannot be.
    pub fn split(body: &[u8]) -> Option<(Head, &[u8])> {
        let (head, rest) = Head::read_from_prefix(body).ok()?;
        let sound = head.flags & !(LAST | BARE) == 0 && (head.flags & BARE == 0 || head.flags & LAST != 0);
        sound.then_some((head, rest))
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A message of a request or a response.
    Message = 1,
    /// The metadata with which a response begins.
    ResponseHead = 2,
    /// The request is complete.
    End = 3,
    /// Messages of the other direction were consumed.
    Credit = 4,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FrameHeader {
    kind: u8,
    metadata: u8,
    flat_len: u16,
    body_len: u32,
    layout: u32,
    count: u32,
}

/// A frame that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub kind: FrameKind,
    pub metadata: bool,
    pub layout: u32,
    pub count: u32,
    pub flat: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes a frame from the front of `bytes`; `None` for what cannot be.
    pub fn split(bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        let (header, rest) = FrameHeader::read_from_prefix(bytes).ok()?;
        let FrameHeader { kind, metadata, flat_len, body_len, layout, count } = header;
        let kind = match kind {
            1 => FrameKind::Message,
            2 => FrameKind::ResponseHead,
            3 => FrameKind::End,
            4 => FrameKind::Credit,
            _ => return None,
        };
        let (flat, rest) =
            rest.split_at_checked(usize::from(flat_len)).filter(|(flat, _)| flat.len() <= FLAT_MAX)?;
        let (body, rest) = rest.split_at_checked(body_len as usize)?;
        (metadata <= 1).then_some((Frame { kind, metadata: metadata == 1, layout, count, flat, body }, rest))
    }

    /// The same for a message whose body `fill` writes.
    pub fn encode(&self, body_len: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let &Frame { kind, metadata, layout, count, flat, .. } = self;
        let header = FrameHeader {
            kind: kind as u8,
            metadata: metadata.into(),
            flat_len: flat.len() as u16,
            body_len: body_len as u32,
            layout,
            count,
        };
        let mut bytes = [header.as_bytes(), flat].concat();
        let start = bytes.len();
        bytes.resize(start + body_len, 0);
        if let Some(body) = bytes.get_mut(start..) {
            fill(body);
        }
        bytes
    }

    /// A frame that is a number.
    pub fn bare(kind: FrameKind, count: u32) -> Vec<u8> {
        Frame { kind, metadata: false, layout: 0, count, flat: &[], body: &[] }.encode(0, |_| {})
    }
}

/// Whether a message fits a call.
pub fn fits(flat_len: usize, body_len: usize) -> bool {
    size_of::<FrameHeader>() + size_of::<Control>() + flat_len + body_len <= MESSAGE_MAX as usize
}

/// The front of a control call about a stream.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Control {
    mark: u8,
    what: u8,
    zero: [u8; 6],
    stream: u64,
}

/// What a client's control call wants of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Take these frames.
    Push,
    /// Answer with frames, as soon as there are any. Those of the answer before have arrived.
    Pull,
}

/// A control call's front.
pub fn control(wants: Wants, stream: u64) -> Vec<u8> {
    let what = match wants {
        Wants::Push => 1,
        Wants::Pull => 2,
    };
    Control { mark: MARK, what, zero: [0; 6], stream }.as_bytes().to_vec()
}

/// Reads a control call. `None`: it is not about a stream. `Some(None)`: it cannot be.
pub fn read_control(body: &[u8]) -> Option<Option<(Wants, u64, &[u8])>> {
    if body.first() != Some(&MARK) {
        return None;
    }
    let Ok((Control { what, zero, stream, .. }, frames)) = Control::read_from_prefix(body) else {
        return Some(None);
    };
    Some(match (what, zero) {
        (1, [0, 0, 0, 0, 0, 0]) => Some((Wants::Push, stream, frames)),
        (2, [0, 0, 0, 0, 0, 0]) if frames.is_empty() => Some((Wants::Pull, stream, frames)),
        _ => None,
    })
}

/// What one end keeps of a stream to another host.
#[derive(Debug, Default)]
pub struct Remote {
    /// The stream, by the client's number.
    pub stream: u64,
    /// Frames that wait for a call to carry them.
    pending: VecDeque<Vec<u8>>,
    /// What the peer has written and the application here has not consumed.
    pub arrived: Written,
    /// At the client: the call that carries frames, and the one that asks for them; with their keys in `outgoing`.
    pub push: Option<(u64, CallHandle)>,
    pub pull: Option<(u64, CallHandle)>,
    /// At the client: what `push` carries, for as long as the server may still ask for it.
    pub pushed: Vec<u8>,
    /// At the server: the client's call that waits for frames.
    pub asked: Option<IncomingCall>,
    /// At the server: frames were sent, and the client has not asked again.
    pub unconfirmed: bool,
    /// At the server: the application has ended the stream, and frames are still to arrive before that is said.
    pub finish: Option<tollfree_ring::Submission>,
}

impl Remote {
    /// A stream that begins; `arrived` is what has come with the call that opens it.
    pub fn new(stream: u64, arrived: Written) -> Box<Remote> {
        Box::new(Remote { stream, arrived, ..Remote::default() })
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: Vec<u8>) {
        self.pending.push_back(frame);
    }

    /// Whether frames wait.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds what one call carries to `batch`.
    pub fn fill(&mut self, batch: &mut Vec<u8>) {
        while let Some(frame) = self.pending.front() {
            let first = batch.len() <= size_of::<Control>();
            if !first && batch.len() + frame.len() > BATCH {
                return;
            }
            batch.extend_from_slice(frame);
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart_as_they_were_put_together() {
        let mut remote = Remote::default();
        let frame = Frame {
            kind: FrameKind::Message,
            metadata: false,
            layout: 7,
            count: 0,
            flat: b"flat",
            body: &[],
        };
        remote.send(frame.encode(5, |out| out.copy_from_slice(b"bytes")));
        remote.send(Frame::bare(FrameKind::Credit, 3));
        let mut batch = Vec::new();
        remote.fill(&mut batch);
        let (first, rest) = Frame::split(&batch).unwrap();
        assert_eq!(
            (first.kind, first.layout, first.flat, first.body),
            (FrameKind::Message, 7, &b"flat"[..], &b"bytes"[..])
        );
        let (second, rest) = Frame::split(rest).unwrap();
        assert_eq!((second.kind, second.count, rest.len()), (FrameKind::Credit, 3, 0));
        for len in 0..size_of::<FrameHeader>() + 4 + 5 {
            assert!(Frame::split(&batch[..len]).is_none(), "{len} bytes");
        }
        assert!(Frame::split(&[9; 64]).is_none());
    }

    #[test]
    fn control_calls_are_told_from_binds() {
        let pull = control(Wants::Pull, 9);
        assert_eq!(read_control(&pull), Some(Some((Wants::Pull, 9, &[][..]))));
        assert_eq!(read_control(&[&pull[..], b"x"].concat()), Some(None), "a pull carries nothing");
        assert_eq!(read_control(&pull[..9]), Some(None));
        assert_eq!(read_control(&[0x0a, 1, b'/']), None);
        assert!(Head::split(&[0; 15]).is_none());
        assert!(
            Head::split(Head { stream: 1, flags: BARE }.as_bytes()).is_none(),
            "without a message, and more to come"
        );
    }
}
