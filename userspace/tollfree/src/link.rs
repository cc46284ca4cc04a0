//! A client's attachment to the daemon: calls pushed, responses drained, whoever waits woken.
//!
//! How tasks wait, and who wakes them, is in `wait`; what streams need, in `stream`.

use crate::attach::{Ears, StreamRoom, free, open, process_name, write};
use crate::outgoing::Outgoing;
use crate::received::Received;
use crate::{Status, Waiting};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, DaemonOp, Flags, Span, Submission, attach};
use tollfree_wire::header::NO_DEADLINE;

mod stream;
mod wait;

use stream::ClientStream;
pub use stream::{Item, Reader};
use wait::Pending;
pub use wait::listen;

/// A response's buffer is kept for the next call up to this size, in bytes.
const KEEP: usize = 64 << 10;

/// One attachment.
#[derive(Debug)]
pub struct Link {
    state: Mutex<State>,
    waiting: Waiting,
}

#[derive(Debug)]
struct State {
    port: Port,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Calls that the daemon has.
    outstanding: usize,
    /// Tasks that wait for room in the ring or the region.
    room: Vec<Waker>,
    /// Descriptors without bytes that found the ring full: cancellations, credits, ends of streams.
    unsent: VecDeque<Submission>,
    stream_room: StreamRoom,
    /// Set once the daemon is gone.
    dead: Option<Status>,
}

/// A call's place.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    stage: Stage,
    waker: Option<Waker>,
    flat: Span,
    body: Span,
    received: Received,
    /// For methods that stream.
    stream: Option<Box<ClientStream>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Free,
    Waiting,
    /// Nobody awaits it any more; its room is still the daemon's.
    Abandoned,
    Done,
}

