//! The server's end of streams: what handlers read and write, in order, as the daemon takes it.

use super::desk::{Answer, Desk};
use super::handler::panicked;
use crate::Status;
use crate::attach::{free, write};
use crate::flow::{Inbox, SharedWindow};
use crate::outgoing::Outgoing;
use crate::received::Received;
use crate::service::Responses;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use tollfree_ring::{AppOp, Span, Submission};
use tollfree_wire::Code;

/// A call that streams.
#[derive(Default)]
pub struct ServerStream {
    /// What the handler reads, where the request streams.
    inbox: Option<Arc<Inbox>>,
    /// What the handler may write.
    window: Arc<SharedWindow>,
    /// The room of messages that the daemon has not taken, oldest first.
    sent: VecDeque<(Span, Span)>,
    /// What found no room, or comes after what found none.
    waiting: VecDeque<Part>,
}

/// A part of a response.
enum Part {
    Head(Outgoing),
    Message(Outgoing),
    End(Code, Outgoing),
}

impl ServerStream {
    /// For a request that streams.
    pub fn reading(inbox: Arc<Inbox>) -> ServerStream {
        ServerStream { inbox: Some(inbox), ..ServerStream::default() }
    }

    /// One more message of the request.
    pub fn arrived(&self, message: Received) {
        if let Some(inbox) = &self.inbox {
            inbox.push(message);
        }
    }

    /// The caller has consumed messages of the response.
    pub fn credited(&self, count: u32) {
        self.window.credit(count);
    }

    /// The request is complete, or will not be.
    pub fn requests_end(&self, how: Result<(), Status>) {
        if let Some(inbox) = &self.inbox {
            inbox.end(how);
        }
    }
}

impl Desk {
    /// A handler's response begins: sends its head, and has a task drive its messages.
    pub(super) fn respond_streaming(&mut self, handle: u64, head: Outgoing, responses: Responses) {
        let stream = self.streams.entry(handle).or_default();
        stream.window.count(head.len());
        let window = stream.window.clone();
        self.send_part(handle, Part::Head(head));
        let answers = self.answers.clone();
        let task = tokio::spawn(async move {
            let result = drive(responses, &window, |outgoing| {
                answers.send(Answer::Message { handle, outgoing }).is_ok()
            });
            let result = result.await;
            // The desk is gone when the server has ended: nobody is left to answer.
            let _ = answers.send(Answer::End { handle, result });
        });
        self.running.insert(handle, task.abort_handle());
    }

    /// One more message of a response.
    pub(super) fn send_message(&mut self, handle: u64, outgoing: Outgoing) {
        self.send_part(handle, Part::Message(outgoing));
    }

    /// The end of a stream's response.
    pub(super) fn send_end(&mut self, handle: u64, status: Code, outgoing: Outgoing) {
        self.send_part(handle, Part::End(status, outgoing));
    }

    fn send_part(&mut self, handle: u64, part: Part) {
        let Some(stream) = self.streams.get_mut(&handle) else { return };
        stream.waiting.push_back(part);
        if stream.waiting.len() == 1 {
            self.stalled.push_back(handle);
        }
        self.send_stalled();
    }

    /// Sends what has found no room so far. True if any of it went.
    pub(super) fn send_stalled(&mut self) -> bool {
        let mut any = false;
        for _ in 0..self.stalled.len() {
            let Some(handle) = self.stalled.pop_front() else { break };
            while let Some(part) = self.next_part(handle) {
                if let Some(part) = self.try_part(handle, part) {
                    if let Some(stream) = self.streams.get_mut(&handle) {
                        stream.waiting.push_front(part);
                    }
                    self.stalled.push_back(handle);
                    break;
                }
                any = true;
            }
        }
        any
    }

    fn next_part(&mut self, handle: u64) -> Option<Part> {
        self.streams.get_mut(&handle)?.waiting.pop_front()
    }

