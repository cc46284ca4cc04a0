//! The application's end of its rings.

use crate::alloc::{Buddy, LEAF, LONG_LEAF};
use crate::layout::{self, CONSUMER, PRODUCER};
use crate::shared::{Access, Mapping};
use crate::wake::{self, News, Sleeper, Waker};
use crate::{Corrupt, Delivery, Error, Full, Geometry, Handover, Span, Submission};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

/// An application's rings, as it holds them itself.
#[derive(Debug)]
pub struct Port {
    geometry: Geometry,
    own: Mapping,
    theirs: Mapping,
    /// What the daemon delivers long messages in.
    theirs_long: Mapping,
    room: Buddy,
    long: LongRoom,
    tx_produced: u32,
    tx_published: u32,
    /// The tx consumer index when last read.
    tx_consumed: u32,
    rx_consumed: u32,
    rx_committed: u32,
    /// The rx producer index when last read.
    rx_produced: u32,
    /// The tx ring was full since the last push that it had room for.
    starved: bool,
    sleeper: Sleeper,
    waker: Waker,
    doorbell: OwnedFd,
}

/// The room for long messages, and what of it is taken from the system.
#[derive(Debug)]
struct LongRoom {
    room: Buddy,
    /// Spans in use.
    used: usize,
    /// Spans were in use since the last time that somebody asked.
    recently: bool,
    /// Bytes from the start that have been written since they were given back.
    touched: u32,
}

impl Port {
    /// Opens what the daemon handed over.
    ///
    /// # Errors
    /// Memory of another size than the geometry says, or a system call that failed.
    pub fn open(handover: Handover) -> Result<Port, Error> {
        let Handover { geometry, app_memory, daemon_memory, long_memory, doorbell, bell } = handover;
        geometry.check()?;
        check_len(&app_memory, geometry.app_len())?;
        check_len(&daemon_memory, geometry.daemon_len())?;
        check_len(&long_memory, geometry.long_len())?;
        let room = Buddy::new(geometry.long_bytes, LONG_LEAF);
        Ok(Port {
            geometry,
            own: Mapping::new(app_memory.as_fd(), geometry.app_len(), Access::ReadWrite)?,
            theirs: Mapping::new(daemon_memory.as_fd(), geometry.daemon_len(), Access::Read)?,
            theirs_long: Mapping::new(long_memory.as_fd(), geometry.long_len(), Access::Read)?,
            room: Buddy::new(geometry.tx_bytes, LEAF),
            long: LongRoom { room, used: 0, recently: false, touched: 0 },
            tx_produced: 0,
            tx_published: 0,
            tx_consumed: 0,
            rx_consumed: 0,
            rx_committed: 0,
            rx_produced: 0,
            starved: false,
            sleeper: Sleeper::default(),
            waker: Waker::new(bell),
            doorbell,
        })
    }

    /// The sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The longest body there will ever be room for, in bytes.
    pub fn largest_body(&self) -> usize {
        self.geometry.largest_body()
    }

    /// Whether a part of a message of so many bytes goes beside the region, into the room for long messages.
    pub fn is_long(&self, len: usize) -> bool {
        Geometry::is_long(len, self.geometry.tx_bytes)
    }

    /// Takes `len` bytes of the transmit region, or of the room for long messages; `None` where there is no room now.
    pub fn alloc(&mut self, len: u32) -> Option<Span> {
        if !self.is_long(len as usize) {
            return self.room.alloc(len);
        }
        let span = self.long.room.alloc(len)?;
        self.long.used += 1;
        self.long.recently = true;
        self.long.touched = self.long.touched.max(span.offset + span.len);
        Some(Span { offset: self.geometry.tx_bytes + span.offset, len })
    }

    /// Gives a span back that [`alloc`](Port::alloc) returned.
    pub fn free(&mut self, span: Span) {
        match span.offset.checked_sub(self.geometry.tx_bytes) {
            None => self.room.free(span),
            Some(offset) => {
                self.long.room.free(Span { offset, len: span.len });
                self.long.used = self.long.used.saturating_sub(1);
            }
        }
    }

    /// Whether memory is taken for long messages, which [`give_back`](Port::give_back) would give back in time.
    pub fn holds_long(&self) -> bool {
        self.long.touched > 0
    }

    /// Gives memory for long messages back to the system, unless there was one since the last time. To be called about once
    /// a second.
    pub fn give_back(&mut self) {
        let recently = std::mem::take(&mut self.long.recently);
        if self.long.used == 0 && !recently && self.long.touched > 0 {
            self.own.discard(self.geometry.long(), std::mem::take(&mut self.long.touched) as usize);
        }
    }

    /// Copies `bytes` into a span, from its byte `at` on; false, with nothing written, where they don't fit.
    pub fn write(&mut self, span: Span, at: usize, bytes: &[u8]) -> bool {
        let write = |out: &mut [u8]| match at.checked_add(bytes.len()).and_then(|end| out.get_mut(at..end)) {
            Some(out) => {
                out.copy_from_slice(bytes);
                true
            }
            None => false,
        };
        self.fill(span, write).unwrap_or(false)
    }

    /// Lends a span to write in place; `None` where it is not within the region.
    pub fn fill<R>(&mut self, span: Span, write: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let offset = self.geometry.region().checked_add(span.offset as usize)?;
        self.own.fill(offset, span.len as usize).map(write)
    }

