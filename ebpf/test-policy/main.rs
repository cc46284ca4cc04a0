//! A policy for the loader's tests, which must not depend on the policy compiler: the request itself says, in the
//! first word of its flat block, what to do with it.
#![no_std]
#![no_main]

#[path = "../src/maps.rs"]
#[expect(dead_code, reason = "the helpers in it are the root program's and its stages'")]
mod maps;

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use tollfree_wire::header::{FLAT_MAX, HEADER_LEN};
use tollfree_wire::maps::{Answer, Stage};
use tollfree_wire::{Code, Cursor, Reason};

#[cfg(not(feature = "wide"))]
type Value = u32;
#[cfg(feature = "wide")]
type Value = u64;

/// Whether a user may call; the user is the flat block's second word.
#[btf_map(name = "rules")]
static RULES: HashMap<u32, Value, 16> = HashMap::new();

/// What policies can have besides hash tables, in the flavour whose table has another type.
#[cfg(feature = "wide")]
mod own {
    use aya_ebpf::btf_maps::{Array, PerCpuArray};
    use aya_ebpf::macros::btf_map;
    use tollfree_wire::session::SESSION_SLOTS;

    #[btf_map(name = "tf_generation")]
    static GENERATION: Array<u64, 1> = Array::new();

    /// A session's index, and one byte that was decided.
    #[btf_map(name = "tf_decisions")]
    static DECISIONS: Array<[u32; 2], { SESSION_SLOTS as usize }> = Array::new();

    /// A cell.
    #[btf_map(name = "limit")]
    static LIMIT: Array<u64, 1> = Array::new();

    /// A counter.
    #[btf_map(name = "calls")]
    static CALLS: PerCpuArray<u64, 1> = PerCpuArray::new();

    /// Counts the call; the policy's generation if the cell says 5 and the session may call.
    #[inline(always)]
    pub fn generation(session: u32) -> u64 {
        if let Some(calls) = CALLS.get_ptr_mut(0) {
            // SAFETY: a per-CPU slot which nobody else writes while this program runs on this CPU.
            unsafe { *calls += 1 };
        }
        match (LIMIT.get(0), DECISIONS.get(session), GENERATION.get(0)) {
            (Some(5), Some([_, 1]), Some(generation)) => *generation,
            _ => 0,
        }
    }
}

/// What the smaller flavour has instead.
#[cfg(not(feature = "wide"))]
mod own {
    /// Any number.
    pub fn generation(_session: u32) -> u64 {
        3
    }
}

/// The policy.
#[xdp]
pub fn tf_policy(ctx: XdpContext) -> u32 {
    let Some(call) = maps::CALL.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a per-CPU slot which nobody else writes while this program runs on this CPU.
    let call = unsafe { &mut *call };
    let (stage, code, reason) = verdict(&ctx, call.header_offset);
    call.code = code as u16;
    call.why_len = if stage == Stage::Reject { why_len(&ctx, call.header_offset) } else { 0 };
    call.reason = reason as u32;
    // The engine has to judge the rest of it, if there is one.
    call.generation =
        if stage == Stage::Deliver && code == Code::Aborted { own::generation(call.session) } else { 0 };
    // SAFETY: nothing on this stack needs dropping.
    unsafe { maps::STAGES.tail_call(&ctx, stage as u32) };
    XDP_DROP
}

/// A reject says as many bytes as the request's second word does, each `w`.
fn why_len(ctx: &XdpContext, offset: u32) -> u16 {
    let (Some(length), Some(answer)) = (second_word(ctx, offset), maps::ANSWER.get_ptr_mut(0)) else {
        return 0;
    };
    if length == 0 || length > 256 {
        return 0;
    }
    let mut flat = [b'w'; FLAT_MAX];
    // Zeros behind the text, for the one length of the tests that needs them.
    if length == 13 {
        (flat[13], flat[14], flat[15]) = (0, 0, 0);
    }
    // SAFETY: a per-CPU slot which nobody else writes while this program runs on this CPU.
    unsafe { *answer = Answer { flat_len: 0, layout: 0, flat } };
    length as u16
}

fn second_word(ctx: &XdpContext, offset: u32) -> Option<u32> {
    if offset > 66 {
        return None;
    }
    let start = (ctx.data() + offset as usize + HEADER_LEN) as *const u8;
    // SAFETY: the kernel gives a program exclusive use of the packet while it runs.
    let mut flat = unsafe { Cursor::from_raw(start, ctx.data_end() as *const u8) };
    flat.skip::<4>().ok()?;
    flat.read::<u32>().ok()
}

fn verdict(ctx: &XdpContext, offset: u32) -> (Stage, Code, Reason) {
    let delivered = (Stage::Deliver, Code::Ok, Reason::Delivered);
    if offset > 66 {
        return delivered;
    }
    let start = (ctx.data() + offset as usize + HEADER_LEN) as *const u8;
    // SAFETY: the kernel gives a program exclusive use of the packet while it runs.
    let mut flat = unsafe { Cursor::from_raw(start, ctx.data_end() as *const u8) };
    let (Ok(verdict), Ok(user)) = (flat.read::<u32>(), flat.read::<u32>()) else { return delivered };
    match verdict {
        1 => (Stage::Reject, Code::PermissionDenied, Reason::PolicyReject),
        2 => (Stage::Drop, Code::Ok, Reason::PolicyDrop),
        3 => (Stage::Reject, Code::FailedPrecondition, Reason::UnknownLayout),
        4 => (Stage::Reject, Code::Unauthenticated, Reason::SessionIdle),
        // With a flat block of as many bytes as the second word says, each 7.
        6 => {
            let Some(answer) = maps::ANSWER.get_ptr_mut(0) else { return delivered };
            // SAFETY: a per-CPU slot which nobody else writes while this program runs on this CPU.
            unsafe { *answer = Answer { flat_len: user, layout: 77, flat: [7; FLAT_MAX] } };
            (Stage::Answer, Code::Ok, Reason::PolicyAnswer)
        }
        5 if RULES.get_ptr(user).is_none() => (Stage::Drop, Code::Ok, Reason::PolicyDrop),
        8 => (Stage::Reject, Code::Unavailable, Reason::Undecided),
        7 => (Stage::Deliver, Code::Aborted, Reason::Delivered),
        _ => delivered,
    }
}

// As in the programs proper.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops forever on purpose: the verifier refuses a program that can get here, and so proves that none can.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
