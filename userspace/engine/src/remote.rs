//! One end of a stream to another host: what its application has written and no batch has taken yet, and the order in which
//! the other end's frames are to be delivered. The same at client and server.

use crate::frames::{Frame, FrameKind};
use crate::window::Written;
use std::collections::{BTreeMap, VecDeque};
use tollfree_ring::daemon::Port;
use tollfree_ring::{AppOp, STREAM_BYTES, STREAM_MESSAGES, Submission};
use tollfree_wire::Code;
use tollfree_wire::header::{FLAT_MAX, MESSAGE_MAX};

/// Bytes of frames that one call carries, unless a single frame is longer.
pub const BATCH: usize = 64 << 10;
/// A batch of so few bytes takes one frame of any length.
const BEGINNING: usize = 512;
/// Bytes that one stream adds to a batch before it is others' turn.
const SHARE: usize = 16 << 10;
/// The longest message that one frame carries, flat block and body together, in bytes: what surrounds it fits, too.
const MESSAGE_LEN_MAX: usize = MESSAGE_MAX as usize - 2 * BEGINNING;
/// Frames that may arrive before an earlier one does: as many as there is credit for, a beginning and an end.
const EARLY_MAX: u32 = STREAM_MESSAGES as u32 + 2;

/// Bytes of such frames but for the longest: as many as there is credit for, and their headers.
const EARLY_BYTES: usize = STREAM_BYTES + EARLY_MAX as usize * Frame::len(0, 0);

/// One end of a stream to another host.
#[derive(Debug, Default)]
pub struct Remote {
    /// Which pair of hosts it connects: a place in `Exchanges::made` at a client, a key of `Exchanges::served` at a server.
    pub link: u64,
    /// The stream, by the client's number.
    pub stream: u64,
    /// Messages that the application has written. They stay in its region until a batch takes them.
    queue: VecDeque<Submission>,
    /// What comes behind them.
    finish: Option<Finish>,
    /// Messages of the other end that were consumed here since it was told last.
    credit: u32,
    /// The number of the next ordered frame.
    next: u32,
    /// Its link knows that it has something to send.
    pub listed: bool,
    /// What the other end has written and the application here has not consumed.
    pub arrived: Written,
    /// The number of the frame that is delivered next.
    expected: u32,
    /// Frames that overtook others, by their numbers.
    early: BTreeMap<u32, Vec<u8>>,
    /// Bytes of these, and of the longest that there was since there were none.
    early_bytes: usize,
    early_longest: usize,
}

/// What ends one direction of a stream.
#[derive(Debug)]
enum Finish {
    /// The request is complete.
    Request,
    /// The response is.
    Reply(Box<Answered>),
}

/// A response's end: what its application has answered, with the flat block as policies have left it.
#[derive(Debug)]
struct Answered {
    submission: Submission,
    flat: [u8; FLAT_MAX],
    flat_len: usize,
}

/// What a batch has taken of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Messages.
    pub messages: u32,
    /// The response's end.
    pub ended: bool,
    /// Something is left.
    pub more: bool,
}

/// What to do with an ordered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Deliver it.
    Now,
    /// It is kept until those before it have come.
    Later,
    /// It cannot be.
    Never,
}

impl Remote {
    /// A stream that begins; `arrived` is what has come with the call that opens it.
    pub fn new(link: u64, stream: u64, arrived: Written) -> Box<Remote> {
        Box::new(Remote { link, stream, arrived, ..Remote::default() })
    }

    /// Queues a message, or a response's beginning.
    ///
    /// # Errors
    /// It is too long to be carried.
    pub fn push(&mut self, submission: &Submission) -> Result<(), (Code, String)> {
        let len = submission.flat.len as usize + submission.body.len as usize;
        if len > MESSAGE_LEN_MAX {
            let why = format!(
                "a message of the stream has {len} bytes; at most {MESSAGE_LEN_MAX} are carried between hosts"
            );
            return Err((Code::ResourceExhausted, why));
        }
        self.queue.push_back(*submission);
        Ok(())
    }

    /// The request is complete.
    pub fn finish_request(&mut self) {
        self.finish.get_or_insert(Finish::Request);
    }

    /// The response is complete. False: it was already.
    pub fn finish_response(&mut self, submission: &Submission, answer: &[u8]) -> bool {
        if self.finish.is_some() {
            return false;
        }
        let mut flat = [0; FLAT_MAX];
        let flat_len = answer.len().min(FLAT_MAX);
        flat[..flat_len].copy_from_slice(&answer[..flat_len]);
        self.finish = Some(Finish::Reply(Box::new(Answered { submission: *submission, flat, flat_len })));
        true
    }

    /// Whether the application has answered.
    pub fn is_answered(&self) -> bool {
        matches!(self.finish, Some(Finish::Reply(_)))
    }

    /// The application has consumed messages.
    pub fn consume(&mut self, count: u32) {
        self.credit += self.arrived.credit(count);
    }

