//! Where the packet is in memory: the only file that turns the context's integers into pointers.

use aya_ebpf::programs::XdpContext;
use tollfree_wire::{Cursor, Header};

/// Where a base header can start at most: after Ethernet, VLAN, IPv6 and UDP.
const HEADER_OFFSET_MAX: u32 = 66;

/// A cursor at the start of the frame.
#[inline(always)]
pub fn cursor(ctx: &XdpContext) -> Cursor<'_> {
    // SAFETY: the kernel gives a program exclusive use of `data..data_end` while it runs.
    unsafe { Cursor::from_raw(ctx.data() as *const u8, ctx.data_end() as *const u8) }
}

/// The base header at `offset`, as the root program found it.
#[inline(always)]
pub fn header_at(ctx: &XdpContext, offset: u32) -> Option<Header> {
    if offset > HEADER_OFFSET_MAX {
        return None;
    }
    let offset = bounded(offset);
    let start = ctx.data() as *const u8;
    // SAFETY: as in `cursor`; an offset past the end leaves nothing that the cursor would read.
    let mut cursor = unsafe { Cursor::from_raw(start.wrapping_add(offset), ctx.data_end() as *const u8) };
    cursor.read().ok()
}

/// Where the base header is, to be written to.
#[inline(always)]
pub fn header_place(ctx: &XdpContext, offset: u32) -> Option<*mut Header> {
    if offset > HEADER_OFFSET_MAX {
        return None;
    }
    place(ctx, bounded(offset))
}

/// The offset, which has been compared with [`HEADER_OFFSET_MAX`], once more bounded by an instruction that LLVM cannot
/// take for superfluous: kernels before 6.5 forget what a comparison has shown of a value that was on the stack meanwhile.
#[inline(always)]
fn bounded(offset: u32) -> usize {
    const _: () = assert!(HEADER_OFFSET_MAX <= 0x7f);
    let mut offset = offset as usize;
    // SAFETY: changes a register of its own.
    unsafe { core::arch::asm!("{0} &= 0x7f", inout(reg) offset, options(pure, nomem, nostack)) };
    offset
}

/// A place in the frame of `size_of::<T>()` bytes that can be read and written.
#[inline(always)]
pub fn place<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = (ctx.data() as *mut u8).wrapping_add(offset);
    if start.wrapping_add(size_of::<T>()) > ctx.data_end() as *mut u8 {
        return None;
    }
    Some(start.cast())
}
