//! The client's end of a stream: messages out as the daemon takes them, messages in as the application consumes them.

use super::{Link, News, Pending, Slot, Stage, State};
use crate::Status;
use crate::attach::{free, write};
use crate::flow::{Consumed, Window};
use crate::outgoing::Outgoing;
use crate::received::Received;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tollfree_ring::{AppOp, DaemonOp, Delivery, Flags, Span, Submission};

/// What a slot knows of its call's stream.
#[derive(Debug, Default)]
pub struct ClientStream {
    /// The metadata with which the response began.
    head: Option<Received>,
    /// Messages that came and were not taken yet; as many as the window allows.
    inbox: VecDeque<Received>,
    consumed: Consumed,
    /// The room of messages that the daemon has not taken, oldest first.
    sent: VecDeque<(Span, Span)>,
    window: Window,
    /// Who wants to send more.
    writer: Option<Waker>,
    /// Why this end can't go on.
    failed: Option<Status>,
    /// The call is over: nothing may be sent.
    over: bool,
}

impl ClientStream {
    /// Takes what was delivered for the call, but for its end.
    pub fn take(&mut self, delivery: &Delivery<'_>) -> Option<News> {
        match delivery.op {
            DaemonOp::ResponseHead => {
                let head = self.head.insert(Received::new(delivery));
                // It is consumed where it is: nobody has to ask for it.
                self.consumed.add(head.bytes.len());
            }
            DaemonOp::ResponseMessage => self.inbox.push_back(Received::new(delivery)),
            DaemonOp::RequestCredit => {
                self.window.credit(delivery.count);
                return Some(News::Room(delivery.call));
            }
            DaemonOp::RequestTaken => return Some(News::Taken(delivery.call, delivery.count)),
            _ => return None,
        }
        Some(News::Arrived(delivery.call))
    }

    /// The call is over; returns the messages whose room is free.
    pub fn end(&mut self) -> VecDeque<(Span, Span)> {
        self.over = true;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        std::mem::take(&mut self.sent)
    }
}

impl State {
    /// Wakes the reader of a stream, unless it is `own`.
    pub fn arrived(&mut self, cookie: u64, own: u64) {
        if cookie != own
            && let Some(waker) = self.slot(cookie).and_then(|slot| slot.waker.take())
        {
            waker.wake();
        }
    }

    /// The daemon has taken the oldest messages of a stream.
    pub fn taken(&mut self, cookie: u64, count: u32) {
        let Some(stream) = self.slot(cookie).and_then(|slot| slot.stream.as_mut()) else { return };
        let count = stream.sent.len().min(count as usize);
        let messages = stream.sent.drain(..count).collect();
        self.free_messages(messages);
    }

    /// More of a stream may be written.
    pub fn wake_writer(&mut self, cookie: u64) {
        if let Some(writer) = self.slot(cookie).and_then(|slot| slot.stream.as_mut()?.writer.take()) {
            writer.wake();
        }
    }

    /// Frees the room of a stream's messages.
    pub fn free_messages(&mut self, messages: VecDeque<(Span, Span)>) {
        for (flat, body) in messages {
            self.stream_room.remove(&self.port, len(flat, body));
            free(&mut self.port, flat, body);
        }
    }

    /// Tells the daemon what of a stream was consumed since it was told last.
    pub fn give_credit(&mut self, cookie: u64) {
        let Some(stream) = self.slot(cookie).and_then(|slot| slot.stream.as_mut()) else { return };
        let count = stream.consumed.settle();
        if count > 0 && !stream.over {
            self.send(Submission { count, ..Submission::new(AppOp::ResponseCredit, cookie) });
        }
    }

    /// Writes a message into the ring. `None`: no room now.
    fn write_message(&mut self, cookie: u64, outgoing: &Outgoing) -> Result<Option<()>, Status> {
        let Some(stream) = self.slot(cookie).and_then(|slot| slot.stream.as_mut()) else {
            return Err(over());
        };
        if !stream.window.is_open() {
            return Ok(None);
        }
        if !self.stream_room.admits(&self.port, outgoing.len()) {
            return Ok(None);
        }
        let Some((flat, body)) = write(&mut self.port, outgoing)? else { return Ok(None) };
        let (flags, layout) = (outgoing.flags(), outgoing.layout);
        let message =
            Submission { flags, layout, flat, body, ..Submission::new(AppOp::RequestMessage, cookie) };
        if self.port.push(&message).is_err() {
            free(&mut self.port, flat, body);
            return Ok(None);
        }
        self.port.publish();
        self.hold(cookie, flat, body);
        Ok(Some(()))
    }

    /// Takes note of a message that the daemon has.
    fn hold(&mut self, cookie: u64, flat: Span, body: Span) {
        self.stream_room.add(&self.port, len(flat, body));
        if let Some(stream) = self.slot(cookie).and_then(|slot| slot.stream.as_mut()) {
            stream.window.count(len(flat, body));
            stream.sent.push_back((flat, body));
        }
    }
}

