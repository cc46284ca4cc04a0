//! The maps, under the names that `tollfree_wire::maps` gives them.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, ProgramArray, XskMap};
use aya_ebpf::macros::btf_map;
use tollfree_wire::frame::Address;
use tollfree_wire::maps::{
    ADDRESSES_MAX, Answer, CallContext, Config, LAYOUTS_MAX, LayoutKey, PeerEntry, QUEUES_MAX, Stage,
};
use tollfree_wire::session::SESSION_SLOTS;
use tollfree_wire::{Reason, SessionEntry};

#[btf_map(name = "tf_config")]
pub static CONFIG: Array<Config, 1> = Array::new();

#[btf_map(name = "tf_sessions")]
pub static SESSIONS: Array<SessionEntry, { SESSION_SLOTS as usize }> = Array::new();

#[btf_map(name = "tf_stages")]
pub static STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();

#[btf_map(name = "tf_sockets")]
pub static SOCKETS: XskMap<{ QUEUES_MAX as usize }> = XskMap::new();

#[btf_map(name = "tf_reasons")]
pub static REASONS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();

#[btf_map(name = "tf_call")]
pub static CALL: PerCpuArray<CallContext, 1> = PerCpuArray::new();

/// Policies fill it in, the answer stage reads it.
#[btf_map(name = "tf_answer")]
pub static ANSWER: PerCpuArray<Answer, 1> = PerCpuArray::new();

/// Only policies read it and the layouts below; they are here so that they exist before the first policy does.
#[btf_map(name = "tf_peers")]
pub static PEERS: Array<PeerEntry, { SESSION_SLOTS as usize }> = Array::new();

#[btf_map(name = "tf_layouts")]
pub static LAYOUTS: HashMap<LayoutKey, u32, { LAYOUTS_MAX as usize }> = HashMap::new();

#[btf_map(name = "tf_addresses")]
pub static ADDRESSES: HashMap<Address, u8, { ADDRESSES_MAX as usize }> = HashMap::new();

/// What the root program left for the stage that runs now.
#[inline(always)]
pub fn call() -> Option<CallContext> {
    CALL.get(0).copied()
}

/// The table's entry at a place.
#[inline(always)]
pub fn session(place: u32) -> Option<*mut SessionEntry> {
    SESSIONS.get_ptr_mut(place)
}

/// Whether packets to this address are for this host, as far as user space has said.
#[inline(always)]
pub fn is_ours(address: &Address) -> bool {
    ADDRESSES.get_ptr(address).is_some()
}