    /// Whether there is anything to send.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.credit > 0 || self.finish.is_some()
    }

    /// The number of a frame that follows what batches have taken.
    pub fn next_sequence(&self) -> u32 {
        self.next
    }

    /// Adds frames to a batch, its share or the batch's rest. Flat blocks are judged by `check` as they leave.
    ///
    /// # Errors
    /// What `check` says.
    pub fn write(
        &mut self,
        batch: &mut Vec<u8>,
        port: &Port,
        check: impl Fn(u32, &[u8]) -> Result<(), (Code, String)>,
    ) -> Result<Taken, (Code, String)> {
        let (stream, mut taken) = (self.stream, Taken::default());
        if self.credit > 0 {
            let count = std::mem::take(&mut self.credit);
            Frame { count, ..Frame::new(FrameKind::Credit, stream) }.put(batch);
        }
        let start = batch.len();
        let fits = |batch: &Vec<u8>, flat: usize, body: usize| {
            let has_room = batch.len() - start < SHARE && batch.len() + Frame::len(flat, body) <= BATCH;
            has_room || batch.len() <= BEGINNING
        };
        while let Some(submission) = self.queue.front() {
            let &Submission { op, flags, layout, flat: span, body, .. } = submission;
            if !fits(batch, span.len as usize, body.len as usize) {
                taken.more = true;
                return Ok(taken);
            }
            let mut flat = [0; FLAT_MAX];
            let flat = &mut flat[..span.len as usize];
            port.read(span, 0, flat);
            let kind = match op {
                AppOp::ResponseHead => FrameKind::ResponseHead,
                _ => FrameKind::Message,
            };
            if kind == FrameKind::Message {
                check(layout, flat)?;
            }
            let (sequence, metadata) = (self.next, flags.metadata);
            Frame { sequence, metadata, layout, flat, ..Frame::new(kind, stream) }.put_with(
                batch,
                body.len as usize,
                |out| port.read(body, 0, out),
            );
            self.next = self.next.wrapping_add(1);
            self.queue.pop_front();
            taken.messages += 1;
        }
        let end = Frame { sequence: self.next, ..Frame::new(FrameKind::End, stream) };
        match self.finish.take() {
            None => return Ok(taken),
            Some(Finish::Request) => end.put(batch),
            Some(Finish::Reply(answered)) => {
                let Answered { submission: Submission { status, flags, layout, body, .. }, flat, flat_len } =
                    &*answered;
                if !fits(batch, *flat_len, body.len as usize) {
                    self.finish = Some(Finish::Reply(answered));
                    taken.more = true;
                    return Ok(taken);
                }
                let (metadata, count) = (flags.metadata, *status as u32);
                Frame { metadata, layout: *layout, count, flat: &flat[..*flat_len], ..end }.put_with(
                    batch,
                    body.len as usize,
                    |out| port.read(*body, 0, out),
                );
                taken.ended = true;
            }
        }
        self.next = self.next.wrapping_add(1);
        Ok(taken)
    }

    /// When to deliver an ordered frame, of which `whole` is all.
    pub fn order(&mut self, frame: &Frame<'_>, whole: &[u8]) -> Turn {
        let sequence = frame.sequence;
        // As credit goes: the last message may go beyond, whichever comes last; an end takes none.
        let fits =
            self.early_bytes.saturating_sub(self.early_longest) < EARLY_BYTES || frame.kind == FrameKind::End;
        match sequence.wrapping_sub(self.expected) {
            0 => {
                self.expected = self.expected.wrapping_add(1);
                Turn::Now
            }
            1..=EARLY_MAX if fits && !self.early.contains_key(&sequence) => {
                self.early_bytes += whole.len();
                self.early_longest = self.early_longest.max(whole.len());
                self.early.insert(sequence, whole.to_vec());
                Turn::Later
            }
            _ => Turn::Never,
        }
    }

    /// Bytes of frames that are kept.
    pub fn kept(&self) -> usize {
        self.early_bytes
    }

    /// A frame that was kept and is delivered now.
    pub fn next_kept(&mut self) -> Option<Vec<u8>> {
        let whole = self.early.remove(&self.expected)?;
        self.early_bytes -= whole.len();
        if self.early.is_empty() {
            self.early_longest = 0;
        }
        self.expected = self.expected.wrapping_add(1);
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a frame with this number and so long a body come.
    fn order(remote: &mut Remote, kind: FrameKind, sequence: u32, len: usize) -> Turn {
        let mut whole = Vec::new();
        Frame { sequence, ..Frame::new(kind, 1) }.put_with(&mut whole, len, |body| body.fill(sequence as u8));
        let (frame, ..) = Frame::split(&whole).unwrap();
        remote.order(&frame, &whole)
    }

    fn next_kept(remote: &mut Remote) -> Option<u32> {
        remote.next_kept().map(|whole| Frame::split(&whole).unwrap().0.sequence)
    }

    #[test]
    fn frames_are_delivered_in_order_and_few_are_kept() {
        use FrameKind::{End, Message};
        let mut remote = Remote::new(0, 1, Written::default());
        assert_eq!(order(&mut remote, Message, 0, 1), Turn::Now);
        assert_eq!(order(&mut remote, Message, 0, 1), Turn::Never, "again");
        assert_eq!(order(&mut remote, Message, 3, 1), Turn::Later);
        assert_eq!(order(&mut remote, Message, 3, 1), Turn::Never, "again");
        assert_eq!(order(&mut remote, Message, 2, 1), Turn::Later);
        assert_eq!(next_kept(&mut remote), None);
        assert_eq!(order(&mut remote, Message, 1, 1), Turn::Now);
        assert_eq!(next_kept(&mut remote), Some(2));
        assert_eq!(next_kept(&mut remote), Some(3));
        assert_eq!(next_kept(&mut remote), None);
        assert_eq!(remote.early_bytes, 0);
        assert_eq!(order(&mut remote, Message, 4 + EARLY_MAX + 1, 1), Turn::Never, "too far ahead");
        assert_eq!(order(&mut remote, Message, 8, STREAM_BYTES), Turn::Later, "the last may go beyond");
        assert_eq!(
            order(&mut remote, Message, 5, STREAM_BYTES / 2),
            Turn::Later,
            "one before it comes later"
        );
        assert_eq!(order(&mut remote, Message, 6, STREAM_BYTES), Turn::Later);
        assert_eq!(order(&mut remote, Message, 7, 1), Turn::Never, "more is kept than there was credit for");
        assert_eq!(order(&mut remote, End, 9, 100), Turn::Later);
    }
}
