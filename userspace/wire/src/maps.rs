//! The BPF maps that the root program, the policy programs and user space share: names, keys and values.

use bytemuck::{Pod, Zeroable};

/// Array, one [`Config`].
pub const CONFIG: &str = "tf_config";
/// Array of [`crate::SessionEntry`], by [`crate::session::place`].
pub const SESSIONS: &str = "tf_sessions";
/// Program array, by [`Stage`].
pub const STAGES: &str = "tf_stages";
/// XSKMAP, by receive queue.
pub const SOCKETS: &str = "tf_sockets";
/// Per-CPU array of `u64` packet counts, by [`crate::Reason::index`].
pub const REASONS: &str = "tf_reasons";
/// Per-CPU array, one [`CallContext`].
pub const CALL: &str = "tf_call";
/// Hash from [`LayoutKey`] to `u32`: the fingerprint of the layout, known to the policy, that a peer's own layout was
/// found to be an extension of.
pub const LAYOUTS: &str = "tf_layouts";
/// Hash from [`crate::frame::Address`] to `u8`: the addresses whose Tollfree packets are for this host.
pub const ADDRESSES: &str = "tf_addresses";

/// Receive queues one interface can have: the length of [`SOCKETS`].
pub const QUEUES_MAX: u32 = 64;
/// Entries of [`LAYOUTS`].
pub const LAYOUTS_MAX: u32 = 4096;
/// Entries of [`ADDRESSES`].
pub const ADDRESSES_MAX: u32 = 256;

/// Settings of the root program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// UDP port of Tollfree on this host.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// The places in [`STAGES`]. A tail call into an empty place goes on as described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// The interface's policy. Empty: every call is delivered.
    Policy = 0,
    /// Hand the packet to the engine. Never empty.
    Deliver = 1,
    /// Answer with [`CallContext::code`], count [`CallContext::reason`]. Never empty.
    Reject = 2,
    /// Drop, count [`CallContext::reason`]. Never empty.
    Drop = 3,
}

impl Stage {
    /// The length of [`STAGES`].
    pub const COUNT: u32 = 4;
}

/// What the root program found out about the packet at hand, for the stages after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CallContext {
    /// Where the base header starts in the frame, in bytes: 42, 46, 62 or 66.
    pub header_offset: u32,
    /// The session's place in [`SESSIONS`].
    pub session: u32,
    /// For [`Stage::Reject`]: the [`crate::Code`] to answer with.
    pub code: u32,
    /// For [`Stage::Reject`] and [`Stage::Drop`]: the [`crate::Reason`] to count.
    pub reason: u32,
}

/// Key of [`LAYOUTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LayoutKey {
    /// The method's id.
    pub method: u32,
    /// The fingerprint in the packet.
    pub layout: u32,
}
