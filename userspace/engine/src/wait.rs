//! What the poll loop does when a turn found nothing to do.
//!
//! Waking a sleeping thread costs more than a whole call, so the loop stays awake a while: it spins right after a
//! transmission, because the answer is microseconds away; it yields as soon as it has handed something to an
//! application, because that may want this core; only then does it sleep. It never assumes a core of its own unless told.

use crate::command::Inbox;
use crate::config::Waiting;
use rustix::event::{Timespec, epoll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io;

/// After a transmission the loop does not give the core away for this long, in ns.
const SPIN_NS: u64 = 20_000;
/// After any work the loop stays awake for this long, in ns: longer than a call takes whose parties had to be woken, or
/// one slow call would make every next one slow.
const AWAKE_NS: u64 = 150_000;
/// Housekeeping happens at least this often, in ns.
pub const TICK_NS: u64 = 10_000_000;

const NIC: u64 = u64::MAX;
const COMMANDS: u64 = u64::MAX - 1;

/// What a turn did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Anything at all.
    pub any: bool,
    /// Packets were transmitted.
    pub transmitted: bool,
    /// Messages were handed to applications.
    pub delivered: bool,
}

/// Decides between spinning, yielding and sleeping.
pub struct Waiter {
    waiting: Waiting,
    epoll: OwnedFd,
    worked_at: u64,
    transmitted_at: u64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another turn at once.
    Turn,
    /// Sleep until a file descriptor or the given time; ask the rings first.
    Sleep,
}

impl Waiter {
    pub fn new(waiting: Waiting, nic: BorrowedFd<'_>, inbox: &Inbox) -> io::Result<Waiter> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = epoll::EventFlags::IN;
        epoll::add(&epoll, nic, epoll::EventData::new_u64(NIC), interest)?;
        epoll::add(&epoll, &inbox.doorbell, epoll::EventData::new_u64(COMMANDS), interest)?;
        Ok(Waiter { waiting, epoll, worked_at: 0, transmitted_at: 0 })
    }

    /// Listens to an application's doorbell.
    pub fn add(&self, doorbell: BorrowedFd<'_>) -> io::Result<()> {
        epoll::add(&self.epoll, doorbell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
    }

    /// Stops listening to an application's doorbell.
    pub fn remove(&self, doorbell: BorrowedFd<'_>) {
        // Fails only when it was never added; then there is nothing to undo.
        let _ = epoll::delete(&self.epoll, doorbell);
    }

    /// Takes note of a turn and decides what comes next. Yields the core where that is the right thing.
    pub fn after(&mut self, now: u64, work: Work) -> Next {
        if work.any {
            self.worked_at = now;
        }
        if work.transmitted {
            self.transmitted_at = now;
        }
        match self.waiting {
            Waiting::Busy => {
                std::hint::spin_loop();
                Next::Turn
            }
            Waiting::Sleep if work.any => Next::Turn,
            Waiting::Sleep => Next::Sleep,
            Waiting::Adaptive => {
                if work.delivered {
                    rustix::thread::sched_yield();
                    Next::Turn
                } else if work.any || now.saturating_sub(self.transmitted_at) < SPIN_NS {
                    std::hint::spin_loop();
                    Next::Turn
                } else if now.saturating_sub(self.worked_at) < AWAKE_NS {
                    rustix::thread::sched_yield();
                    Next::Turn
                } else {
                    Next::Sleep
                }
            }
        }
    }

    /// Sleeps until something is readable, `until_ns` or the next tick. Spurious wake-ups are harmless.
    pub fn sleep(&self, now: u64, until_ns: Option<u64>) {
        let nanoseconds = until_ns.map_or(TICK_NS, |until| until.saturating_sub(now)).min(TICK_NS);
        let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds as i64 };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 8];
        // An interrupted wait is a short one.
        let _ = epoll::wait(&self.epoll, &mut events, Some(&timeout));
    }
}
