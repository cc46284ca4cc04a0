//! A client's attachment to the daemon: calls pushed, responses drained, whoever waits woken.
//!
//! The task that awaits a call looks at the ring itself for a while, because a response that is microseconds away is
//! not worth a wake-up. When it gives up it asks the daemon to ring; [`listen`] hears that, drains the ring, and wakes
//! the tasks whose responses came. Whoever drains, drains for all.

use crate::attach::{Ears, free, hear_end, hush, open, process_name, write};
use crate::service::Outgoing;
use crate::{Status, VerdictAt, Waiting};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, DaemonOp, Delivery, Span, Submission, attach};
use tollfree_wire::Code;
use tollfree_wire::header::NO_DEADLINE;

/// How long an awaiting task looks at the ring itself.
const SPIN: Duration = Duration::from_micros(150);
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
    /// Calls given up whose cancellation found the ring full.
    cancels: VecDeque<u64>,
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

/// A response as it came, copied out of the ring.
#[derive(Debug)]
pub struct Received {
    pub status: Code,
    pub verdict_at: VerdictAt,
    bytes: Vec<u8>,
    flat_len: usize,
}

impl Default for Received {
    fn default() -> Received {
        Received { status: Code::Ok, verdict_at: VerdictAt::None, bytes: Vec::new(), flat_len: 0 }
    }
}

