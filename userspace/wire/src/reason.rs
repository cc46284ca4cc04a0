//! Why a packet was delivered, answered, dropped or left alone: one list for XDP, engine, CLI and metrics.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $outcome:ident, $text:literal;)*) => {
        /// What became of a packet, and why. The number is the index into the per-CPU counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $text] $variant = $number,)* }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable name used in tables, JSON and metrics.
            pub const fn name(self) -> &'static str { match self { $(Reason::$variant => $name,)* } }

            /// One line for people.
            pub const fn describe(self) -> &'static str { match self { $(Reason::$variant => $text,)* } }

            /// What happens to a packet with this reason.
            pub const fn outcome(self) -> Outcome { match self { $(Reason::$variant => Outcome::$outcome,)* } }
        }
    };
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Handed to the engine.
    Deliver,
    /// Left to the kernel's network stack.
    Pass,
    /// Answered where it arrived; the engine does not see it.
    Answer,
    /// Dropped silently.
    Drop,
}

reasons! {
    Delivered = 0, "delivered", Deliver, "handed to the engine";
    Passed = 1, "passed", Pass, "not Tollfree's; left to the kernel";
    ForeignUdp = 2, "foreign_udp", Pass, "UDP on our port without our magic; left to the kernel";
    PolicyReject = 3, "policy_reject", Answer, "a policy answered with a status";
    PolicyDrop = 4, "policy_drop", Drop, "a policy dropped it";
    UnknownLayout = 5, "unknown_layout", Answer, "the policy was not compiled for this method and layout; answered FAILED_PRECONDITION";
    UnknownSession = 6, "unknown_session", Answer, "no such session; answered with a close so that the peer starts a new one";
    NoEngine = 7, "no_engine", Drop, "no AF_XDP socket on the receive queue: is the daemon running?";
    Truncated = 8, "truncated", Drop, "ends before its headers or flat block do";
    BadVersion = 9, "bad_version", Drop, "a protocol version we do not speak";
    BadKind = 10, "bad_kind", Drop, "a packet kind that does not exist";
    BadFlags = 11, "bad_flags", Drop, "flag bits that have no meaning";
    BadFlatLength = 12, "bad_flat_length", Drop, "a flat block over the limit, or outside the first fragment";
    BadFragment = 13, "bad_fragment", Drop, "a fragment index or count that cannot be";
    BadLength = 14, "bad_length", Drop, "lengths that contradict each other";
    IpOptions = 15, "ip_options", Drop, "IPv4 options on a packet to our port";
    IpFragment = 16, "ip_fragment", Drop, "an IP fragment on our port; Tollfree fragments in the transport";
    WrongPeer = 17, "wrong_peer", Drop, "comes from another address than the session's peer";
    WrongKind = 18, "wrong_kind", Drop, "a kind that this end of the session does not accept";
    BadTag = 19, "bad_tag", Drop, "the authentication tag does not match: spoofed or corrupted";
    Replayed = 20, "replayed", Drop, "a packet sequence number seen before, or too old to tell";
    SessionIdle = 21, "session_idle", Answer, "the session idled past its limit; answered UNAUTHENTICATED";
    NotAdmitted = 22, "not_admitted", Drop, "a later fragment of a message whose first fragment was not admitted";
    TxFailed = 23, "tx_failed", Drop, "an answer could not be built or sent";
    BadHandshake = 24, "bad_handshake", Drop, "a handshake packet with a wrong body, cookie or proof";
    StaleCall = 25, "stale_call", Drop, "belongs to a call that has ended";
    DuplicateCall = 26, "duplicate_call", Drop, "repeats a request that was received already; not run again";
    ReassemblyLimit = 27, "reassembly_limit", Drop, "no room to reassemble another message";
    TableFull = 28, "table_full", Drop, "no room for another session";
    PolicyAudit = 29, "policy_audit", Deliver, "a policy in audit mode would have refused it; it went on";
    PolicyAnswer = 30, "policy_answer", Answer, "a policy answered the call with what it knew";
    Undecided = 31, "undecided", Answer, "what its policy decides per session is not decided yet; answered UNAVAILABLE";
    BadChecksum = 32, "bad_checksum", Drop, "the body's checksum does not match: corrupted under way; as good as lost";
}

impl Reason {
    /// How many reasons there are: the length of the counter arrays.
    pub const COUNT: usize = Reason::ALL.len();

    /// The reason with this number.
    pub fn from_index(index: usize) -> Option<Reason> {
        Reason::ALL.get(index).copied()
    }

    /// The index into counter arrays.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_names_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }
}
