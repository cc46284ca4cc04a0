//! One end of a stream as an application sees it: what it may write, what it has to read, and that both are as they must be.

use super::random::Random;
use std::collections::VecDeque;
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, Flags, STREAM_BYTES, STREAM_MESSAGES, Span, Submission};

/// The bytes of a message: they tell where it belongs.
pub fn message(id: u32, direction: u8, index: u32) -> Vec<u8> {
    let mut random = Random::new(u64::from(id) << 34 | u64::from(direction) << 32 | u64::from(index));
    let len = match random.below(40) {
        0 => random.below(60_000),
        1..10 => random.below(3000),
        _ => random.below(100),
    };
    let mut bytes = [id.to_le_bytes(), index.to_le_bytes()].concat();
    bytes.push(direction);
    bytes.resize(9 + len as usize, (index as u8) ^ direction);
    bytes
}

/// The stream that a message belongs to.
pub fn id_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// Writes one direction of a stream.
#[derive(Debug, Default)]
pub struct Writer {
    id: u32,
    direction: u8,
    /// Messages there are, and how many were written.
    pub total: u32,
    pub written: u32,
    window: VecDeque<usize>,
    window_bytes: usize,
    spans: VecDeque<Span>,
}

impl Writer {
    /// Of so many messages.
    pub fn new(id: u32, direction: u8, total: u32) -> Writer {
        Writer { id, direction, total, ..Writer::default() }
    }

    /// Whether there is credit for another message.
    pub fn is_open(&self) -> bool {
        self.window.len() < STREAM_MESSAGES && self.window_bytes < STREAM_BYTES
    }

    /// Counts what was written: with its call, or as a message.
    pub fn count(&mut self, span: Span) {
        self.window.push_back(span.len as usize);
        self.window_bytes += span.len as usize;
        self.spans.push_back(span);
    }

    /// Writes the next message, if there is room.
    pub fn write(&mut self, port: &mut Port, op: AppOp, call: u64, layout: u32) -> bool {
        let bytes = message(self.id, self.direction, self.written);
        let Some(body) = port.alloc(bytes.len() as u32) else { return false };
        assert!(port.write(body, 0, &bytes));
        let submission = Submission { layout, body, ..Submission::new(op, call) };
        if port.push(&submission).is_err() {
            port.free(body);
            return false;
        }
        self.written += 1;
        self.count(body);
        true
    }

    /// The reader has consumed messages.
    pub fn credit(&mut self, count: u32) {
        assert!(count as usize <= self.window.len(), "credit for more than was written");
        for len in self.window.drain(..count as usize) {
            self.window_bytes -= len;
        }
    }

    /// The room of the oldest messages is free.
    pub fn taken(&mut self, port: &mut Port, count: u32) {
        assert!(count as usize <= self.spans.len(), "more was taken than was written");
        self.spans.drain(..count as usize).for_each(|span| free(port, span));
    }

    /// The stream is over.
    pub fn end(&mut self, port: &mut Port) {
        self.spans.drain(..).for_each(|span| free(port, span));
    }
}

/// Reads one direction of a stream.
#[derive(Debug, Default)]
pub struct Reader {
    pub id: u32,
    direction: u8,
    pub read: u32,
    unconsumed: VecDeque<usize>,
    unconsumed_bytes: usize,
}

impl Reader {
    pub fn new(id: u32, direction: u8) -> Reader {
        Reader { id, direction, ..Reader::default() }
    }

    /// A message has come.
    pub fn take(&mut self, bytes: &[u8]) {
        let expected = message(self.id, self.direction, self.read);
        assert!(bytes == expected, "message {} of stream {} is another", self.read, self.id);
        self.read += 1;
        self.hold(bytes.len());
    }

    /// Something has come that takes credit.
    pub fn hold(&mut self, len: usize) {
        assert!(
            self.unconsumed.len() < STREAM_MESSAGES && self.unconsumed_bytes < STREAM_BYTES,
            "more has come than there was credit for"
        );
        self.unconsumed.push_back(len);
        self.unconsumed_bytes += len;
    }

    /// Consumes some of what has come.
    pub fn consume(&mut self, random: &mut Random, port: &mut Port, op: AppOp, call: u64) {
        let count = random.below(self.unconsumed.len() as u64 + 1) as u32;
        if count == 0 || port.push(&Submission { count, ..Submission::new(op, call) }).is_err() {
            return;
        }
        for len in self.unconsumed.drain(..count as usize) {
            self.unconsumed_bytes -= len;
        }
    }
}

fn free(port: &mut Port, span: Span) {
    if span.len > 0 {
        port.free(span);
    }
}

/// What a first message says of the rest.
pub fn opening(last: bool) -> Flags {
    Flags { metadata: false, last, bare: false }
}
