//! The BPF maps that the root program, the policy programs and user space share: names, keys and values.

use crate::Code;
use crate::frame::Ports;
use crate::header::FLAT_MAX;
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

/// Per-CPU array, one [`Answer`].
pub const ANSWER: &str = "tf_answer";
/// Array of [`PeerEntry`], by [`crate::session::place`]: who is at the other end, as far as policies ask.
pub const PEERS: &str = "tf_peers";
/// A map of each policy's own, array of bytes by [`crate::session::place`]: four bytes with the session's index, then
/// what was [`Decision`]-ed per session, one byte per run of elements and method.
pub const DECISIONS: &str = "tf_decisions";
/// A map of each policy's own, array, one `u64`: the policy's generation, filled in before the policy is in force.
pub const GENERATION: &str = "tf_generation";
/// A map of each policy's own, per-CPU array, one entry: where its program keeps what does not fit into registers.
pub const SCRATCH: &str = "tf_scratch";

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
    /// UDP ports of Tollfree on this host.
    pub ports: Ports,
    /// Zero.
    pub reserved: [u16; 2],
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
    /// Answer OK with what is in [`ANSWER`], count [`crate::Reason::PolicyAnswer`]. Never empty.
    Answer = 4,
}

impl Stage {
    /// The length of [`STAGES`].
    pub const COUNT: u32 = 5;
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
    pub code: u16,
    /// For [`Stage::Reject`]: bytes of the text that says why, at the front of [`Answer::flat`] with zeros up to a multiple of
    /// eight behind it; at most [`WHY_MAX`], 0 for none.
    pub why_len: u16,
    /// For [`Stage::Reject`] and [`Stage::Drop`]: the [`crate::Reason`] to count.
    pub reason: u32,
    /// For [`Stage::Deliver`]: the generation of the policy that has judged the call so far and leaves the rest to the
    /// engine; 0: there is no rest, and the engine finds [`JUDGED`].
    pub generation: u64,
}

/// The longest text of a reject that is made where the packet arrives, in bytes.
pub const WHY_MAX: usize = 128;

/// What the engine finds where the tag of a judged request was, if the policy left nothing for it to judge. A smaller
/// number is the generation of a policy that did, 0 says that there was no policy.
pub const JUDGED: u64 = u64::MAX;

/// What [`Stage::Answer`] answers with; for [`Stage::Reject`] the flat block is a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Answer {
    /// Bytes of the response's flat block.
    pub flat_len: u32,
    /// The layout of the response's flat block.
    pub layout: u32,
    /// The flat block, zeros behind it.
    pub flat: [u8; FLAT_MAX],
}

/// What was decided once per session: a byte in [`DECISIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// On to the next element.
    Send,
    /// Drop it.
    Drop,
    /// Answer with a status.
    Reject(Code),
    /// Answer with one of the statuses that the policy has a text for.
    RejectSaying(u8),
}

impl Decision {
    /// The byte; 0 stands for what is not decided.
    pub const fn to_byte(self) -> u8 {
        match self {
            Decision::Send => 1,
            Decision::Drop => 2,
            Decision::Reject(code) => DECISION_REJECT + code as u8,
            Decision::RejectSaying(index) => DECISION_SAYING.saturating_add(index),
        }
    }
}

/// What [`Decision::Reject`]'s code is added to.
pub const DECISION_REJECT: u8 = 16;
/// What [`Decision::RejectSaying`]'s index is added to.
pub const DECISION_SAYING: u8 = 64;
/// The most texts that a policy's decisions can tell apart.
pub const SAYINGS_MAX: usize = (u8::MAX - DECISION_SAYING) as usize;

/// Longest identity and namespace, in bytes.
pub const IDENTITY_MAX: usize = 63;

/// Who is at the other end of a session: a value of [`PEERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PeerEntry {
    /// The session's index; 0: nobody is known.
    pub session: u32,
    /// Zero.
    pub reserved: u32,
    /// IPv4 mapped into IPv6.
    pub address: [u8; 16],
    /// A length byte, text, zeros; length 0: not known.
    pub identity: [u8; 1 + IDENTITY_MAX],
    /// A length byte, text, zeros; length 0: not known.
    pub namespace: [u8; 1 + IDENTITY_MAX],
}

impl PeerEntry {
    /// The entry of a session. A text of more than [`IDENTITY_MAX`] bytes is left out, never cut.
    pub fn new(
        session: u32,
        address: [u8; 16],
        identity: Option<&str>,
        namespace: Option<&str>,
    ) -> PeerEntry {
        PeerEntry { session, reserved: 0, address, identity: inline(identity), namespace: inline(namespace) }
    }
}

/// A length byte, text, zeros.
fn inline(text: Option<&str>) -> [u8; 1 + IDENTITY_MAX] {
    let mut bytes = [0; 1 + IDENTITY_MAX];
    let text = text.unwrap_or_default().as_bytes();
    if let (Some(room), Ok(length)) = (bytes.get_mut(1..=text.len()), u8::try_from(text.len())) {
        room.copy_from_slice(text);
        bytes[0] = length;
    }
    bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_as_xdp_reads_it() {
        let entry = PeerEntry::new(5, [7; 16], Some("frontend"), None);
        assert_eq!((entry.session, entry.address), (5, [7; 16]));
        assert_eq!(&entry.identity[..10], b"\x08frontend\0");
        assert_eq!(entry.namespace, [0; 1 + IDENTITY_MAX], "not known");
        let long = std::string::String::from_utf8(std::vec![b'x'; IDENTITY_MAX + 1]).unwrap();
        assert_eq!(inline(Some(&long[1..]))[0], IDENTITY_MAX as u8);
        assert_eq!(inline(Some(&long))[0], 0, "never cut");
    }
}
