//! The answer stage: a policy knows the call's response, and the caller gets it from here. The server does not hear
//! of the call.

use crate::count::dropped;
use crate::reply::Flat;
use crate::{count, maps, packet, reply};
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::maps::{Answer, CallContext};
use tollfree_wire::tag::tag;
use tollfree_wire::{Code, Header, Kind, Reason, SessionEntry};

/// The stage.
#[inline(always)]
pub fn stage(ctx: &XdpContext) -> u32 {
    let (Some(call), Some(response)) = (maps::call(), maps::ANSWER.get(0)) else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    let Some(entry) = maps::session(call.session) else {
        return dropped(ctx, Reason::TxFailed as u32);
    };
    match answer(ctx, &call, entry, response) {
        Some(()) => {
            count::count(ctx, Reason::PolicyAnswer);
            XDP_TX
        }
        None => dropped(ctx, Reason::TxFailed as u32),
    }
}

/// Turns the request into a reject with status OK and the response's flat block, signed with the session's key. It may
/// be longer than the request: it goes to nobody but the session's peer, which has shown that it is at its address.
#[inline(always)]
fn answer(
    ctx: &XdpContext,
    context: &CallContext,
    entry: *mut SessionEntry,
    response: &Answer,
) -> Option<()> {
    let request = packet::header_at(ctx, context.header_offset)?;
    // SAFETY: a slot of an array map, valid while the program runs; any bytes are a valid `Guard`.
    let guard = unsafe { &(*entry).guard };
    if response.flat_len as usize > FLAT_MAX {
        return None;
    }
    let Header { method, call, sequence, .. } = request;
    let mut answer = Header {
        status: Code::Ok as u8,
        flat_len: response.flat_len as u16,
        session: guard.peer_index,
        method,
        call,
        sequence,
        layout: response.layout,
        ..Header::new(Kind::Reject)
    };
    let flat = Flat::new(&response.flat, answer.flat_span());
    answer.tag = tag(guard.key, &answer, flat.cursor()).ok()?;
    reply::turn_around(ctx, context.header_offset, &answer, flat)
}