impl Received {
    pub fn flat(&self) -> &[u8] {
        self.bytes.get(..self.flat_len).unwrap_or_default()
    }

    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.flat_len..).unwrap_or_default()
    }

    fn fill(&mut self, delivery: &Delivery<'_>) {
        self.status = delivery.status;
        self.verdict_at = delivery.verdict_at;
        self.bytes.clear();
        self.bytes.extend_from_slice(delivery.flat);
        self.bytes.extend_from_slice(delivery.body);
        self.flat_len = delivery.flat.len();
    }
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
            cancels: VecDeque::new(),
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
        let cookie = match deadline_us {
            None => poll_fn(|context| self.poll_submit(context, method, outgoing, NO_DEADLINE)).await?,
            Some(limit) => {
                // The time spent waiting for room counts.
                let started = Instant::now();
                let submit = poll_fn(|context| {
                    let spent = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
                    self.poll_submit(context, method, outgoing, limit.saturating_sub(spent))
                });
                let submitted = tokio::time::timeout(Duration::from_micros(limit.into()), submit).await;
                submitted
                    .map_err(|_| Status::deadline_exceeded("the ring had no room for the call in time"))??
            }
        };
        let mut waiting = Pending { link: self, cookie, polls: 0, done: false };
        poll_fn(|context| waiting.poll(context)).await;
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
        Ok(result)
    }

    /// Writes a call into the ring; waits while there is no room.
    fn poll_submit(
        &self,
        context: &mut Context<'_>,
        method: u32,
        outgoing: &Outgoing,
        deadline_us: u32,
    ) -> Poll<Result<u64, Status>> {
        let mut state = self.state();
        if let Some(status) = &state.dead {
            return Poll::Ready(Err(status.clone()));
        }
        if outgoing.body_len > state.port.largest_body() {
            let largest = state.port.largest_body();
            let why = format!("the request has {} bytes; the ring takes {largest}", outgoing.body_len);
            return Poll::Ready(Err(Status::resource_exhausted(why)));
        }
        match state.submit(method, outgoing, deadline_us) {
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
    fn submit(&mut self, method: u32, outgoing: &Outgoing, deadline_us: u32) -> Result<Option<u64>, Status> {
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
        let submission = Submission {
            op: AppOp::Call,
            status: Code::Ok,
            method,
            call: cookie,
            layout: outgoing.layout,
            deadline_us,
            flat,
            body,
        };
        if self.port.push(&submission).is_err() {
            free(&mut self.port, flat, body);
            self.free.push(place);
            return Ok(None);
        }
        (slot.stage, slot.flat, slot.body, slot.waker) = (Stage::Waiting, flat, body, None);
        self.outstanding += 1;
        self.port.publish();
        Ok(Some(cookie))
    }

    fn slot(&mut self, cookie: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(cookie as u32 as usize)?;
        (u64::from(slot.generation) == cookie >> 32).then_some(slot)
    }

    fn vacate(&mut self, cookie: u64, received: Received) {
        if let Some(slot) = self.slot(cookie) {
            slot.received = received;
            slot.stage = Stage::Free;
            slot.waker = None;
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
                let slot = slots.get_mut(delivery.call as u32 as usize)?;
                if u64::from(slot.generation) != delivery.call >> 32 {
                    return None;
                }
                if matches!(delivery.op, DaemonOp::Response) && slot.stage == Stage::Waiting {
                    slot.received.fill(&delivery);
                }
                matches!(delivery.op, DaemonOp::Response | DaemonOp::Cancelled).then_some(delivery.call)
            });
            match popped {
                Ok(Some(Some(cookie))) => {
                    any = true;
                    self.finish(cookie, own);
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
        self.send_cancels();
        any
    }

    /// The daemon is done with a call.
    fn finish(&mut self, cookie: u64, own: u64) {
        let Some(slot) = self.slot(cookie) else { return };
        let (flat, body) = (std::mem::take(&mut slot.flat), std::mem::take(&mut slot.body));
        let waker = slot.waker.take();
        match slot.stage {
            Stage::Waiting => slot.stage = Stage::Done,
            Stage::Abandoned => {
                slot.stage = Stage::Free;
                self.free.push(cookie as u32);
            }
            Stage::Free | Stage::Done => return,
        }
        free(&mut self.port, flat, body);
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

    fn send_cancels(&mut self) {
        while let Some(&cookie) = self.cancels.front() {
            let none = Span::default();
            let (op, status) = (AppOp::Cancel, Code::Ok);
            let cancel = Submission {
                op,
                status,
                method: 0,
                call: cookie,
                layout: 0,
                deadline_us: NO_DEADLINE,
                flat: none,
                body: none,
            };
            if self.port.push(&cancel).is_err() {
                return;
            }
            self.cancels.pop_front();
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
                slot.received.status = status.code();
                slot.received.verdict_at = VerdictAt::None;
                slot.received.flat_len = 0;
                slot.received.bytes = status.message().as_bytes().to_vec();
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

/// A call whose response is awaited.
struct Pending<'a> {
    link: &'a Link,
    cookie: u64,
    polls: u32,
    done: bool,
}

impl Pending<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Pending { link, cookie, .. } = *self;
        self.polls = self.polls.saturating_add(1);
        let mut state = link.state();
        state.port.awake();
        state.drain(cookie);
        if self.is_done(&mut state) {
            return Poll::Ready(());
        }
        let spins = !matches!(link.waiting, Waiting::Sleep);
        if spins && self.polls == 1 {
            // Once around the executor first: other tasks may have calls to make, and their responses come with ours.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if spins {
            drop(state);
            let since = Instant::now();
            loop {
                // Where the daemon shares this core, it gets it; where not, this costs a fraction of a microsecond.
                std::thread::yield_now();
                let mut state = link.state();
                let others = state.drain(cookie);
                if self.is_done(&mut state) {
                    return Poll::Ready(());
                }
                if others {
                    // Their tasks were woken and may run on this very thread: let them.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if matches!(link.waiting, Waiting::Adaptive) && since.elapsed() > SPIN {
                    break;
                }
                if matches!(link.waiting, Waiting::Busy) && since.elapsed() > SPIN * 20 {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            state = link.state();
        }
        if let Some(slot) = state.slot(cookie) {
            slot.waker = Some(context.waker().clone());
        }
        state.park();
        if self.is_done(&mut state) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_done(&mut self, state: &mut State) -> bool {
        self.done = state.slot(self.cookie).is_none_or(|slot| slot.stage == Stage::Done);
        if self.done && state.outstanding > 0 {
            // Others may be asleep and count on somebody to listen.
            state.park();
        }
        self.done
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.link.state();
        let Some(slot) = state.slot(self.cookie) else { return };
        match slot.stage {
            Stage::Waiting => {
                slot.stage = Stage::Abandoned;
                slot.waker = None;
                state.cancels.push_back(self.cookie);
                state.send_cancels();
                state.park();
            }
            Stage::Done => {
                slot.stage = Stage::Free;
                state.free.push(self.cookie as u32);
            }
            Stage::Free | Stage::Abandoned => {}
        }
    }
}

/// Hears the daemon's bell and its end; runs as a task of its own for as long as the link is in use.
pub async fn listen(link: Arc<Link>, ears: Ears) {
    // However this ends, also with its runtime: nobody else would wake the tasks that sleep.
    let _deafness = Deafness(&link);
    let Ears { doorbell, stream } = ears;
    let mut byte = [0; 1];
    loop {
        tokio::select! {
            ready = doorbell.readable() => {
                if ready.is_err() || hush(&doorbell) {
                    break;
                }
                let mut state = link.state();
                state.port.awake();
                state.drain(u64::MAX);
                state.wake_room();
                state.park();
                if state.dead.is_some() {
                    return;
                }
            }
            read = hear_end(&stream, &mut byte) => {
                if read { break }
            }
        }
    }
}

struct Deafness<'a>(&'a Link);

impl Drop for Deafness<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.dead.is_none() {
            state.die(Status::unavailable("the connection to the daemon has ended"));
        }
    }
}
