//! What a stream between hosts is made of: the head of the call that opens it, the fronts of exchanges and of what answers
//! them, and frames (WIRE.md §13). Bytes from a peer are hostile.

use tollfree_wire::Code;
use tollfree_wire::header::FLAT_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A peer's control calls that begin so are exchanges; binds never do.
const MARK: u8 = 0;
const EXCHANGE: u8 = 1;

/// Bytes in front of the body of a call that opens a stream.
pub const HEAD_LEN: usize = size_of::<Head>();

/// In front of the body of a call that opens a stream.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// The client's daemon, by a number that no other start of it has.
    pub life: u64,
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

/// In front of an exchange's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// The client's daemon, by its life's number.
    pub client: u64,
    /// The server's daemon, by its life's number; 0 while the client has not heard of it.
    pub server: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FrontBytes {
    mark: u8,
    what: u8,
    zero: [u8; 6],
    client: u64,
    server: u64,
}

impl Front {
    /// Begins a batch.
    pub fn put(self, batch: &mut Vec<u8>) {
        let Front { client, server } = self;
        let front = FrontBytes { mark: MARK, what: EXCHANGE, zero: [0; 6], client, server };
        batch.extend_from_slice(front.as_bytes());
    }

    /// Reads a control call. `None`: it is no exchange. `Some(None)`: it cannot be.
    pub fn split(body: &[u8]) -> Option<Option<(Front, &[u8])>> {
        if body.first() != Some(&MARK) {
            return None;
        }
        let front = FrontBytes::read_from_prefix(body).ok();
        Some(front.and_then(|(FrontBytes { what, zero, client, server, .. }, frames)| {
            (what == EXCHANGE && zero == [0; 6]).then_some((Front { client, server }, frames))
        }))
    }
}

/// In front of the frames that answer an exchange, or a call that has opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// More frames wait than there are exchanges to carry them.
    pub more: bool,
    /// The server's daemon, by its life's number.
    pub server: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AnswerBytes {
    more: u8,
    zero: [u8; 7],
    server: u64,
}

impl Answer {
    /// Begins a batch.
    pub fn put(self, batch: &mut Vec<u8>) {
        let Answer { more, server } = self;
        batch.extend_from_slice(AnswerBytes { more: more.into(), zero: [0; 7], server }.as_bytes());
    }

    /// Notes in a batch that more frames wait.
    pub fn set_more(batch: &mut [u8]) {
        if let Some(more) = batch.first_mut() {
            *more = 1;
        }
    }

    /// Takes the front from an answer; `None` for what cannot be.
    pub fn split(body: &[u8]) -> Option<(Answer, &[u8])> {
        let (AnswerBytes { more, zero, server }, frames) = AnswerBytes::read_from_prefix(body).ok()?;
        (more <= 1 && zero == [0; 7] && server != 0).then_some((Answer { more: more == 1, server }, frames))
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
    /// From a client: the request is complete. From a server: the response is, and what is in the frame ends it.
    End = 3,
    /// Messages of the other direction were consumed.
    Credit = 4,
    /// From a client: it no longer wants the stream.
    Cancel = 5,
}

impl FrameKind {
    /// Whether frames of this kind are numbered.
    pub fn is_ordered(self) -> bool {
        !matches!(self, FrameKind::Credit | FrameKind::Cancel)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FrameHeader {
    stream: u64,
    sequence: u32,
    kind: u8,
    flags: u8,
    flat_len: u16,
    body_len: u32,
    layout: u32,
    count: u32,
    zero: u32,
}

const METADATA: u8 = 1 << 0;
const BY_ENGINE: u8 = 1 << 1;

/// A frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The stream, by the client's number.
    pub stream: u64,
    /// Its number among the stream's ordered frames in this direction, from 0; else 0.
    pub sequence: u32,
    pub kind: FrameKind,
    /// The body begins with a metadata block.
    pub metadata: bool,
    /// In a server's end: the status is its engine's.
    pub by_engine: bool,
    pub layout: u32,
    /// Messages consumed; in a server's end the status.
    pub count: u32,
    pub flat: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame that says no more than its kind.
    pub const fn new(kind: FrameKind, stream: u64) -> Frame<'a> {
        Frame {
            stream,
            sequence: 0,
            kind,
            metadata: false,
            by_engine: false,
            layout: 0,
            count: 0,
            flat: &[],
            body: &[],
        }
    }