    /// Gives a part back that there is no room for now.
    fn try_part(&mut self, handle: u64, part: Part) -> Option<Part> {
        match part {
            Part::End(status, outgoing) => {
                if self.try_send(handle, status, &outgoing) {
                    return None;
                }
                Some(Part::End(status, outgoing))
            }
            Part::Head(outgoing) => self.try_message(handle, AppOp::ResponseHead, outgoing).map(Part::Head),
            Part::Message(outgoing) => {
                self.try_message(handle, AppOp::ResponseMessage, outgoing).map(Part::Message)
            }
        }
    }

    fn try_message(&mut self, handle: u64, op: AppOp, outgoing: Outgoing) -> Option<Outgoing> {
        let largest = self.port.largest_body();
        if outgoing.body_len > largest {
            let why = format!("a response has {} bytes; the rings take {largest}", outgoing.body_len);
            self.give_up(handle, &Status::resource_exhausted(why));
            return None;
        }
        if !self.stream_room.admits(&self.port, outgoing.len()) {
            return Some(outgoing);
        }
        let (flat, body) = match write(&mut self.port, &outgoing) {
            Ok(Some(spans)) => spans,
            Ok(None) => return Some(outgoing),
            Err(status) => {
                self.give_up(handle, &status);
                return None;
            }
        };
        let (flags, layout) = (outgoing.flags(), outgoing.layout);
        if self.port.push(&Submission { flags, layout, flat, body, ..Submission::new(op, handle) }).is_err() {
            free(&mut self.port, flat, body);
            return Some(outgoing);
        }
        self.stream_room.add(&self.port, len(flat, body));
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.sent.push_back((flat, body));
        }
        None
    }

    /// Ends a response that can't go on.
    fn give_up(&mut self, handle: u64, status: &Status) {
        if let Some(task) = self.running.remove(&handle) {
            task.abort();
        }
        let (status, outgoing) = Outgoing::status(status);
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.waiting.clear();
            stream.waiting.push_back(Part::End(status, outgoing));
        }
    }

    /// The daemon has taken the oldest messages of a response.
    pub(super) fn taken(&mut self, handle: u64, count: u32) {
        for _ in 0..count {
            let Some(stream) = self.streams.get_mut(&handle) else { return };
            let Some((flat, body)) = stream.sent.pop_front() else { return };
            self.stream_room.remove(&self.port, len(flat, body));
            free(&mut self.port, flat, body);
        }
    }

    /// A stream is over: its room is free, and whoever reads it hears `why` unless its end came before.
    pub(super) fn forget_stream(&mut self, handle: u64, why: &Status) {
        let Some(stream) = self.streams.remove(&handle) else { return };
        stream.requests_end(Err(why.clone()));
        for (flat, body) in stream.sent {
            self.stream_room.remove(&self.port, len(flat, body));
            free(&mut self.port, flat, body);
        }
    }

    /// Tells the daemon what of a request was consumed since it was told last.
    pub(super) fn give_credit(&mut self, handle: u64) {
        let Some(inbox) = self.streams.get(&handle).and_then(|stream| stream.inbox.as_ref()) else { return };
        let count = inbox.settle();
        if count > 0
            && self.port.push(&Submission { count, ..Submission::new(AppOp::RequestCredit, handle) }).is_err()
        {
            inbox.unsettle(count);
        }
    }

    /// The same for all streams, when there is nothing else to do: writers that wait for less than is credited at once
    /// wait no longer.
    pub(super) fn give_all_credit(&mut self) {
        let handles: Vec<u64> = self.streams.keys().copied().collect();
        for handle in handles {
            self.give_credit(handle);
        }
        self.port.publish();
    }
}

/// Takes a handler's messages as fast as they may be sent, until the last.
async fn drive(
    mut responses: Responses,
    window: &SharedWindow,
    send: impl Fn(Outgoing) -> bool,
) -> Result<(), Status> {
    loop {
        let next = poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| responses.as_mut().poll_next(context)))
                .unwrap_or_else(|_| Poll::Ready(Some(Err(panicked()))))
        });
        let Some(outgoing) = next.await.transpose()? else { return Ok(()) };
        poll_fn(|context| window.poll_acquire(context, outgoing.len())).await;
        if !send(outgoing) {
            return Ok(());
        }
    }
}

fn len(flat: Span, body: Span) -> usize {
    flat.len as usize + body.len as usize
}
