//! The reject stage: a policy has refused the request, and the caller learns it from here.

use crate::count::dropped;
use crate::reply::Flat;
use crate::{count, maps, packet, reply};
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::maps::CallContext;
use tollfree_wire::tag::tag;
use tollfree_wire::{Cursor, Header, Kind, Reason, SessionEntry};

/// The stage.
#[inline(always)]
pub fn stage(ctx: &XdpContext) -> u32 {
    let Some(call) = maps::call() else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    let Some(entry) = maps::session(call.session) else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    match answer(ctx, &call, entry) {
        Some(()) => {
            // SAFETY: a slot of an array map. Only the stages count here; a lost count between two CPUs is no more.
            unsafe { (*entry).rejected += 1 };
            count::number(ctx, call.reason);
            XDP_TX
        }
        None => dropped(ctx, Reason::TxFailed as u32),
    }
}

/// Turns the request into a reject with the policy's code, signed with the session's key.
#[inline(always)]
fn answer(ctx: &XdpContext, context: &CallContext, entry: *mut SessionEntry) -> Option<()> {
    let request = packet::header_at(ctx, context.header_offset)?;
    // SAFETY: a slot of an array map, valid while the program runs; any bytes are a valid `Guard`.
    let guard = unsafe { &(*entry).guard };
    let Header { method, call, sequence, .. } = request;
    let mut reject = Header {
        status: context.code as u8,
        session: guard.peer_index,
        method,
        call,
        sequence,
        ..Header::new(Kind::Reject)
    };
    reject.tag = tag(guard.key, &reject, Cursor::new(&[])).ok()?;
    reply::turn_around(ctx, context.header_offset, &reject, Flat::NONE)
}
