//! What this process may do.

use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities that loading and attaching need and this process lacks, by name.
pub fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    let has = |one: CapabilitySet| sets.effective.contains(one);
    // CAP_SYS_ADMIN stands in for both of the newer ones.
    let admin = has(CapabilitySet::SYS_ADMIN);
    [
        ("CAP_NET_ADMIN", has(CapabilitySet::NET_ADMIN)),
        ("CAP_BPF", admin || has(CapabilitySet::BPF)),
        ("CAP_PERFMON", admin || has(CapabilitySet::PERFMON)),
    ]
    .into_iter()
    .filter_map(|(name, held)| (!held).then_some(name))
    .collect()
}