impl Link {
    /// Begins a call that streams with its first message, or, where there is none, with the metadata alone.
    pub async fn open(
        self: &Arc<Self>,
        method: u32,
        first: &Outgoing,
        flags: Flags,
        deadline_us: Option<u32>,
    ) -> Result<Reader, Status> {
        let flags = Flags { metadata: first.flags().metadata, ..flags };
        let stream = Some(Box::<ClientStream>::default());
        let cookie = self.submit(method, first, flags, deadline_us, stream).await?;
        let mut state = self.state();
        // The first message is one of the stream's: its room comes back as theirs does.
        if let Some(slot) = state.slot(cookie).filter(|slot| slot.stage == Stage::Waiting) {
            let (flat, body) = (std::mem::take(&mut slot.flat), std::mem::take(&mut slot.body));
            state.hold(cookie, flat, body);
        }
        drop(state);
        Ok(Reader { pending: Pending { link: self.clone(), cookie, polls: 0, done: false } })
    }

    /// Sends one more message of a stream when there is room.
    ///
    /// # Errors
    /// When the call is over, or the message can't be sent; the reader knows why.
    pub async fn send_message(&self, cookie: u64, outgoing: &Outgoing) -> Result<(), Status> {
        poll_fn(|context| self.poll_message(context, cookie, outgoing)).await
    }

    fn poll_message(
        &self,
        context: &mut Context<'_>,
        cookie: u64,
        outgoing: &Outgoing,
    ) -> Poll<Result<(), Status>> {
        let mut state = self.state();
        let largest = state.port.largest_body();
        let open = |slot: &Slot| {
            slot.stage == Stage::Waiting && slot.stream.as_ref().is_some_and(|stream| !stream.over)
        };
        if state.dead.is_some() || !state.slot(cookie).is_some_and(|slot| open(slot)) {
            return Poll::Ready(Err(over()));
        }
        if outgoing.body_len > largest {
            let why = format!("the message has {} bytes; the rings take {largest}", outgoing.body_len);
            return Poll::Ready(Err(Status::resource_exhausted(why)));
        }
        match state.write_message(cookie, outgoing) {
            Ok(Some(())) => Poll::Ready(Ok(())),
            Ok(None) => {
                let waker = context.waker();
                if let Some(stream) = state.slot(cookie).and_then(|slot| slot.stream.as_mut()) {
                    stream.writer = Some(waker.clone());
                }
                state.room.push(waker.clone());
                state.park();
                Poll::Pending
            }
            Err(status) => Poll::Ready(Err(status)),
        }
    }

    /// No message follows.
    pub fn end_request(&self, cookie: u64) {
        let mut state = self.state();
        if state.slot(cookie).is_some_and(|slot| slot.stage == Stage::Waiting) {
            state.send(Submission::new(AppOp::RequestEnd, cookie));
        }
    }

    /// This end can't go on: the reader gets `status`.
    pub fn fail_request(&self, cookie: u64, status: Status) {
        let mut state = self.state();
        let Some(slot) = state.slot(cookie).filter(|slot| slot.stage == Stage::Waiting) else { return };
        if let Some(stream) = &mut slot.stream {
            stream.failed = Some(status);
        }
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

/// Reads a stream's responses. Dropping it cancels the call.
pub struct Reader {
    pending: Pending<Arc<Link>>,
}

/// What a stream's reader gets.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Received),
    /// The last there is: how the call ended.
    End(Received),
}

impl Reader {
    /// The call, for whoever sends its messages.
    pub fn cookie(&self) -> u64 {
        self.pending.cookie
    }

    /// The metadata that the response began with; `None` where it ended without.
    pub async fn head(&mut self) -> Result<Option<Received>, Status> {
        let ready = |stream: &ClientStream| stream.head.is_some() || stream.failed.is_some();
        poll_fn(|context| self.poll(context, ready)).await;
        let mut state = self.pending.link.state();
        let slot = state.slot(self.pending.cookie);
        let Some(stream) = slot.and_then(|slot| slot.stream.as_mut()) else { return Ok(None) };
        stream.failed.clone().map_or_else(|| Ok(stream.head.take()), Err)
    }

    /// The next message, or the end; never again after that.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Item, Status>> {
        let ready = |stream: &ClientStream| !stream.inbox.is_empty() || stream.failed.is_some();
        std::task::ready!(self.poll(context, ready));
        let cookie = self.pending.cookie;
        let mut state = self.pending.link.state();
        let Some(slot) = state.slot(cookie) else { return Poll::Ready(Err(over())) };
        let Some(stream) = &mut slot.stream else { return Poll::Ready(Err(over())) };
        if let Some(message) = stream.inbox.pop_front() {
            if stream.consumed.add(message.bytes.len()) {
                state.give_credit(cookie);
            }
            return Poll::Ready(Ok(Item::Message(message)));
        }
        if let Some(status) = &stream.failed {
            return Poll::Ready(Err(status.clone()));
        }
        let received = std::mem::take(&mut slot.received);
        state.vacate(cookie, Received::default());
        drop(state);
        self.pending.done = true;
        Poll::Ready(Ok(Item::End(received)))
    }

    fn poll(&mut self, context: &mut Context<'_>, ready: impl Fn(&ClientStream) -> bool) -> Poll<()> {
        let polled =
            self.pending.poll(context, |slot| slot.stream.as_ref().is_some_and(|stream| ready(stream)));
        if polled.is_ready() {
            self.pending.polls = 0;
        }
        polled
    }
}

fn len(flat: Span, body: Span) -> usize {
    flat.len as usize + body.len as usize
}

fn over() -> Status {
    Status::cancelled("the call is over")
}
