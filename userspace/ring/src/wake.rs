//! Going to sleep without missing work, and waking a sleeper at most once per sleep. See "Waking" in the crate's
//! documentation.

use crate::Error;
use crate::layout::SLEEP;
use crate::shared::Mapping;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use std::sync::atomic::{Ordering, fence};

const ASLEEP: u32 = 1;
const WANTS_ROOM: u32 = 2;
const NEXT: u32 = 4;

/// What a sleeper wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Descriptors were published.
    Work,
    /// Descriptors were consumed.
    Room,
}

/// A side's own sleep word.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    count: u32,
    asleep: bool,
}

impl Sleeper {
    /// Announces sleep. The caller must look for work once more before it sleeps.
    pub(crate) fn announce(&mut self, own: &Mapping, wants_room: bool) {
        self.count = self.count.wrapping_add(NEXT);
        self.asleep = true;
        let room = if wants_room { WANTS_ROOM } else { 0 };
        own.word32(SLEEP).store(self.count | ASLEEP | room, Ordering::Relaxed);
        // Pairs with the fence in `Waker::wake`: either the waker sees the word, or the look that follows sees its work.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&mut self, own: &Mapping) {
        if self.asleep {
            self.asleep = false;
            own.word32(SLEEP).store(self.count, Ordering::Relaxed);
        }
    }
}

/// The other side's sleep word and the pipe that wakes it.
#[derive(Debug)]
pub(crate) struct Waker {
    bell: OwnedFd,
    rung_for: u32,
}

impl Waker {
    pub(crate) fn new(bell: OwnedFd) -> Waker {
        Waker { bell, rung_for: 0 }
    }

    /// Wakes the other side if it sleeps and wants this news. Call after the index has been stored.
    pub(crate) fn wake(&mut self, others: &Mapping, news: News) {
        fence(Ordering::SeqCst);
        let word = others.word32(SLEEP).load(Ordering::Relaxed);
        let wanted = match news {
            News::Work => ASLEEP,
            News::Room => ASLEEP | WANTS_ROOM,
        };
        if word & wanted == wanted && word != self.rung_for {
            self.rung_for = word;
            // A full pipe has told the sleeper often enough, and a closed one has nobody to tell.
            let _ = rustix::io::write(&self.bell, &[1]);
        }
    }
}

/// A pipe to wake one side by: read end, write end. Both ends never block, each by a flag of its own.
pub(crate) fn doorbell() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| Error::system("making a doorbell pipe", errno))
}

/// Empties a doorbell, up to a bound: whoever rings more than that is heard again.
pub(crate) fn drain(doorbell: &OwnedFd) {
    let mut buffer = [0; 4096];
    for _ in 0..16 {
        match rustix::io::read(doorbell, &mut buffer) {
            Ok(read) if read == buffer.len() => {}
            Err(rustix::io::Errno::INTR) => {}
            // Short: empty now. An error: empty already, or the other side is gone, which the socket tells.
            Ok(_) | Err(_) => return,
        }
    }
}
