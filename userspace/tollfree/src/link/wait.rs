//! Waiting for responses.
//!
//! The task that awaits a call looks at the ring itself for a while, because a response that is microseconds away is
//! not worth a wake-up. When it gives up it asks the daemon to ring; [`listen`] hears that, drains the ring, and wakes
//! the tasks whose responses came. Whoever drains, drains for all.

use super::{Link, Slot, Stage};
use crate::attach::{Ears, LOOK, hear_end, hush};
use crate::received::Received;
use crate::{Status, Waiting};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tollfree_ring::{AppOp, Submission};

/// How long an awaiting task looks at the ring itself.
const SPIN: Duration = Duration::from_micros(150);

/// A call whose response is awaited.
pub struct Pending<L: Deref<Target = Link>> {
    pub link: L,
    pub cookie: u64,
    pub polls: u32,
    /// Its place is another's already.
    pub done: bool,
}

impl<L: Deref<Target = Link>> Pending<L> {
    /// Ready when the slot is, by `ready`, or its call is over.
    pub fn poll(&mut self, context: &mut Context<'_>, ready: impl Fn(&Slot) -> bool) -> Poll<()> {
        let Pending { link, cookie, polls, .. } = self;
        let cookie = *cookie;
        *polls = polls.saturating_add(1);
        let mut state = link.state();
        state.port.awake();
        state.drain(cookie);
        if state.is_ready(cookie, &ready) {
            return Poll::Ready(());
        }
        let spins = !matches!(link.waiting, Waiting::Sleep);
        if spins && *polls == 1 {
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
                if state.is_ready(cookie, &ready) {
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
                    state.give_credit(cookie);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            state = link.state();
        }
        if let Some(slot) = state.slot(cookie) {
            slot.waker = Some(context.waker().clone());
        }
        state.give_credit(cookie);
        state.park();
        if state.is_ready(cookie, &ready) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<L: Deref<Target = Link>> Drop for Pending<L> {
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
                state.send(Submission::new(AppOp::Cancel, self.cookie));
                state.park();
            }
            Stage::Done => state.vacate(self.cookie, Received::default()),
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
        // Long messages come rarely without a ring or two: it is enough to look then.
        let holds_long = link.state().port.holds_long();
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
            () = tokio::time::sleep(LOOK), if holds_long => link.state().port.give_back(),
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
