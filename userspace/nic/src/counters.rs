//! What a backend counts.

/// Totals since a backend was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed to the engine.
    pub rx_packets: u64,
    /// Their payload in bytes.
    pub rx_bytes: u64,
    /// Packets that arrived and were not handed on: longer than [`crate::Nic::max_payload`], or malformed.
    pub rx_dropped: u64,
    /// Packets lost because the kernel had no room for them here: the engine is too slow, or has too few frames.
    /// Brought up to date by [`crate::Nic::tick`]; always 0 on `udp`.
    pub rx_missed: u64,
    /// Packets queued for transmission.
    pub tx_packets: u64,
    /// Their payload in bytes.
    pub tx_bytes: u64,
    /// Transmissions turned away because everything was full.
    pub tx_full: u64,
    /// Transmissions turned away because the way to the peer is not known (yet).
    pub tx_unreachable: u64,
    /// Packets queued, then refused by the kernel: unreachable, too long, or filtered.
    pub tx_failed: u64,
    /// System calls that made the kernel send.
    pub kicks: u64,
    /// Where the packet buffers are.
    pub frames: Frames,
}

/// How many packet buffers are where. The four places always add up to `total`: a frame cannot be lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// All of them.
    pub total: u32,
    /// In nobody's hands.
    pub free: u32,
    /// With the kernel, to be filled with received packets (or already filled and not yet taken over).
    pub fill: u32,
    /// Received and being read by the engine.
    pub rx: u32,
    /// Queued for transmission, or with the kernel and not yet reported as sent.
    pub tx: u32,
}

impl Frames {
    /// Frames that are nowhere: always 0, and tests say so.
    pub fn missing(&self) -> i64 {
        let Frames { total, free, fill, rx, tx } = *self;
        i64::from(total) - i64::from(free) - i64::from(fill) - i64::from(rx) - i64::from(tx)
    }

    pub(crate) fn add(&mut self, other: Frames) {
        let Frames { total, free, fill, rx, tx } = other;
        self.total += total;
        self.free += free;
        self.fill += fill;
        self.rx += rx;
        self.tx += tx;
    }
}