impl Link {
    /// Attaches to the daemon at `path` as a client of the services in `descriptor_set`.
    pub async fn attach(
        path: &Path,
        descriptor_set: &[u8],
        waiting: Waiting,
    ) -> Result<(Link, Ears), Status> {
        let greeting = attach::Attach {
            version: attach::VERSION,
            name: process_name(),
            descriptor_sets: if descriptor_set.is_empty() { vec![] } else { vec![descriptor_set.to_vec()] },
            serves: vec![],
        };
        let (port, ears) = open(path, greeting).await?;
        let state = State {
            port,
            slots: Vec::new(),
            free: Vec::new(),
            outstanding: 0,
            room: Vec::new(),
            unsent: VecDeque::new(),
            stream_room: StreamRoom::default(),
            dead: None,
        };
        Ok((Link { state: Mutex::new(state), waiting }, ears))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here panics while it holds the lock; a task that did elsewhere is no reason to end the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the daemon is gone.
    pub fn is_dead(&self) -> bool {
        self.state().dead.is_some()
    }

    /// Makes a call and hands its response to `read`. Dropping the future cancels the call.
    pub async fn call<R>(
        &self,
        method: u32,
        outgoing: &Outgoing,
        deadline_us: Option<u32>,
        read: impl FnOnce(&Received) -> R,
    ) -> Result<R, Status> {
        let flags = Flags { last: true, ..outgoing.flags() };
        let cookie = self.submit(method, outgoing, flags, deadline_us, None).await?;
        let mut waiting = Pending { link: self, cookie, polls: 0, done: false };
        poll_fn(|context| waiting.poll(context, Slot::is_done)).await;
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(cookie as u32 as usize) else {
            return Err(Status::internal("the call's place is gone"));
        };
        let mut received = std::mem::take(&mut slot.received);
        drop(state);
        let result = read(&received);
        // The buffer serves the next call in this place.
        received.bytes.clear();
        received.bytes.shrink_to(KEEP);
        self.state().vacate(cookie, received);
        waiting.done = true;
        Ok(result)
    }

    /// Submits a call; the time spent waiting for room counts towards its deadline.
    async fn submit(
        &self,
        method: u32,
        outgoing: &Outgoing,
        flags: Flags,
        deadline_us: Option<u32>,
        stream: Option<Box<ClientStream>>,
    ) -> Result<u64, Status> {
        let started = Instant::now();
        let mut stream = stream;
        let submit = poll_fn(|context| {
            let deadline_us = deadline_us.map_or(NO_DEADLINE, |limit| {
                let spent = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
                limit.saturating_sub(spent)
            });
            let call = Submission { flags, method, deadline_us, ..Submission::new(AppOp::Call, 0) };
            self.poll_submit(context, outgoing, call, &mut stream)
        });
        let Some(limit) = deadline_us else { return submit.await };
        let submitted = tokio::time::timeout(Duration::from_micros(limit.into()), submit).await;
        submitted.map_err(|_| Status::deadline_exceeded("the ring had no room for the call in time"))?
    }

    /// Writes a call into the ring; waits while there is no room.
    fn poll_submit(
        &self,
        context: &mut Context<'_>,
        outgoing: &Outgoing,
        call: Submission,
        stream: &mut Option<Box<ClientStream>>,
    ) -> Poll<Result<u64, Status>> {
        let mut state = self.state();
        if let Some(status) = &state.dead {
            return Poll::Ready(Err(status.clone()));
        }
        if outgoing.body_len > state.port.largest_body() {
            let largest = state.port.largest_body();
            let why = format!("the request has {} bytes; the rings take {largest}", outgoing.body_len);
            return Poll::Ready(Err(Status::resource_exhausted(why)));
        }
        match state.submit(outgoing, call, stream) {
            Ok(Some(cookie)) => Poll::Ready(Ok(cookie)),
            Ok(None) => {
                state.room.push(context.waker().clone());
                state.park();
                Poll::Pending
            }
            Err(status) => Poll::Ready(Err(status)),
        }
    }
}

impl State {
    /// `None`: no room now.
    fn submit(
        &mut self,
        outgoing: &Outgoing,
        call: Submission,
        stream: &mut Option<Box<ClientStream>>,
    ) -> Result<Option<u64>, Status> {
        let Some((flat, body)) = write(&mut self.port, outgoing)? else { return Ok(None) };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let Some(slot) = self.slots.get_mut(place as usize) else {
            return Err(Status::internal("no place for the call"));
        };
        slot.generation = slot.generation.wrapping_add(1);
        let cookie = u64::from(slot.generation) << 32 | u64::from(place);
        let submission = Submission { call: cookie, layout: outgoing.layout, flat, body, ..call };
        if self.port.push(&submission).is_err() {
            free(&mut self.port, flat, body);
            self.free.push(place);
            return Ok(None);
        }
        (slot.stage, slot.flat, slot.body, slot.waker) = (Stage::Waiting, flat, body, None);
        slot.stream = stream.take();
        self.outstanding += 1;
        self.port.publish();
        Ok(Some(cookie))
    }

    fn slot(&mut self, cookie: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(cookie as u32 as usize)?;
        (u64::from(slot.generation) == cookie >> 32).then_some(slot)
    }

    fn is_ready(&mut self, cookie: u64, ready: &impl Fn(&Slot) -> bool) -> bool {
        let ready = self.slot(cookie).is_none_or(|slot| slot.is_done() || ready(slot));
        if ready && self.outstanding > 0 {
            // Others may be asleep and count on somebody to listen.
            self.park();
        }
        ready
    }

    fn vacate(&mut self, cookie: u64, received: Received) {
        if let Some(slot) = self.slot(cookie) {
            slot.received = received;
            slot.stage = Stage::Free;
            slot.waker = None;
            slot.stream = None;
            self.free.push(cookie as u32);
        }
    }

