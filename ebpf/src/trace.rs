//! A line per verdict through aya-log, in the `trace` flavour of the object only; nothing otherwise.

use aya_ebpf::programs::XdpContext;

/// Logs the reason a packet is counted under.
#[cfg(feature = "trace")]
#[inline(always)]
pub fn verdict(ctx: &XdpContext, reason: u32) {
    let length = ctx.data_end().wrapping_sub(ctx.data());
    aya_log_ebpf::info!(ctx, "queue {} bytes {} reason {}", ctx.rx_queue_index(), length, reason);
}

/// Does nothing.
#[cfg(not(feature = "trace"))]
#[inline(always)]
pub fn verdict(_ctx: &XdpContext, _reason: u32) {}