    /// Queues a descriptor; [`publish`](Port::publish) shows it.
    ///
    /// # Errors
    /// [`Full`]: try again when the daemon has read more; it rings then if this side sleeps.
    pub fn push(&mut self, submission: &Submission) -> Result<(), Full> {
        if self.tx_full() {
            self.tx_consumed = self.theirs.word32(CONSUMER).load(Acquire);
            if self.tx_full() {
                self.starved = true;
                return Err(Full);
            }
        }
        layout::store(&self.own, &self.geometry, self.tx_produced, &layout::encode_submission(submission));
        self.tx_produced = self.tx_produced.wrapping_add(1);
        self.starved = false;
        Ok(())
    }

    /// Shows the daemon everything pushed so far, and wakes it if it sleeps.
    pub fn publish(&mut self) {
        if self.tx_published != self.tx_produced {
            self.tx_published = self.tx_produced;
            self.own.word32(PRODUCER).store(self.tx_produced, Release);
            self.waker.wake(&self.theirs, News::Work);
        }
    }

    /// Takes the next delivery and gives it to `read`, if there is one. The bytes stay where they are until
    /// [`commit`](Port::commit).
    ///
    /// # Errors
    /// [`Corrupt`]: the daemon is broken; drop the connection.
    pub fn pop<R>(&mut self, read: impl FnOnce(Delivery<'_>) -> R) -> Result<Option<R>, Corrupt> {
        if self.rx_consumed == self.rx_produced {
            let produced = self.theirs.word32(PRODUCER).load(Acquire);
            let waiting = produced.wrapping_sub(self.rx_consumed);
            if waiting > self.geometry.slots {
                return Err(Corrupt::Index { claimed: waiting, slots: self.geometry.slots });
            }
            if waiting == 0 {
                return Ok(None);
            }
            self.rx_produced = produced;
        }
        let words = layout::load(&self.theirs, &self.geometry, self.rx_consumed);
        let (header, flat, body) = layout::decode_delivery(&words, self.geometry.rx_reach())?;
        let (flat, body) = (self.view(flat)?, self.view(body)?);
        let crate::DeliveryHeader { op, status, flags, method, call, layout, deadline_us, verdict_at, count } =
            header;
        let result = read(Delivery {
            op,
            status,
            flags,
            method,
            call,
            layout,
            deadline_us,
            flat,
            body,
            verdict_at,
            count,
        });
        self.rx_consumed = self.rx_consumed.wrapping_add(1);
        Ok(Some(result))
    }

    /// Whether [`pop`](Port::pop) would find something.
    pub fn has_delivery(&self) -> bool {
        self.theirs.word32(PRODUCER).load(Acquire) != self.rx_consumed
    }

    /// Lets the daemon reuse the room of what was popped: once per batch.
    pub fn commit(&mut self) {
        if self.rx_committed != self.rx_consumed {
            self.rx_committed = self.rx_consumed;
            self.own.word32(CONSUMER).store(self.rx_consumed, Release);
            self.waker.wake(&self.theirs, News::Room);
        }
    }

    /// Becomes readable when the daemon rings. Wait on it only after [`prepare_sleep`](Port::prepare_sleep).
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// A second descriptor of the same doorbell, for an event loop to own.
    ///
    /// # Errors
    /// No file descriptors left.
    pub fn clone_doorbell(&self) -> Result<OwnedFd, Error> {
        self.doorbell.try_clone().map_err(|source| Error::system("duplicating the doorbell", source))
    }

    /// Makes the doorbell unreadable again.
    pub fn drain_doorbell(&self) {
        wake::drain(&self.doorbell);
    }

    /// Asks the daemon to ring from now on, also when it makes room that a push was refused for. False: there is
    /// work already, don't sleep. Call [`awake`](Port::awake) afterwards either way.
    pub fn prepare_sleep(&mut self) -> bool {
        self.sleeper.announce(&self.own, self.starved);
        let room = self.starved && self.theirs.word32(CONSUMER).load(Acquire) != self.tx_consumed;
        !(self.has_delivery() || room)
    }

    /// This side looks by itself again; the daemon need not ring.
    pub fn awake(&mut self) {
        self.sleeper.awake(&self.own);
    }

    fn tx_full(&self) -> bool {
        self.tx_produced.wrapping_sub(self.tx_consumed) >= self.geometry.slots
    }

    fn view(&self, span: Span) -> Result<&[u8], Corrupt> {
        let outside = Corrupt::Span { what: "message", offset: span.offset, len: span.len };
        let len = span.len as usize;
        let lent = match span.offset.checked_sub(self.geometry.rx_bytes) {
            Some(offset) if len > 0 => self.theirs_long.view(offset as usize, len),
            _ => self.theirs.view(self.geometry.region() + span.offset as usize, len),
        };
        lent.ok_or(outside)
    }
}

fn check_len(memory: &OwnedFd, len: usize) -> Result<(), Error> {
    let stat = rustix::fs::fstat(memory)
        .map_err(|errno| Error::system("asking for the size of ring memory", errno))?;
    if u64::try_from(stat.st_size) == Ok(len as u64) {
        Ok(())
    } else {
        Err(Error::Protocol("the ring memory is not as long as the daemon says"))
    }
}
