//! The XDP programs of an interface: the root, which recognises a session's packets, and the stages that end a
//! packet's way. They are joined by tail calls through [`maps::STAGES`]; the policy between root and stages is another
//! object, emitted by the policy compiler.
//!
//! What a packet *is* gets decided in `tollfree-wire`, by the decoder that user space runs too. Here is only what
//! follows from it. Maps are BTF maps throughout, so that libbpf opens the object as well as aya does.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod answer;
mod count;
mod deliver;
mod maps;
mod packet;
mod reject;
mod reply;
mod root;
mod trace;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::Reason;

/// The program attached to the interface.
#[xdp]
pub fn tf_root(ctx: XdpContext) -> u32 {
    root::root(&ctx)
}

/// Stage: hand the packet to the engine.
#[xdp]
pub fn tf_deliver(ctx: XdpContext) -> u32 {
    deliver::stage(&ctx)
}

/// Stage: answer the request with a status.
#[xdp]
pub fn tf_reject(ctx: XdpContext) -> u32 {
    reject::stage(&ctx)
}

/// Stage: answer the request with a response of the policy's. (`tf_answer` is the map it is in.)
#[xdp]
pub fn tf_respond(ctx: XdpContext) -> u32 {
    answer::stage(&ctx)
}

/// Stage: drop the packet for the reason that the policy left.
#[xdp]
pub fn tf_drop(ctx: XdpContext) -> u32 {
    let reason = maps::call().map_or(Reason::PolicyDrop as u32, |call| call.reason);
    count::dropped(&ctx, reason)
}

// Policies read the clock, which the kernel allows to GPL-compatible programs only; root and policies are one thing.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops forever on purpose: the verifier refuses a program that can get here, and so proves that none can.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
