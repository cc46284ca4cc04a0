//! The per-CPU counters, and the verdicts that need nothing but a count.

use crate::maps::REASONS;
use crate::trace;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use tollfree_wire::Reason;
use tollfree_wire::reason::Outcome;

/// Counts one packet under the reason with this number.
#[inline(always)]
pub fn number(ctx: &XdpContext, reason: u32) {
    trace::verdict(ctx, reason);
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: a per-CPU slot of `REASONS`, which nobody else writes while this program runs on this CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts one packet.
#[inline(always)]
pub fn count(ctx: &XdpContext, reason: Reason) {
    number(ctx, reason as u32);
}

/// Counts and drops.
#[inline(always)]
pub fn dropped(ctx: &XdpContext, reason: u32) -> u32 {
    number(ctx, reason);
    XDP_DROP
}

/// Counts and leaves the packet to the kernel.
#[inline(always)]
pub fn passed(ctx: &XdpContext, reason: Reason) -> u32 {
    count(ctx, reason);
    XDP_PASS
}

/// Counts, and does what is done with packets that are refused for this reason before they have a session.
#[inline(always)]
pub fn refused(ctx: &XdpContext, reason: Reason) -> u32 {
    match reason.outcome() {
        Outcome::Pass => passed(ctx, reason),
        Outcome::Deliver | Outcome::Answer | Outcome::Drop => dropped(ctx, reason as u32),
    }
}