    /// Takes everything that has arrived and wakes whom it concerns, but for `own`. True if anything had.
    fn drain(&mut self, own: u64) -> bool {
        let mut any = false;
        // A dead link's calls have ended already; what its ring still holds is nobody's.
        while self.dead.is_none() {
            let Self { port, slots, .. } = self;
            let popped = port.pop(|delivery| {
                let cookie = delivery.call;
                let slot = slots.get_mut(cookie as u32 as usize)?;
                if u64::from(slot.generation) != cookie >> 32 {
                    return None;
                }
                match delivery.op {
                    DaemonOp::Response | DaemonOp::Cancelled => {
                        if matches!(delivery.op, DaemonOp::Response) && slot.stage == Stage::Waiting {
                            slot.received.fill(&delivery);
                        }
                        Some(News::Over(cookie))
                    }
                    _ => slot.stream.as_mut()?.take(&delivery),
                }
            });
            match popped {
                Ok(Some(Some(news))) => {
                    any = true;
                    match news {
                        News::Over(cookie) => self.finish(cookie, own),
                        News::Arrived(cookie) => self.arrived(cookie, own),
                        News::Taken(cookie, count) => self.taken(cookie, count),
                        News::Room(cookie) => self.wake_writer(cookie),
                    }
                }
                Ok(Some(None)) => any = true,
                Ok(None) => break,
                Err(corrupt) => {
                    self.die(Status::unavailable(format!("the daemon's ring is corrupt: {corrupt}")));
                    return true;
                }
            }
        }
        if any {
            self.port.commit();
            self.wake_room();
        }
        self.send_unsent();
        any
    }

    /// The daemon is done with a call.
    fn finish(&mut self, cookie: u64, own: u64) {
        let Some(slot) = self.slot(cookie) else { return };
        let (flat, body) = (std::mem::take(&mut slot.flat), std::mem::take(&mut slot.body));
        let waker = slot.waker.take();
        let stream = slot.stream.as_mut();
        let messages = stream.map(|stream| stream.end()).unwrap_or_default();
        match slot.stage {
            Stage::Waiting => slot.stage = Stage::Done,
            Stage::Abandoned => {
                slot.stage = Stage::Free;
                slot.stream = None;
                self.free.push(cookie as u32);
            }
            Stage::Free | Stage::Done => return,
        }
        free(&mut self.port, flat, body);
        self.free_messages(messages);
        self.outstanding -= 1;
        if cookie != own
            && let Some(waker) = waker
        {
            waker.wake();
        }
    }

    fn wake_room(&mut self) {
        for waker in self.room.drain(..) {
            waker.wake();
        }
    }

    /// Queues a descriptor without bytes.
    fn send(&mut self, submission: Submission) {
        self.unsent.push_back(submission);
        self.send_unsent();
    }

    fn send_unsent(&mut self) {
        while let Some(submission) = self.unsent.front() {
            if self.port.push(submission).is_err() {
                return;
            }
            self.unsent.pop_front();
            self.port.publish();
        }
    }

    /// Asks the daemon to ring, unless there is something to do already; then does it and asks again.
    fn park(&mut self) {
        while self.dead.is_none() && !self.port.prepare_sleep() {
            self.drain(u64::MAX);
            // Room may be what there is: whoever waits for it looks for himself.
            self.wake_room();
            if !self.port.has_delivery() {
                break;
            }
        }
    }

    fn die(&mut self, status: Status) {
        for slot in &mut self.slots {
            if slot.stage == Stage::Waiting {
                slot.stage = Stage::Done;
                slot.received.fail(&status);
                if let Some(stream) = &mut slot.stream {
                    stream.end();
                }
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            }
        }
        self.outstanding = 0;
        self.dead = Some(status);
        self.wake_room();
    }
}

impl Slot {
    fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }
}

/// What a delivery means to a call.
enum News {
    /// It is over.
    Over(u64),
    /// A message of a stream came, or its head.
    Arrived(u64),
    /// The room of messages of its request is free.
    Taken(u64, u32),
    /// More of its request may be written.
    Room(u64),
}
