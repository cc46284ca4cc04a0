//! How the calls of a method are carried: what a policy's transport block says of it, as both ends agree on it in the
//! handshake. Not here: how it is done (transport), how it is written (policy).

use crate::header::METHOD_CONTROL;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Methods that one transport block can name: what fits a hello.
pub const SPECS_MAX: usize = 40;
/// The largest window that can be asked for, in fragments.
pub const WINDOW_MAX: u16 = 1024;
/// Bytes of the order extension: the call's number and the lowest number still of interest.
pub const ORDER_LEN: usize = 8;
/// Bytes of the checksum behind each fragment of a method with one.
pub const CHECKSUM_LEN: usize = 4;

/// Whether what gets lost is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Every packet is sent once. Nothing is acknowledged, nothing is kept to be sent again.
    Unreliable = 1,
    /// Sent until the peer has it; the answer is kept until its caller has it.
    Reliable = 2,
}

/// How the calls of one method are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodSpec {
    /// Whether what gets lost is sent again.
    pub class: Class,
    /// Requests reach the service in the order in which they were made on their session. Reliable methods only.
    pub ordered: bool,
    /// Every fragment's body carries a CRC32C; one that does not match counts as lost.
    pub checksum: bool,
    /// The longest a call may take, in µs, whatever deadline its caller asks for; 0: no limit.
    pub timeout_us: u32,
    /// Most fragments of one message that are under way at once; 0: the transport's own limit. Reliable methods only.
    pub window: u16,
}

/// How methods are carried that no transport block names.
impl Default for MethodSpec {
    fn default() -> MethodSpec {
        MethodSpec { class: Class::Reliable, ..MethodSpec::UNRELIABLE }
    }
}

impl MethodSpec {
    /// Sent once, and that is all.
    pub const UNRELIABLE: MethodSpec =
        MethodSpec { class: Class::Unreliable, ordered: false, checksum: false, timeout_us: 0, window: 0 };

    /// Whether what gets lost is sent again.
    #[inline]
    pub fn is_reliable(&self) -> bool {
        matches!(self.class, Class::Reliable)
    }

    /// What two ends that both name a method agree on: whatever either asks for. The result asks for nothing that one
    /// end does not have to give, and is the same at both.
    #[must_use]
    pub fn and(self, other: MethodSpec) -> MethodSpec {
        let MethodSpec { class, ordered, checksum, timeout_us, window } = self;
        MethodSpec {
            class: class.max(other.class),
            ordered: ordered | other.ordered,
            checksum: checksum | other.checksum,
            timeout_us: tighter(timeout_us, other.timeout_us),
            window: tighter(window, other.window),
        }
    }
}

/// The smaller of two limits of which 0 is none.
fn tighter<T: Ord + Default>(a: T, b: T) -> T {
    if a == T::default() || (b != T::default() && b < a) { b } else { a }
}

/// One method of a transport block, as hellos and welcomes carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SpecEntry {
    /// The method's id, never [`METHOD_CONTROL`].
    pub method: u32,
    /// See [`MethodSpec::timeout_us`].
    pub timeout_us: u32,
    /// See [`MethodSpec::window`].
    pub window: u16,
    /// A [`Class`]; in a welcome 0 for a method that the server cannot carry as the hello asked.
    pub class: u8,
    /// `FLAG_*` bits.
    pub flags: u8,
}

/// Flag: see [`MethodSpec::ordered`].
pub const FLAG_ORDERED: u8 = 1 << 0;
/// Flag: see [`MethodSpec::checksum`].
pub const FLAG_CHECKSUM: u8 = 1 << 1;

const _: () = assert!(size_of::<SpecEntry>() == 12);

impl SpecEntry {
    /// The entry that says so.
    pub fn new(method: u32, spec: &MethodSpec) -> SpecEntry {
        let MethodSpec { class, ordered, checksum, timeout_us, window } = *spec;
        let flags = if ordered { FLAG_ORDERED } else { 0 } | if checksum { FLAG_CHECKSUM } else { 0 };
        SpecEntry { method, timeout_us, window, class: class as u8, flags }
    }

    /// The entry of a welcome that refuses a method.
    pub fn refusal(method: u32) -> SpecEntry {
        SpecEntry { method, ..SpecEntry::default() }
    }

    /// What the entry says; `None` for what cannot be, or what only a later version knows.
    pub fn spec(&self) -> Option<MethodSpec> {
        let SpecEntry { method, timeout_us, window, class, flags } = *self;
        let class = match class {
            1 => Class::Unreliable,
            2 => Class::Reliable,
            _ => return None,
        };
        let ordered = flags & FLAG_ORDERED != 0;
        let reliable_only = ordered || window != 0;
        let sound = method != METHOD_CONTROL
            && flags & !(FLAG_ORDERED | FLAG_CHECKSUM) == 0
            && window <= WINDOW_MAX
            && (class == Class::Reliable || !reliable_only);
        let checksum = flags & FLAG_CHECKSUM != 0;
        sound.then_some(MethodSpec { class, ordered, checksum, timeout_us, window })
    }
}

#[cfg(feature = "std")]
impl std::fmt::Display for MethodSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MethodSpec { class, ordered, checksum, timeout_us, window } = *self;
        f.write_str(match class {
            Class::Unreliable => "unreliable()",
            Class::Reliable => "reliable()",
        })?;
        if ordered {
            f.write_str(" -> ordered()")?;
        }
        if window != 0 {
            write!(f, " -> window({window})")?;
        }
        if checksum {
            f.write_str(" -> checksum()")?;
        }
        match timeout_us {
            0 => Ok(()),
            us if us.is_multiple_of(1_000_000) => write!(f, " -> timeout({}s)", us / 1_000_000),
            us if us.is_multiple_of(1_000) => write!(f, " -> timeout({}ms)", us / 1_000),
            us => write!(f, " -> timeout({us}us)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = SpecEntry> {
        (any::<u32>(), any::<u32>(), 0..2000u16, 0..4u8, 0..5u8).prop_map(
            |(method, timeout_us, window, class, flags)| SpecEntry {
                method,
                timeout_us,
                window,
                class,
                flags,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_sound_comes_back_and_two_sound_ones_agree(a in entry(), b in entry()) {
            for entry in [a, b] {
                if let Some(spec) = entry.spec() {
                    prop_assert_eq!(SpecEntry::new(entry.method, &spec), entry);
                }
            }
            if let (Some(one), Some(other)) = (a.spec(), b.spec()) {
                let agreed = one.and(other);
                prop_assert_eq!(agreed, other.and(one));
                prop_assert_eq!(agreed.and(one), agreed);
                prop_assert_eq!(SpecEntry::new(a.method, &agreed).spec(), Some(agreed));
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = SpecEntry::new(7, &MethodSpec::default());
        assert_eq!(good.spec(), Some(MethodSpec::default()));
        let unreliable = SpecEntry::new(7, &MethodSpec::UNRELIABLE);
        let nonsense = [
            SpecEntry { method: METHOD_CONTROL, ..good },
            SpecEntry { class: 0, ..good },
            SpecEntry { class: 3, ..good },
            SpecEntry { flags: 4, ..good },
            SpecEntry { window: WINDOW_MAX + 1, ..good },
            SpecEntry { flags: FLAG_ORDERED, ..unreliable },
            SpecEntry { window: 8, ..unreliable },
            SpecEntry::refusal(7),
        ];
        for entry in nonsense {
            assert_eq!(entry.spec(), None, "{entry:?}");
        }
    }
}
