//! Handing packets to the engine, by the AF_XDP socket of the queue they arrived on.

use crate::count::{count, dropped};
use crate::{maps, packet};
use aya_ebpf::programs::XdpContext;
use tollfree_wire::{Header, Kind, Reason, SessionEntry};

/// The stage: a policy has admitted the request.
#[inline(always)]
pub fn stage(ctx: &XdpContext) -> u32 {
    let Some(call) = maps::call() else {
        return dropped(ctx, Reason::NoEngine as u32);
    };
    let Some(header) = packet::header_at(ctx, call.header_offset) else {
        return dropped(ctx, Reason::Truncated as u32);
    };
    match maps::session(call.session) {
        Some(entry) => first_fragment(ctx, &header, entry),
        None => to_engine(ctx),
    }
}

/// Delivers an admitted request's only or first fragment; takes note of the call if more fragments follow.
#[inline(always)]
pub fn first_fragment(ctx: &XdpContext, header: &Header, entry: *mut SessionEntry) -> u32 {
    if header.fragments > 1 && header.fragment == 0 && header.kind == Kind::Request as u8 {
        // SAFETY: a slot of an array map, valid while the program runs; the slot number is a byte, the array has 256.
        let admitted = unsafe { &mut (*entry).admitted[header.slot()] };
        // A call that was in the slot before, its first fragment late, must not shut out the fragments of this one.
        *admitted = header.call.max(*admitted);
    }
    to_engine(ctx)
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
