//! A line per verdict through aya-log, in the `trace` flavour of the object only; nothing otherwise.

use aya_ebpf::programs::XdpContext;

/// Logs the reason a packet is counted under.
#[cfg(feature = "trace")]
#[inline(always)]
pub fn verdict(ctx: &XdpContext, reason: u32) {
    log(ctx.ctx, reason);
}

/// A function of its own: inlined at every verdict, what logging keeps on the stack would not fit there.
#[cfg(feature = "trace")]
#[inline(never)]
fn log(ctx: *mut aya_ebpf::bindings::xdp_md, reason: u32) {
    let ctx = XdpContext::new(ctx);
    let length = ctx.data_end().wrapping_sub(ctx.data());
    aya_log_ebpf::info!(&ctx, "queue {} bytes {} reason {}", ctx.rx_queue_index(), length, reason);
}

/// Does nothing.
#[cfg(not(feature = "trace"))]
#[inline(always)]
pub fn verdict(_ctx: &XdpContext, _reason: u32) {}
