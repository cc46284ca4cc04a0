//! The reject stage: a policy has refused the request, and the caller learns it from here.

use crate::count::dropped;
use crate::reply::Flat;
use crate::{count, maps, packet, reply};
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::maps::{Answer, CallContext, WHY_MAX};
use tollfree_wire::tag::tag;
use tollfree_wire::{Header, Kind, Reason, SessionEntry};

/// The stage.
#[inline(always)]
pub fn stage(ctx: &XdpContext) -> u32 {
    let (Some(call), Some(why)) = (maps::call(), maps::ANSWER.get(0)) else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    let Some(entry) = maps::session(call.session) else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    match answer(ctx, &call, entry, why) {
        Some(()) => {
            // SAFETY: a slot of an array map. Only the stages count here; a lost count between two CPUs is no more.
            unsafe { (*entry).rejected += 1 };
            count::number(ctx, call.reason);
            XDP_TX
        }
        None => dropped(ctx, Reason::TxFailed as u32),
    }
}

/// Turns the request into a reject with the policy's code and text, signed with the session's key. The text makes it longer
/// than some requests: it goes to nobody but the session's peer, which has shown that it is at its address.
#[inline(always)]
fn answer(ctx: &XdpContext, context: &CallContext, entry: *mut SessionEntry, why: &Answer) -> Option<()> {
    let request = packet::header_at(ctx, context.header_offset)?;
    // SAFETY: a slot of an array map, valid while the program runs; any bytes are a valid `Guard`.
    let guard = unsafe { &(*entry).guard };
    if context.why_len as usize > WHY_MAX {
        return None;
    }
    let why_len = unknown(context.why_len.into()) as u16;
    let Header { method, call, sequence, .. } = request;
    let mut reject = Header {
        status: context.code as u8,
        flat_len: why_len,
        session: guard.peer_index,
        method,
        call,
        sequence,
        ..Header::new(Kind::Reject)
    };
    let text = Flat::new(&why.flat, reject.flat_span());
    reject.tag = tag(guard.key, &reject, text.cursor()).ok()?;
    reply::turn_around(ctx, context.header_offset, &reject, text)
}

/// A number of which the compiler knows nothing. It would else leave out bounds of loops that it knows from a check, and that
/// the verifier does not.
#[inline(always)]
fn unknown(mut number: u64) -> u64 {
    // SAFETY: copies a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}
