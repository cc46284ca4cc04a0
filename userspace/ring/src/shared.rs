//! Memory shared with another process: the only unsafe code of this crate.
//!
//! The other process may write at any moment what it can write at all. So control words and descriptors are atomics,
//! and foreign bytes are copied out by volatile reads: each is read once, and no reference to memory that a hostile
//! process can write ever exists. [`Mapping::view`] and [`Mapping::fill`] do lend references; their documentation
//! says on which mappings they may be used.

use crate::Error;
use rustix::fd::BorrowedFd;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// What this process may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// A shared mapping of a whole memfd.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    access: Access,
}

// SAFETY: the mapping belongs to this value alone within the process; through `&self` it is reached by atomics,
// volatile copies and shared references only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd`. The caller has checked that the file has them and can't shrink: touching a page past
    /// the end would kill the process.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, access: Access) -> Result<Mapping, Error> {
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice; it overlaps nothing this process uses.
        let base = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }
            .map_err(|errno| Error::system("mapping the ring memory", errno))?;
        let base =
            NonNull::new(base.cast()).ok_or(Error::Protocol("the kernel mapped ring memory at address 0"))?;
        Ok(Mapping { base, len, access })
    }

    /// The 32-bit control word at `offset`, a constant of the layout.
    #[inline]
    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(align_of::<AtomicU32>()), "a misaligned control word");
        let pointer = self.at(offset, size_of::<AtomicU32>()).cast::<AtomicU32>();
        // SAFETY: in bounds (checked), aligned (mappings start at a page; checked), valid as long as `self`, and every
        // access to it in this process is atomic. A read-only mapping is only ever loaded from.
        unsafe { pointer.as_ref() }
    }

    /// The 64-bit descriptor word at `offset`.
    #[inline]
    pub(crate) fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(align_of::<AtomicU64>()), "a misaligned descriptor word");
        let pointer = self.at(offset, size_of::<AtomicU64>()).cast::<AtomicU64>();
        // SAFETY: as in `word32`.
        unsafe { pointer.as_ref() }
    }

    /// Copies bytes that another process may be changing; false, with nothing copied, where they aren't in the mapping.
    pub(crate) fn copy_out(&self, offset: usize, out: &mut [u8]) -> bool {
        if !self.holds(offset, out.len()) {
            return false;
        }
        let start = self.at(offset, out.len()).as_ptr().cast_const();
        let head = start.align_offset(size_of::<u64>()).min(out.len());
        let (head, rest) = out.split_at_mut(head);
        let (words, tail) = rest.as_chunks_mut::<{ size_of::<u64>() }>();
        for (index, byte) in head.iter_mut().enumerate() {
            *byte = read_byte(start.wrapping_add(index));
        }
        let first = start.wrapping_add(head.len());
        for (index, word) in words.iter_mut().enumerate() {
            *word = read_word(first.wrapping_add(index * size_of::<u64>())).to_ne_bytes();
        }
        let last = first.wrapping_add(words.len() * size_of::<u64>());
        for (index, byte) in tail.iter_mut().enumerate() {
            *byte = read_byte(last.wrapping_add(index));
        }
        true
    }

    /// Lends bytes of a mapping whose writer keeps them unchanged while they are lent: the daemon, which the
    /// application trusts, rewrites its receive region only where the consumer index has passed.
    pub(crate) fn view(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if !self.holds(offset, len) {
            return None;
        }
        // SAFETY: in bounds, initialised (memfds are zeroed), and unchanged for as long as it is lent, see above.
        Some(unsafe { std::slice::from_raw_parts(self.at(offset, len).as_ptr(), len) })
    }

    /// Lends bytes to write, in a mapping that only this process writes: the other side maps it read-only, or is the
    /// daemon reading an application's region.
    pub(crate) fn fill(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        if self.access == Access::Read || !self.holds(offset, len) {
            return None;
        }
        // SAFETY: in bounds, writable, initialised; `&mut self` makes it the only reference in this process, and no
        // other process writes here, see above. What another process reads meanwhile can't affect this one.
        Some(unsafe { std::slice::from_raw_parts_mut(self.at(offset, len).as_ptr(), len) })
    }

    /// Writes `len` bytes to memory that another process may write too, piece by piece as `source` yields them from the
    /// given place on; false, with nothing written, where they aren't in the mapping. No reference to that memory exists.
    pub(crate) fn copy_in(
        &mut self,
        offset: usize,
        len: usize,
        mut source: impl FnMut(usize, &mut [u8]),
    ) -> bool {
        let aligned = offset.is_multiple_of(size_of::<u64>());
        if self.access == Access::Read || !aligned || !self.holds(offset, len) {
            return false;
        }
        let mut piece = [0; PIECE];
        for at in (0..len).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(len - at)];
            source(at, piece);
            let start = self.at(offset + at, piece.len()).as_ptr();
            let (words, tail) = piece.as_chunks::<{ size_of::<u64>() }>();
            for (index, word) in words.iter().enumerate() {
                write_word(start.wrapping_add(index * size_of::<u64>()), *word);
            }
            let last = start.wrapping_add(words.len() * size_of::<u64>());
            for (index, byte) in tail.iter().enumerate() {
                write_byte(last.wrapping_add(index), *byte);
            }
        }
        true
    }

    /// Gives the memory of `len` bytes, whole pages, back to the system: they read as zeros from then on, and are taken
    /// again as they are written. For mappings of memfds that are not sealed against writing.
    pub(crate) fn discard(&mut self, offset: usize, len: usize) {
        if self.access == Access::Read || !self.holds(offset, len) {
            return;
        }
        // SAFETY: within the mapping (checked); no reference into it exists, since `self` is borrowed mutably.
        // Where the kernel won't, the memory stays taken, and nothing else is lost.
        let _ = unsafe { madvise(self.at(offset, len).as_ptr().cast(), len, Advice::LinuxRemove) };
    }

    #[inline]
    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// A pointer to `len` bytes, which the callers know to be there; checked all the same, since memory safety is at
    /// stake.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(self.holds(offset, len), "outside the shared mapping");
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.add(offset) }
    }
}

/// Bytes that [`Mapping::copy_in`] takes at a time: they stay in the nearest cache.
const PIECE: usize = 8 << 10;

#[inline]
fn write_byte(pointer: *mut u8, byte: u8) {
    // SAFETY: `copy_in`, the only caller, stays within the range it has checked.
    unsafe { pointer.write_volatile(byte) }
}

#[inline]
fn write_word(pointer: *mut u8, word: [u8; size_of::<u64>()]) {
    // SAFETY: as in `write_byte`; aligned, since `copy_in` has checked where it starts and pieces are whole words.
    unsafe { pointer.cast::<u64>().write_volatile(u64::from_ne_bytes(word)) }
}

#[inline]
fn read_byte(pointer: *const u8) -> u8 {
    // SAFETY: `copy_out`, the only caller, stays within the range it has checked.
    unsafe { pointer.read_volatile() }
}

#[inline]
fn read_word(pointer: *const u8) -> u64 {
    // SAFETY: as in `read_byte`; aligned by `align_offset`.
    unsafe { pointer.cast::<u64>().read_volatile() }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`.
        // An error could only mean that the mapping is gone already; there is nothing left to do about it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
