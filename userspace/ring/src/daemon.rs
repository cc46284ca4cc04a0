//! The daemon's end of one application's rings. The application is not trusted with anything here.

use crate::alloc::{Buddy, LONG_LEAF};
use crate::layout::{self, CONSUMER, PRODUCER};
use crate::shared::{Access, Mapping};
use crate::wake::{self, News, Sleeper, Waker};
use crate::{Corrupt, DeliveryHeader, Error, Full, Geometry, Handover, Span, Submission};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Release};
use tollfree_wire::header::FLAT_MAX;

/// One application's rings, as the daemon holds them.
#[derive(Debug)]
pub struct Port {
    geometry: Geometry,
    /// Written by the application.
    theirs: Mapping,
    /// Written by the daemon alone.
    own: Mapping,
    /// Written by the daemon, and never read: the application could write to it as well.
    own_long: Mapping,
    long: LongRoom,
    tx_consumed: u32,
    tx_committed: u32,
    /// The tx producer index when last read.
    tx_produced: u32,
    rx_produced: u32,
    rx_published: u32,
    /// The rx consumer index when last read.
    rx_consumed: u32,
    /// For each slot of the rx ring, the position in the byte stream at which its bytes end.
    rx_ends: Box<[u64]>,
    /// Bytes of the rx region ever handed out, padding included; modulo its size, where the next message goes.
    rx_written: u64,
    /// Bytes of those that the application has freed.
    rx_freed: u64,
    /// A delivery found no room since the last one that did.
    starved: bool,
    /// An index seen while delivering could not be; `pop` reports it.
    corrupt: Option<Corrupt>,
    sleeper: Sleeper,
    waker: Waker,
    doorbell: OwnedFd,
}

/// The room for long messages to the application, and what of it is taken from the system.
#[derive(Debug)]
struct LongRoom {
    room: Buddy,
    /// What is in use, by the index of its descriptor, oldest first.
    used: VecDeque<(u32, Span)>,
    /// A message was delivered in it since the last time that somebody asked.
    recently: bool,
    /// Bytes from the start that have been written since they were given back.
    touched: u32,
}

impl Port {
    /// Makes the memory, seals it, and returns both ends.
    ///
    /// # Errors
    /// A bad geometry, or a system call that failed: no file descriptors or no memory left.
    pub fn create(geometry: &Geometry) -> Result<(Port, Handover), Error> {
        geometry.check()?;
        let geometry = *geometry;
        let (app_memory, theirs) = memory("tollfree-tx", geometry.app_len(), Access::Read)?;
        let (daemon_memory, own) = memory("tollfree-rx", geometry.daemon_len(), Access::ReadWrite)?;
        let (long_memory, own_long) = memory("tollfree-rx-long", geometry.long_len(), Access::ReadWrite)?;
        let sizes = SealFlags::SHRINK | SealFlags::GROW;
        seal(&app_memory, sizes | SealFlags::SEAL)?;
        // Not against writing: memory that is sealed so can't be given back to the system. What anybody writes here is
        // the application's own loss, since the daemon keeps no reference into it and reads nothing of it.
        seal(&long_memory, sizes | SealFlags::SEAL)?;
        // Mapped above, so the daemon goes on writing; nobody else can map it writable from here on.
        seal(&daemon_memory, sizes | SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        let (doorbell, their_bell) = wake::doorbell()?;
        let (their_doorbell, bell) = wake::doorbell()?;
        let port = Port {
            geometry,
            theirs,
            own,
            own_long,
            long: LongRoom {
                room: Buddy::new(geometry.long_bytes, LONG_LEAF),
                used: VecDeque::new(),
                recently: false,
                touched: 0,
            },
            tx_consumed: 0,
            tx_committed: 0,
            tx_produced: 0,
            rx_produced: 0,
            rx_published: 0,
            rx_consumed: 0,
            rx_ends: vec![0; geometry.slots as usize].into_boxed_slice(),
            rx_written: 0,
            rx_freed: 0,
            starved: false,
            corrupt: None,
            sleeper: Sleeper::default(),
            waker: Waker::new(bell),
            doorbell,
        };
        let handover = Handover {
            geometry,
            app_memory,
            daemon_memory,
            long_memory,
            doorbell: their_doorbell,
            bell: their_bell,
        };
        Ok((port, handover))
    }

    /// The sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The longest body that [`deliver`](Port::deliver) will ever have room for, in bytes. A longer one is `Full` for
    /// good: answer it with a status instead.
    pub fn largest_body(&self) -> usize {
        self.geometry.largest_body()
    }

    /// Takes the next submission, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`]: close this application's connection. Nothing has been taken.
    pub fn pop(&mut self) -> Result<Option<Submission>, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        if self.tx_consumed == self.tx_produced {
            let produced = self.theirs.word32(PRODUCER).load(Acquire);
            let waiting = produced.wrapping_sub(self.tx_consumed);
            if waiting > self.geometry.slots {
                return Err(Corrupt::Index { claimed: waiting, slots: self.geometry.slots });
            }
            if waiting == 0 {
                return Ok(None);
            }
            self.tx_produced = produced;
        }
        // Read once; everything after works on this copy.
        let words = layout::load(&self.theirs, &self.geometry, self.tx_consumed);
        let submission = layout::decode_submission(&words, self.geometry.tx_reach())?;
        self.tx_consumed = self.tx_consumed.wrapping_add(1);
        Ok(Some(submission))
    }

