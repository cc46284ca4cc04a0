//! The flags by which the kernel says whether it must be woken to look at a ring.
//!
//! The `xdp` crate binds its sockets so that the kernel keeps these flags, but does not read them; so the first page
//! of the ring is mapped a second time, read-only.

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    net::xdp::{XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets, XdpRingFlags},
};
use std::{
    ffi::c_void,
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

/// One ring's flags.
pub struct Wakeup {
    page: NonNull<c_void>,
    len: usize,
    flags: NonNull<u32>,
}

impl Wakeup {
    /// The flags of the fill ring of a socket whose rings are set up.
    pub fn of_fill(socket: BorrowedFd<'_>, offsets: &XdpMmapOffsets) -> io::Result<Wakeup> {
        Wakeup::map(socket, XDP_UMEM_PGOFF_FILL_RING, offsets.fr.flags)
    }

    /// The flags of the transmit ring of a socket whose rings are set up.
    pub fn of_tx(socket: BorrowedFd<'_>, offsets: &XdpMmapOffsets) -> io::Result<Wakeup> {
        Wakeup::map(socket, XDP_PGOFF_TX_RING, offsets.tx.flags)
    }

    fn map(socket: BorrowedFd<'_>, ring: u64, flags: Option<u64>) -> io::Result<Wakeup> {
        let offset = flags.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))? as usize;
        let len = offset + size_of::<u32>();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
        let page = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, socket, ring)? };
        let page = NonNull::new(page).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the mapping is `len` bytes long, of which the flags are the last four.
        let flags = unsafe { page.byte_add(offset) }.cast();
        Ok(Wakeup { page, len, flags })
    }

    /// Whether the kernel waits for a system call before it looks at the ring.
    pub fn needed(&self) -> bool {
        // SAFETY: the flags are mapped and aligned as long as `self` lives, and the kernel writes them atomically.
        let flags = unsafe { AtomicU32::from_ptr(self.flags.as_ptr()) };
        flags.load(Ordering::Acquire) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and nothing refers to it any more.
        let _ = unsafe { munmap(self.page.as_ptr(), self.len) };
    }
}
