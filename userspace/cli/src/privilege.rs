//! Which capabilities this process has, and the error that names the missing ones.

use crate::exit::Exit;
use anyhow::Result;
use rustix::thread::{CapabilitySet, capabilities};

/// What a command needs the kernel to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// CAP_NET_ADMIN: attach XDP to an interface.
    NetAdmin,
    /// CAP_BPF: load programs, make maps.
    Bpf,
    /// CAP_PERFMON: pass the verifier with programs that compare packet pointers.
    Perfmon,
    /// CAP_NET_RAW: open AF_XDP sockets.
    NetRaw,
}

/// What loading and attaching takes.
pub const ATTACH: &[Capability] = &[Capability::NetAdmin, Capability::Bpf, Capability::Perfmon];
/// What the `afxdp` backend takes.
pub const AFXDP: &[Capability] =
    &[Capability::NetAdmin, Capability::Bpf, Capability::Perfmon, Capability::NetRaw];

impl Capability {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::Bpf => "CAP_BPF",
            Capability::Perfmon => "CAP_PERFMON",
            Capability::NetRaw => "CAP_NET_RAW",
        }
    }

    /// Whether this process has it.
    pub fn held(self) -> bool {
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        match self {
            Capability::NetAdmin => effective.contains(CapabilitySet::NET_ADMIN),
            // The kernel lets the old all-round capability stand in for the new ones.
            Capability::Perfmon => effective.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
            Capability::Bpf => effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
            Capability::NetRaw => effective.contains(CapabilitySet::NET_RAW),
        }
    }
}

/// The ones of `needed` that this process lacks.
pub fn missing(needed: &[Capability]) -> Vec<&'static str> {
    needed.iter().filter(|capability| !capability.held()).map(|capability| capability.name()).collect()
}

/// Refuses to go on without these capabilities, naming what is missing, before anything is changed.
///
/// # Errors
/// [`Exit::Privilege`].
pub fn require(what: &str, needed: &[Capability]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Exit::Privilege(format!(
        "{what} needs {}, which this process lacks; run it as root or grant it with setcap (the udp backend works \
         without)",
        list(&missing)
    ))
    .into())
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_read_as_people_write_them() {
        for (names, text) in [(&["a"][..], "a"), (&["a", "b"], "a and b"), (&["a", "b", "c"], "a, b and c")] {
            assert_eq!(super::list(names), text);
        }
    }
}
