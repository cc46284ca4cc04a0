//! Flow control of streams: what was consumed and not yet credited, how much may be sent, what waits to be read.

use crate::Status;
use crate::received::Received;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tollfree_ring::{STREAM_BYTES, STREAM_MESSAGES};

/// Credit is given for this many messages or bytes at once: a fraction of the window, so that the writer never waits
/// for it while the reader keeps up. What is less is credited when the reader has nothing else to do.
const CREDIT_MESSAGES: u32 = STREAM_MESSAGES as u32 / 4;
const CREDIT_BYTES: usize = STREAM_BYTES / 4;

/// Messages consumed that no credit was given for.
#[derive(Debug, Default)]
pub struct Consumed {
    messages: u32,
    bytes: usize,
}

impl Consumed {
    /// Counts a message. True when it is time for credit.
    pub fn add(&mut self, bytes: usize) -> bool {
        self.messages += 1;
        self.bytes += bytes;
        self.messages >= CREDIT_MESSAGES || self.bytes >= CREDIT_BYTES
    }

    /// The messages to give credit for; there are none left afterwards.
    pub fn settle(&mut self) -> u32 {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}

/// Messages of a streaming request on their way from the serving task to a handler.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<InboxState>);

#[derive(Debug, Default)]
struct InboxState {
    messages: VecDeque<Received>,
    consumed: Consumed,
    /// No more will come: the request is complete, or why it is not.
    end: Option<Result<(), Status>>,
    /// The handler has dropped its stream: what comes is nobody's.
    deaf: bool,
    reader: Option<Waker>,
}

impl Inbox {
    /// An inbox into which nothing will come.
    pub fn ended() -> Inbox {
        let inbox = Inbox::default();
        inbox.end(Ok(()));
        inbox
    }

    fn state(&self) -> MutexGuard<'_, InboxState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message.
    pub fn push(&self, message: Received) {
        let mut state = self.state();
        if state.deaf {
            state.consumed.add(0);
        } else {
            state.messages.push_back(message);
        }
        wake(state.reader.take());
    }

    /// No more will come.
    pub fn end(&self, how: Result<(), Status>) {
        let mut state = self.state();
        state.end.get_or_insert(how);
        wake(state.reader.take());
    }

    /// The next message, `None` after the last. The flag says that it is time to ask [`Inbox::settle`].
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<(Option<Result<Received, Status>>, bool)> {
        let mut state = self.state();
        if let Some(message) = state.messages.pop_front() {
            let credit = state.consumed.add(message.bytes.len());
            return Poll::Ready((Some(Ok(message)), credit));
        }
        match &mut state.end {
            Some(Ok(())) => Poll::Ready((None, false)),
            Some(Err(status)) => {
                let status = status.clone();
                state.end = Some(Ok(()));
                Poll::Ready((Some(Err(status)), false))
            }
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The first message came with the request itself, and is consumed.
    pub fn consumed_first(&self, bytes: usize) {
        self.state().consumed.add(bytes);
    }

    /// The messages to give credit for; there are none left afterwards.
    pub fn settle(&self) -> u32 {
        self.state().consumed.settle()
    }

    /// The credit could not be given now.
    pub fn unsettle(&self, messages: u32) {
        self.state().consumed.messages += messages;
    }

    /// The handler reads no more.
    pub fn close(&self) {
        let mut state = self.state();
        state.deaf = true;
        while let Some(message) = state.messages.pop_front() {
            state.consumed.add(message.bytes.len());
        }
    }
}

/// Messages that are written and not consumed.
#[derive(Debug, Default)]
pub struct Window {
    lengths: VecDeque<usize>,
    bytes: usize,
}

impl Window {
    /// Whether another message may be written.
    pub fn is_open(&self) -> bool {
        self.lengths.len() < STREAM_MESSAGES && self.bytes < STREAM_BYTES
    }

    /// Counts a message.
    pub fn count(&mut self, bytes: usize) {
        self.lengths.push_back(bytes);
        self.bytes += bytes;
    }

    /// The oldest `count` messages were consumed.
    pub fn credit(&mut self, count: u32) {
        let count = self.lengths.len().min(count as usize);
        self.bytes -= self.lengths.drain(..count).sum::<usize>();
    }
}

/// A window whose writer is another task than the one that hears of credit.
#[derive(Debug, Default)]
pub struct SharedWindow(Mutex<(Window, Option<Waker>)>);

impl SharedWindow {
    fn state(&self) -> MutexGuard<'_, (Window, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a message may be written, and counts it.
    pub fn poll_acquire(&self, context: &mut Context<'_>, bytes: usize) -> Poll<()> {
        let mut state = self.state();
        let (window, writer) = &mut *state;
        if !window.is_open() {
            *writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        window.count(bytes);
        Poll::Ready(())
    }

    /// Counts a message that need not wait.
    pub fn count(&self, bytes: usize) {
        self.state().0.count(bytes);
    }

    /// The oldest `count` messages were consumed.
    pub fn credit(&self, count: u32) {
        let mut state = self.state();
        state.0.credit(count);
        wake(state.1.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