    /// Copies `out.len()` bytes from the application's region, starting `at` bytes into a span that came from
    /// [`pop`](Port::pop). What lies outside the span is not read: `out` is zeroed instead.
    pub fn read(&self, span: Span, at: usize, out: &mut [u8]) {
        let wanted = at.checked_add(out.len()).is_some_and(|end| end <= span.len as usize);
        let inside = span.offset.checked_add(span.len).is_some_and(|end| end <= self.geometry.tx_reach());
        let start = self.geometry.region() + span.offset as usize;
        if !(wanted && inside && self.theirs.copy_out(start.saturating_add(at), out)) {
            out.fill(0);
        }
    }

    /// Lets the application reuse the slots of what was popped: once per batch.
    pub fn commit(&mut self) {
        if self.tx_committed != self.tx_consumed {
            self.tx_committed = self.tx_consumed;
            self.own.word32(CONSUMER).store(self.tx_consumed, Release);
            self.waker.wake(&self.theirs, News::Room);
        }
    }

    /// Copies a message into the receive region, or a long body beside it, and queues its descriptor;
    /// [`publish`](Port::publish) shows it. If and only if there is room, `body` is called to write the body's bytes from a
    /// place on: all `body_len` at once, or a long body's piece by piece, in order.
    ///
    /// # Errors
    /// [`Full`]: keep the message and try again after the application has read more. A flat block over 192 bytes or a
    /// body over [`largest_body`](Port::largest_body) is `Full` for good.
    pub fn deliver(
        &mut self,
        header: &DeliveryHeader,
        flat: &[u8],
        mut body: impl FnMut(usize, &mut [u8]),
        body_len: usize,
    ) -> Result<(), Full> {
        if flat.len() > FLAT_MAX || body_len > self.largest_body() {
            return Err(Full);
        }
        let flat_room = flat.len().next_multiple_of(8);
        let long = Geometry::is_long(body_len, self.geometry.rx_bytes);
        let body_room = if long { 0 } else { body_len.next_multiple_of(8) };
        let Some(offset) = self.reserve(flat_room + body_room, if long { body_len } else { 0 }) else {
            self.starved = true;
            return Err(Full);
        };
        let region = self.geometry.region();
        if let Some(out) = self.own.fill(region + offset, flat.len()) {
            out.copy_from_slice(flat);
        }
        let body_offset = if long {
            self.place_long(body_len, body)
        } else {
            if let Some(out) = self.own.fill(region + offset + flat_room, body_len) {
                body(0, out);
            }
            // All below 2³⁰, see `Geometry::check`.
            (offset + flat_room) as u32
        };
        let flat = Span { offset: offset as u32, len: flat.len() as u32 };
        let body = Span { offset: if body_len == 0 { 0 } else { body_offset }, len: body_len as u32 };
        layout::store(
            &self.own,
            &self.geometry,
            self.rx_produced,
            &layout::encode_delivery(header, flat, body),
        );
        let slot = (self.rx_produced & (self.geometry.slots - 1)) as usize;
        if let Some(end) = self.rx_ends.get_mut(slot) {
            *end = self.rx_written;
        }
        self.rx_produced = self.rx_produced.wrapping_add(1);
        self.starved = false;
        Ok(())
    }

    /// Shows the application everything delivered so far, and wakes it if it sleeps.
    pub fn publish(&mut self) {
        if self.rx_published != self.rx_produced {
            self.rx_published = self.rx_produced;
            self.own.word32(PRODUCER).store(self.rx_produced, Release);
            self.waker.wake(&self.theirs, News::Work);
        }
    }

    /// Becomes readable when the application rings. Wait on it only after [`prepare_sleep`](Port::prepare_sleep).
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Makes the doorbell unreadable again.
    pub fn drain_doorbell(&self) {
        wake::drain(&self.doorbell);
    }

