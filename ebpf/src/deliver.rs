//! Handing packets to the engine, by the AF_XDP socket of the queue they arrived on.

use crate::count::{count, dropped};
use crate::{maps, packet};
use aya_ebpf::programs::XdpContext;
use core::mem::offset_of;
use tollfree_wire::maps::JUDGED;
use tollfree_wire::{Header, Kind, Reason};

/// The stage: a policy has admitted the request.
#[inline(always)]
pub fn stage(ctx: &XdpContext) -> u32 {
    let Some(call) = maps::call() else {
        return dropped(ctx, Reason::NoEngine as u32);
    };
    let Some(header) = packet::header_at(ctx, call.header_offset) else {
        return dropped(ctx, Reason::Truncated as u32);
    };
    let judged = if call.generation == 0 { JUDGED } else { call.generation };
    first_fragment(ctx, &header, call.header_offset, call.session, judged)
}

/// Delivers an admitted request's only or first fragment; takes note of the call if more fragments follow. `judged`
/// goes where the tag was, which nobody needs any more: 0 where no policy has judged the call, [`JUDGED`] where one has
/// to the end, else the generation of the policy whose rest the engine is to judge.
#[inline(always)]
pub fn first_fragment(ctx: &XdpContext, header: &Header, offset: u32, session: u32, judged: u64) -> u32 {
    if header.fragments > 1
        && header.fragment == 0
        && header.kind == Kind::Request as u8
        && let Some(entry) = maps::session(session)
    {
        // SAFETY: a slot of an array map, valid while the program runs; the slot number is a byte, the array has 256.
        let admitted = unsafe { &mut (*entry).admitted[header.slot()] };
        // A call that was in the slot before, its first fragment late, must not shut out the fragments of this one.
        *admitted = header.call.max(*admitted);
    }
    match packet::header_place(ctx, offset) {
        Some(place) => {
            let tag = place.wrapping_byte_add(offset_of!(Header, tag)).cast::<u64>();
            // SAFETY: `header_place` checked that a whole header lies there; the kernel allows unaligned writes.
            unsafe { tag.write(judged) };
            to_engine(ctx)
        }
        None => dropped(ctx, Reason::Truncated as u32),
    }
}

/// Redirects the packet to the queue's socket.
#[inline(always)]
pub fn to_engine(ctx: &XdpContext) -> u32 {
    match maps::SOCKETS.redirect(ctx.rx_queue_index(), 0) {
        Ok(action) => {
            count(ctx, Reason::Delivered);
            action
        }
        Err(_) => dropped(ctx, Reason::NoEngine as u32),
    }
}