    /// A server's end with a status of its engine's own.
    pub fn status(stream: u64, sequence: u32, status: Code, why: &'a str) -> Frame<'a> {
        let count = status as u32;
        Frame { sequence, by_engine: true, count, body: why.as_bytes(), ..Frame::new(FrameKind::End, stream) }
    }

    /// Takes a frame from the front of `bytes`; `None` for what cannot be. Returns the frame, its bytes, and the rest.
    pub fn split(bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8], &'a [u8])> {
        let (header, rest) = FrameHeader::read_from_prefix(bytes).ok()?;
        let FrameHeader { stream, sequence, kind, flags, flat_len, body_len, layout, count, zero } = header;
        let kind = match kind {
            1 => FrameKind::Message,
            2 => FrameKind::ResponseHead,
            3 => FrameKind::End,
            4 => FrameKind::Credit,
            5 => FrameKind::Cancel,
            _ => return None,
        };
        let (flat, rest) =
            rest.split_at_checked(usize::from(flat_len)).filter(|(flat, _)| flat.len() <= FLAT_MAX)?;
        let (body, rest) = rest.split_at_checked(body_len as usize)?;
        if flags & !(METADATA | BY_ENGINE) != 0 || zero != 0 || (!kind.is_ordered() && sequence != 0) {
            return None;
        }
        let (metadata, by_engine) = (flags & METADATA != 0, flags & BY_ENGINE != 0);
        let whole = bytes.get(..bytes.len() - rest.len())?;
        Some((Frame { stream, sequence, kind, metadata, by_engine, layout, count, flat, body }, whole, rest))
    }

    /// Adds the frame to a batch.
    pub fn put(&self, batch: &mut Vec<u8>) {
        self.put_with(batch, self.body.len(), |out| out.copy_from_slice(self.body));
    }

    /// Adds a frame to a batch whose body `fill` writes.
    pub fn put_with(&self, batch: &mut Vec<u8>, body_len: usize, fill: impl FnOnce(&mut [u8])) {
        let &Frame { stream, sequence, kind, metadata, by_engine, layout, count, flat, .. } = self;
        let header = FrameHeader {
            stream,
            sequence,
            kind: kind as u8,
            flags: (u8::from(metadata) * METADATA) | (u8::from(by_engine) * BY_ENGINE),
            flat_len: flat.len() as u16,
            body_len: body_len as u32,
            layout,
            count,
            zero: 0,
        };
        batch.extend_from_slice(header.as_bytes());
        batch.extend_from_slice(flat);
        let start = batch.len();
        batch.resize(start + body_len, 0);
        if let Some(body) = batch.get_mut(start..) {
            fill(body);
        }
    }

    /// Bytes of a frame with parts of these lengths.
    pub const fn len(flat_len: usize, body_len: usize) -> usize {
        size_of::<FrameHeader>() + flat_len + body_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart_as_they_were_put_together() {
        let message =
            Frame { sequence: 9, layout: 7, flat: b"flat", ..Frame::new(FrameKind::Message, u64::MAX) };
        let mut batch = Vec::new();
        message.put_with(&mut batch, 5, |out| out.copy_from_slice(b"bytes"));
        let first_len = batch.len();
        Frame { count: 3, ..Frame::new(FrameKind::Credit, 1) }.put(&mut batch);
        Frame::status(2, 1, Code::Aborted, "why").put(&mut batch);
        let (first, whole, rest) = Frame::split(&batch).unwrap();
        assert_eq!((first.stream, first.sequence, first.layout), (u64::MAX, 9, 7));
        assert_eq!((first.flat, first.body, whole.len()), (&b"flat"[..], &b"bytes"[..], first_len));
        assert_eq!(first_len, Frame::len(4, 5));
        let (second, _, rest) = Frame::split(rest).unwrap();
        assert_eq!((second.kind, second.count), (FrameKind::Credit, 3));
        let (third, _, rest) = Frame::split(rest).unwrap();
        assert_eq!((third.count, third.by_engine, third.body), (Code::Aborted as u32, true, &b"why"[..]));
        assert!(rest.is_empty());
        for len in 0..first_len {
            assert!(Frame::split(&batch[..len]).is_none(), "{len} bytes");
        }
        for (at, value) in [(12, 0), (12, 6), (13, 4), (14, 193), (28, 1)] {
            let mut bad = batch.clone();
            bad[at] = value;
            assert!(Frame::split(&bad).is_none(), "byte {at}");
        }
        let mut numbered = Vec::new();
        Frame { sequence: 1, ..Frame::new(FrameKind::Credit, 1) }.put(&mut numbered);
        assert!(Frame::split(&numbered).is_none(), "credits are not numbered");
    }

    #[test]
    fn exchanges_are_told_from_binds() {
        let (mut batch, front) = (Vec::new(), Front { client: 3, server: 0 });
        front.put(&mut batch);
        batch.push(7);
        assert_eq!(Front::split(&batch), Some(Some((front, &[7][..]))));
        assert_eq!(Front::split(&batch[..9]), Some(None));
        assert_eq!(Front::split(&[0x0a, 1, b'/']), None);
        batch[1] = 2;
        assert_eq!(Front::split(&batch), Some(None));
    }

    #[test]
    fn answers_and_heads_are_checked() {
        let (mut batch, answer) = (Vec::new(), Answer { more: false, server: 5 });
        answer.put(&mut batch);
        assert_eq!(Answer::split(&batch), Some((answer, &[][..])));
        Answer::set_more(&mut batch);
        assert!(Answer::split(&batch).unwrap().0.more);
        assert!(Answer::split(b"OK, says some policy").is_none());
        assert!(Answer::split(&[]).is_none());
        assert!(Head::split(&[0; HEAD_LEN - 1]).is_none());
        let bare = Head { life: 1, stream: 1, flags: BARE };
        assert!(Head::split(bare.as_bytes()).is_none(), "without a message, and more to come");
    }
}
