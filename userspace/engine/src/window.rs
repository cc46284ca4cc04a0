//! What one direction of a stream may have under way: messages that were written and that its reader has not consumed.

use std::collections::VecDeque;
use tollfree_ring::{STREAM_BYTES, STREAM_MESSAGES, Submission};
use tollfree_schema::Streaming;

/// Messages that an application has written to a stream and that its reader has not consumed.
#[derive(Debug, Default)]
pub struct Written {
    lengths: VecDeque<u32>,
    bytes: usize,
    /// Messages whose room is free, and their writer yet to be told.
    pub taken: u32,
    /// What was written before it was known where to.
    pub early: Vec<Submission>,
    /// No message follows.
    pub ended: bool,
}

impl Written {
    /// For a call with a first message of `len` bytes, where its method streams.
    pub fn opening(streaming: Streaming, len: u32, ended: bool) -> Option<Box<Written>> {
        (!streaming.is_unary()).then(|| Box::new(Written::after_first(len, ended)))
    }

    /// For a stream whose first message came with its call.
    pub fn after_first(len: u32, ended: bool) -> Written {
        Written { lengths: VecDeque::from([len]), bytes: len as usize, ended, ..Written::default() }
    }

    /// Counts a message. False: there was no credit for it.
    pub fn add(&mut self, len: u32) -> bool {
        let allowed = self.lengths.len() < STREAM_MESSAGES && self.bytes < STREAM_BYTES && !self.ended;
        if allowed {
            self.lengths.push_back(len);
            self.bytes += len as usize;
        }
        allowed
    }

    /// The oldest `count` messages were taken, or as many as there are; returns how many.
    pub fn credit(&mut self, count: u32) -> u32 {
        let taken = self.lengths.len().min(count as usize);
        self.bytes -= self.lengths.drain(..taken).map(|len| len as usize).sum::<usize>();
        taken as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_without_credit_is_noticed() {
        let mut written = Written::default();
        for _ in 0..STREAM_MESSAGES {
            assert!(written.add(1));
        }
        assert!(!written.add(1), "too many messages");
        assert_eq!(written.credit(10), 10);
        assert!(written.add(STREAM_BYTES as u32), "a message may go beyond");
        assert!(!written.add(1), "too many bytes");
        assert_eq!(written.credit(u32::MAX), STREAM_MESSAGES as u32 - 9);
        assert!(written.add(1));
        written.ended = true;
        assert!(!written.add(1), "after the end");
    }
}
