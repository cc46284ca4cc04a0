//! What an ack says, and the receiving side's record of what has arrived. Which of it is sent again is the sender's
//! business (`scoreboard`); how much may come is decided in `reassembly`.
//!
//! Nothing here knows what a packet's index counts: fragments of a message, or packets of a stream.

use tollfree_wire::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of the bitmap: how much may arrive ahead of what is missing.
pub(crate) const WORDS: usize = 32;
/// Packets of one message that may be under way at once.
pub(crate) const SPAN: u32 = 64 * WORDS as u32;

/// The fixed part of an ack's body. WIRE.md §10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct AckHead {
    /// Everything below this index has arrived.
    pub base: u32,
    /// What is below this index may be sent.
    pub limit: u32,
    /// Index of the packet with the highest sequence that has arrived.
    pub echo_index: u32,
    /// The low half of that packet's sequence.
    pub echo_sequence: u32,
    /// How long ago it arrived, in ns, when the ack was sent.
    pub hold_ns: u32,
    /// Packets that arrived with a mark of congestion (ECN's CE), from the message's first on.
    pub marked: u32,
}

/// The longest body of an ack.
pub(crate) const ACK_MAX: usize = size_of::<AckHead>() + 8 * WORDS;

/// A received ack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack<'a> {
    pub head: AckHead,
    words: &'a [u8],
}

impl<'a> Ack<'a> {
    /// Reads the body of an ack packet.
    pub fn read(body: &'a [u8]) -> Result<Ack<'a>, Reason> {
        let (head, words) = AckHead::read_from_prefix(body).map_err(|_| Reason::BadLength)?;
        if !words.len().is_multiple_of(8) || words.len() > 8 * WORDS {
            return Err(Reason::BadLength);
        }
        Ok(Ack { head, words })
    }

    /// Whether it says that there is no room for the message, and that nothing of it was kept.
    pub fn turns_back(&self) -> bool {
        self.head.base == 0 && self.head.limit == 0
    }

    /// What it says of the 64 indices from `64 * word` on.
    pub fn word(&self, word: u32) -> u64 {
        let first = self.head.base / 64;
        let told = word.checked_sub(first).and_then(|at| {
            let bytes = self.words.get(8 * at as usize..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        });
        match word {
            word if word < first => u64::MAX,
            word if word == first => told.unwrap_or(0) | below(self.head.base % 64),
            _ => told.unwrap_or(0),
        }
    }
}

/// The body of an ack to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckBody {
    bytes: [u8; ACK_MAX],
    len: usize,
}

impl AckBody {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<AckHead> for AckBody {
    /// An ack without a bitmap.
    fn from(head: AckHead) -> AckBody {
        let mut body = AckBody { bytes: [0; ACK_MAX], len: size_of::<AckHead>() };
        body.bytes[..body.len].copy_from_slice(head.as_bytes());
        body
    }
}

/// The low `count` bits, of fewer than 64.
pub(crate) fn below(count: u32) -> u64 {
    (1 << count) - 1
}

/// A bit per index, for as many indices as fit between the lowest and the highest of interest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    /// The 64 indices from `64 * word` on.
    #[inline]
    pub fn word(&mut self, word: u32) -> &mut u64 {
        &mut self.0[word as usize % WORDS]
    }

    #[inline]
    pub fn contains(&self, index: u32) -> bool {
        self.0[index as usize / 64 % WORDS] & (1 << (index % 64)) != 0
    }

    #[inline]
    pub fn insert(&mut self, index: u32) {
        *self.word(index / 64) |= 1 << (index % 64);
    }

    #[inline]
    pub fn remove(&mut self, index: u32) {
        *self.word(index / 64) &= !(1 << (index % 64));
    }

    /// Forgets the leading run of indices from `base` on, up to `end`; returns the first that is not in it. Words that
    /// are left behind are empty, ready for the indices `SPAN` further on.
    pub fn advance(&mut self, mut base: u32, end: u32) -> u32 {
        while base < end {
            let run = (*self.word(base / 64) >> (base % 64)).trailing_ones().min(end - base);
            if run == 0 {
                break;
            }
            if base % 64 + run == 64 {
                *self.word(base / 64) = 0;
            }
            base += run;
        }
        base
    }
}

/// Whether a packet was news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Repeated,
    /// Further ahead than anyone was told to send.
    TooFar,
}