    /// Asks the application to ring from now on, also when it makes room that a delivery was refused for. False: there
    /// is work already, don't sleep. Call [`awake`](Port::awake) afterwards either way.
    pub fn prepare_sleep(&mut self) -> bool {
        self.sleeper.announce(&self.own, self.starved);
        let work = self.theirs.word32(PRODUCER).load(Acquire) != self.tx_consumed;
        let room = self.starved && self.theirs.word32(CONSUMER).load(Acquire) != self.rx_consumed;
        !(work || room) && self.corrupt.is_none()
    }

    /// The daemon looks by itself again; the application need not ring.
    pub fn awake(&mut self) {
        self.sleeper.awake(&self.own);
    }

    /// Gives memory for long messages back to the system, unless there was one since the last time. To be called about once
    /// a second.
    pub fn give_back(&mut self) {
        if self.long.touched == 0 {
            return;
        }
        self.refresh_consumed();
        if !std::mem::take(&mut self.long.recently) && self.long.used.is_empty() {
            self.own_long.discard(0, std::mem::take(&mut self.long.touched) as usize);
        }
    }

    /// Finds room for `need` bytes and one descriptor, and sees that `long` bytes beside the region are free; the offset in
    /// the region.
    fn reserve(&mut self, need: usize, long: usize) -> Option<usize> {
        let need = need as u64;
        if long > 0 && !self.long.room.has(long as u32) {
            self.refresh_consumed();
            if !self.long.room.has(long as u32) {
                return None;
            }
        }
        self.room(need).or_else(|| {
            self.refresh_consumed();
            self.room(need)
        })
    }

    /// Writes a long body where there is room, as [`reserve`](Port::reserve) has found; its offset.
    fn place_long(&mut self, len: usize, body: impl FnMut(usize, &mut [u8])) -> u32 {
        let Some(span) = self.long.room.alloc(len as u32) else { return 0 };
        self.own_long.copy_in(span.offset as usize, len, body);
        self.long.used.push_back((self.rx_produced, span));
        self.long.recently = true;
        self.long.touched = self.long.touched.max(span.offset + span.len);
        self.geometry.rx_bytes + span.offset
    }

    fn room(&mut self, need: u64) -> Option<usize> {
        if self.rx_produced.wrapping_sub(self.rx_consumed) >= self.geometry.slots {
            return None;
        }
        let size = u64::from(self.geometry.rx_bytes);
        let offset = self.rx_written % size;
        // A message does not wrap around: it starts over where the rest is too short.
        let skip = if offset + need > size { size - offset } else { 0 };
        if self.rx_produced == self.rx_consumed {
            // Nothing is in the ring, so what is skipped need not be waited for.
            self.rx_freed = self.rx_written + skip;
        }
        if self.rx_written + skip + need - self.rx_freed > size {
            return None;
        }
        let start = self.rx_written + skip;
        self.rx_written = start + need;
        Some((start % size) as usize)
    }

    fn refresh_consumed(&mut self) {
        let consumed = self.theirs.word32(CONSUMER).load(Acquire);
        let outstanding = self.rx_produced.wrapping_sub(self.rx_consumed);
        let newly = consumed.wrapping_sub(self.rx_consumed);
        // What is delivered but not published can't have been read either.
        let visible = self.rx_published.wrapping_sub(self.rx_consumed);
        if newly > visible {
            self.corrupt = Some(Corrupt::Index { claimed: newly, slots: outstanding });
            return;
        }
        if newly > 0 {
            let last = (consumed.wrapping_sub(1) & (self.geometry.slots - 1)) as usize;
            if let Some(end) = self.rx_ends.get(last) {
                self.rx_freed = self.rx_freed.max(*end);
            }
            self.rx_consumed = consumed;
            let outstanding = self.rx_produced.wrapping_sub(consumed);
            while let Some(&(index, span)) = self.long.used.front() {
                if self.rx_produced.wrapping_sub(index) <= outstanding {
                    break;
                }
                self.long.used.pop_front();
                self.long.room.free(span);
            }
        }
    }
}

fn memory(name: &'static str, len: usize, access: Access) -> Result<(OwnedFd, Mapping), Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create(name, flags).map_err(|errno| Error::system("making ring memory", errno))?;
    ftruncate(&fd, len as u64).map_err(|errno| Error::system("sizing ring memory", errno))?;
    let mapping = Mapping::new(fd.as_fd(), len, access)?;
    Ok((fd, mapping))
}

/// Seals and checks that the seals hold: everything else relies on the size staying what it is.
fn seal(fd: &OwnedFd, seals: SealFlags) -> Result<(), Error> {
    fcntl_add_seals(fd, seals).map_err(|errno| Error::system("sealing ring memory", errno))?;
    let held =
        fcntl_get_seals(fd).map_err(|errno| Error::system("reading the seals of ring memory", errno))?;
    if held.contains(seals) { Ok(()) } else { Err(Error::Protocol("the kernel did not keep a seal")) }
}
