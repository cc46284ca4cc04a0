//! The root program: parse, find the session, check tag and replay, and send the packet on its way.

use crate::count::{count, dropped, passed, refused};
use crate::reply::Flat;
use crate::{deliver, maps, packet, reply};
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::frame::{Frame, Refusal};
use tollfree_wire::header::{FLAG_CANCEL, FLAG_RESET, METHOD_CONTROL};
use tollfree_wire::maps::{CallContext, Stage};
use tollfree_wire::session::place;
use tollfree_wire::{Header, Kind, Reason, SessionEntry};

/// Judges one packet.
#[inline(always)]
pub fn root(ctx: &XdpContext) -> u32 {
    let Some(config) = maps::CONFIG.get(0) else {
        return passed(ctx, Reason::Passed);
    };
    let mut cursor = packet::cursor(ctx);
    let frame = match Frame::decode(&mut cursor, config.ports) {
        Ok(frame) => frame,
        Err(Refusal::Foreign) => return passed(ctx, Reason::Passed),
        Err(Refusal::Refused(reason)) => return refused(ctx, reason),
    };

    // Without a session it takes the address to know that the packet is for this host, and not one that this host
    // routes or bridges.
    let reset = matches!(frame.kind, Kind::Close) && frame.header.flags & FLAG_RESET != 0;
    if frame.kind.is_handshake() || reset {
        if !maps::is_ours(&frame.destination) {
            return passed(ctx, Reason::Passed);
        }
        return deliver::to_engine(ctx);
    }

    let at = place(frame.header.session);
    let Some(entry) = maps::session(at) else {
        return passed(ctx, Reason::Passed);
    };
    // SAFETY: a slot of an array map, valid while the program runs. Another CPU or user space may write it meanwhile;
    // every value is a valid `Guard`, and user space writes the index last when it opens a session.
    let guard = unsafe { &mut (*entry).guard };
    match guard.check(&frame.header, frame.kind, frame.source, frame.source_port, cursor) {
        Ok(()) => {}
        Err(Reason::UnknownSession) => return unknown_session(ctx, &frame),
        // A packet that this host routes can hit a session of ours by its number, which its receiver chose.
        Err(_) if !maps::is_ours(&frame.destination) => return passed(ctx, Reason::Passed),
        Err(reason) => return dropped(ctx, reason as u32),
    }
    // Two CPUs can get here at once for one session and lose an update of the window: then one repetition passes,
    // or one packet is dropped and sent again. The transport runs no call twice in either case.
    if let Err(reason) = guard.accept(frame.kind, frame.header.sequence) {
        return dropped(ctx, reason as u32);
    }

    let Frame { header, kind, header_offset, .. } = frame;
    let judged =
        matches!(kind, Kind::Request) && header.method != METHOD_CONTROL && header.flags & FLAG_CANCEL == 0;
    if !judged {
        return deliver::to_engine(ctx);
    }
    if header.fragment != 0 {
        return later_fragment(ctx, &header, entry);
    }
    judge(ctx, header_offset as u32, at);
    // There is no policy: every call is delivered.
    deliver::first_fragment(ctx, &header, header_offset as u32, at, 0)
}

/// Goes on in the interface's policy; returns only if there is none.
#[inline(always)]
fn judge(ctx: &XdpContext, header_offset: u32, session: u32) {
    let Some(call) = maps::CALL.get_ptr_mut(0) else { return };
    let context = CallContext {
        header_offset,
        session,
        code: 0,
        why_len: 0,
        reason: Reason::PolicyDrop as u32,
        generation: 0,
    };
    // SAFETY: a per-CPU slot of `CALL`, which nobody else writes while this program runs on this CPU.
    unsafe { *call = context };
    // SAFETY: nothing on this stack needs dropping.
    unsafe { maps::STAGES.tail_call(ctx, Stage::Policy as u32) };
}

/// Admits a fragment that has no flat block of its own to judge: if and only if its message's first was admitted.
#[inline(always)]
fn later_fragment(ctx: &XdpContext, header: &Header, entry: *mut SessionEntry) -> u32 {
    // SAFETY: as in `root`; the slot is a byte and the array has 256 entries.
    let admitted = unsafe { (*entry).admitted[header.slot()] };
    if admitted != header.call {
        return dropped(ctx, Reason::NotAdmitted as u32);
    }
    deliver::to_engine(ctx)
}

/// Tells the sender that this host has no such session, if the packet was for this host and asks for an answer.
/// Closes, acks and rejects are never answered, so that two hosts cannot keep answering each other.
#[inline(always)]
fn unknown_session(ctx: &XdpContext, frame: &Frame) -> u32 {
    if !maps::is_ours(&frame.destination) {
        return passed(ctx, Reason::Passed);
    }
    if !matches!(frame.kind, Kind::Request | Kind::Response) {
        return dropped(ctx, Reason::UnknownSession as u32);
    }
    let Header { session, call, sequence, tag, .. } = frame.header;
    // A reset has no use for a method: the field names the session that is unknown, so that a copy of a packet with
    // another session in it cannot speak for the good one.
    let answer =
        Header { flags: FLAG_RESET, method: session, call, sequence, tag, ..Header::new(Kind::Close) };
    match reply::turn_around(ctx, frame.header_offset as u32, &answer, Flat::NONE) {
        Some(()) => {
            count(ctx, Reason::UnknownSession);
            XDP_TX
        }
        None => dropped(ctx, Reason::TxFailed as u32),
    }
}