/// What has arrived of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    base: u32,
    /// One past the highest that has arrived.
    top: u32,
    map: Bits,
    /// The packet with the highest sequence: its index, sequence and time.
    echo: (u32, u64, u64),
    marked: u32,
}

impl Arrivals {
    /// Whether a packet may be kept, and is worth it.
    pub fn judge(&self, index: u32) -> Arrival {
        if index < self.base {
            Arrival::Repeated
        } else if index >= self.limit() {
            Arrival::TooFar
        } else if self.map.contains(index) {
            Arrival::Repeated
        } else {
            Arrival::New
        }
    }

    /// Takes note of a packet, repeated or not.
    pub fn note(&mut self, index: u32, sequence: u64, marked: bool, now: u64) {
        if sequence >= self.echo.1 {
            self.echo = (index, sequence, now);
        }
        self.marked = self.marked.wrapping_add(u32::from(marked));
        if self.judge(index) != Arrival::New {
            return;
        }
        self.map.insert(index);
        self.top = self.top.max(index + 1);
        self.base = self.map.advance(self.base, self.top);
    }

    /// Everything below has arrived.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// What is below may arrive.
    pub fn limit(&self) -> u32 {
        (self.base / 64).saturating_add(WORDS as u32).saturating_mul(64)
    }

    /// The fixed part of an ack, for a sender that has `total` to send.
    pub fn head(&self, total: u32, now: u64) -> AckHead {
        let (echo_index, sequence, at) = self.echo;
        AckHead {
            base: self.base,
            limit: self.limit().min(total),
            echo_index,
            echo_sequence: sequence as u32,
            hold_ns: u32::try_from(now.saturating_sub(at)).unwrap_or(u32::MAX),
            marked: self.marked,
        }
    }

    /// The whole ack: with as much of the bitmap as says something.
    pub fn ack(&mut self, total: u32, now: u64) -> AckBody {
        let mut body = AckBody::from(self.head(total, now));
        let mut word = self.base / 64;
        while self.top > self.base && word <= (self.top - 1) / 64 {
            let told = *self.map.word(word);
            body.bytes[body.len..body.len + 8].copy_from_slice(&told.to_le_bytes());
            body.len += 8;
            word += 1;
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_ack_in_order_has_no_bitmap() {
        let mut arrivals = Arrivals::default();
        for index in 0..200 {
            arrivals.note(index, u64::from(index) + 1, index % 50 == 0, 1_000);
        }
        let body = arrivals.ack(500, 1_700);
        let ack = Ack::read(body.bytes()).unwrap();
        let expected =
            AckHead { base: 200, limit: 500, echo_index: 199, echo_sequence: 200, hold_ns: 700, marked: 4 };
        assert_eq!((ack.head, body.bytes().len()), (expected, 24));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let body = [0; ACK_MAX + 8];
        for length in 0..=body.len() {
            let good = (24..=ACK_MAX).contains(&length) && length % 8 == 0;
            assert_eq!(Ack::read(&body[..length]).is_ok(), good, "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn an_ack_tells_exactly_what_has_arrived(start in 0..5u32, steps in proptest::collection::vec((0..2300u32, 0..400u32), 1..50)) {
            let mut arrivals = Arrivals::default();
            let mut model = BTreeSet::new();
            let mut base = 0;
            for index in 0..start * 777 { // somewhere in the middle of a long message
                arrivals.note(index, 1, false, 0);
                model.insert(index);
            }
            while model.contains(&base) { base += 1; }
            for (ahead, run) in steps {
                for index in base.saturating_add(ahead).saturating_sub(100)..base + ahead + run {
                    let arrival = arrivals.judge(index);
                    arrivals.note(index, 1, false, 0);
                    match arrival {
                        Arrival::New => prop_assert!(model.insert(index)),
                        Arrival::Repeated => prop_assert!(model.contains(&index)),
                        Arrival::TooFar => prop_assert!(index >= base + SPAN - 64),
                    }
                    while model.contains(&base) { base += 1; }
                }
                prop_assert_eq!(arrivals.base(), base);
                let body = arrivals.ack(u32::MAX, 0);
                let ack = Ack::read(body.bytes()).unwrap();
                for index in base.saturating_sub(200)..base + SPAN {
                    let told = ack.word(index / 64) & (1 << (index % 64)) != 0;
                    prop_assert_eq!(told, model.contains(&index), "index {} of {}", index, base);
                }
            }
        }
    }
}
