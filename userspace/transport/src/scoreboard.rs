//! The sending side's record of many packets under way: which have arrived, which count as lost, which to send next.
//!
//! Loss is told as RACK tells it: a packet is lost when others that were sent well after it have arrived, well after
//! being counted in packets or in time. It does not matter whether it had been sent once or often, so a lost
//! retransmission is noticed like any other. Whether the network takes a packet now is not asked here but in `flow`.
//!
//! Nothing here knows what a packet's index counts: fragments of a message, or packets of a stream.

use crate::sack::{Ack, Bits, SPAN, WORDS, below};

/// What is known of a packet's last transmission.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    at: u64,
    /// The low half of the packet's sequence: what an ack echoes.
    sequence: u32,
    /// How many transmissions of the message came before it.
    order: u32,
}

/// When a packet that others have overtaken counts as lost. Learned per path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// So many transmissions later one has arrived.
    pub packets: u32,
    /// One that was sent so much later has arrived, in ns.
    pub ns: u64,
}

/// What an ack has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// It said something that was not known: more has arrived, or more may be sent.
    pub news: bool,
    /// Packets that have arrived.
    pub arrived: u32,
    /// Those of them that were under way, as opposed to given up as lost.
    pub landed: u32,
    /// Packets now given up as lost.
    pub lost: u32,
    /// Packets given up as lost because others had overtaken them, that had only been late.
    pub late: u32,
    /// Packets that met congestion.
    pub marked: u32,
    /// The round trip of the echoed packet, without the time the receiver held it, in ns.
    pub round_trip: Option<u64>,
}

/// The record. One is made for messages of several packets only, and reused.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    /// Everything below has arrived.
    base: u32,
    /// The lowest index never sent.
    next: u32,
    /// What the receiver lets us send lies below.
    limit: u32,
    /// What the method's transport lets us have under way.
    most: u32,
    arrived: Bits,
    lost: Bits,
    lost_count: u32,
    /// Packets sent that have neither arrived nor been given up.
    outstanding: u32,
    /// One past the highest index that has arrived.
    top: u32,
    /// By index, modulo its length.
    sent: Vec<Sent>,
    orders: u32,
    /// Transmissions up to this one were given up because nothing was heard, if they were: their arrival is no news of order.
    unheard: u32,
    /// The latest transmission known to have arrived.
    newest: Sent,
    /// The low half of the sequence that the message's transmissions begin at, where another cutting of it was sent before.
    since: Option<u32>,
    /// The sequence of the latest ack.
    told: u64,
    /// Acks of a lower sequence are about what was sent before the receiver kept nothing of it.
    turned_back: u64,
    marked: u32,
}

impl Scoreboard {
    /// Forgets everything, for a message of `total` packets of which the first `limit` may be sent unasked and at most
    /// `most` be under way (0: no limit).
    pub fn reset(&mut self, total: u32, limit: u32, most: u32) {
        let room = total.clamp(1, SPAN).next_power_of_two() as usize;
        let mut sent = std::mem::take(&mut self.sent);
        sent.clear();
        sent.resize(room, Sent::default());
        let most = if most == 0 { u32::MAX } else { most };
        *self = Scoreboard { limit, most, sent, ..Scoreboard::default() };
    }

    /// The message was sent before, cut into other packets: acks that echo a packet before this sequence are about those.
    pub fn begins_at(&mut self, sequence: u64) {
        self.since = Some(sequence as u32);
    }

    /// The index to send now, if any, of `total`.
    #[inline]
    pub fn due(&mut self, total: u32) -> Option<u32> {
        if self.outstanding >= self.most {
            return None;
        }
        if self.lost_count > 0 {
            return self.first_lost().filter(|index| *index < self.limit);
        }
        let room = (self.base / 64 + WORDS as u32) * 64;
        (self.next < self.limit.min(room).min(total)).then_some(self.next)
    }

    fn first_lost(&mut self) -> Option<u32> {
        (self.base / 64..=self.next / 64).find_map(|word| {
            let bits = *self.lost.word(word);
            (bits != 0).then(|| word * 64 + bits.trailing_zeros())
        })
    }

    /// Takes note of a transmission of the index from [`Scoreboard::due`], or of one that was sent before. True if it
    /// had not been under way: one more packet is in the network.
    pub fn sent(&mut self, index: u32, sequence: u64, now: u64) -> bool {
        self.orders += 1;
        let at = index as usize & (self.sent.len() - 1);
        self.sent[at] = Sent { at: now, sequence: sequence as u32, order: self.orders };
        let more = if index == self.next {
            self.next += 1;
            true
        } else if self.lost.contains(index) {
            self.lost.remove(index);
            self.lost_count -= 1;
            true
        } else {
            false
        };
        self.outstanding += u32::from(more);
        more
    }

    /// Takes an ack, which came in the packet with this sequence.
    pub fn acknowledge(&mut self, ack: &Ack<'_>, sequence: u64, now: u64, tolerance: Tolerance) -> Progress {
        let mut progress = Progress::default();
        let head = &ack.head;
        let other = self.since.is_some_and(|since| (head.echo_sequence.wrapping_sub(since) as i32) < 0);
        if head.base > self.next || sequence < self.turned_back || other {
            return progress; // of something that was never sent, or not since
        }
        if sequence >= self.told {
            self.told = sequence;
            progress.news = head.limit > self.limit;
            self.limit = head.limit;
        }
        let marked = head.marked.wrapping_sub(self.marked);
        if marked < u32::MAX / 2 {
            (self.marked, progress.marked) = (head.marked, marked);
        }
        let echoed = self.echoed(head.echo_index, head.echo_sequence);
        let mut word = self.base / 64;
        while word * 64 < self.next {
            self.take(word, ack.word(word), &mut progress);
            word += 1;
        }
        if echoed.is_some() && progress.arrived > 0 && self.has_arrived(head.echo_index) {
            let held = u64::from(head.hold_ns);
            progress.round_trip = echoed.and_then(|sent| now.saturating_sub(sent).checked_sub(held));
        }
        progress.news |= progress.arrived > 0;
        self.advance();
        progress.lost = self
            .overtaken(tolerance.packets, |newest, sent| sent.at.saturating_add(tolerance.ns) <= newest.at);
        progress
    }

    /// When the echoed packet was sent, if it is the last transmission of its index and was not known to have arrived.
    fn echoed(&self, index: u32, sequence: u32) -> Option<u64> {
        if !(self.base..self.next).contains(&index) || self.arrived.contains(index) {
            return None;
        }
        let sent = self.sent[index as usize & (self.sent.len() - 1)];
        (sent.sequence == sequence).then_some(sent.at)
    }

    fn has_arrived(&self, index: u32) -> bool {
        index < self.base || self.arrived.contains(index)
    }

    /// Takes what an ack says of 64 indices.
    fn take(&mut self, word: u32, told: u64, progress: &mut Progress) {
        let start = word * 64;
        let mut span = u64::MAX;
        if self.next - start < 64 {
            span &= below(self.next - start);
        }
        if self.base > start {
            span &= !below(self.base - start);
        }
        let new = told & span & !*self.arrived.word(word);
        if new == 0 {
            return;
        }
        let given_up = new & *self.lost.word(word);
        let late = given_up.count_ones();
        *self.arrived.word(word) |= new;
        *self.lost.word(word) &= !new;
        self.lost_count -= late;
        self.outstanding -= new.count_ones() - late;
        progress.arrived += new.count_ones();
        progress.landed += new.count_ones() - late;
        self.top = self.top.max(start + 64 - new.leading_zeros());
        let mut bits = new;
        while bits != 0 {
            let sent = self.sent[(start + bits.trailing_zeros()) as usize & (self.sent.len() - 1)];
            if sent.order > self.newest.order {
                self.newest = sent;
            }
            progress.late +=
                u32::from(given_up & bits & bits.wrapping_neg() != 0 && sent.order > self.unheard);
            bits &= bits - 1;
        }
    }

    fn advance(&mut self) {
        self.base = self.arrived.advance(self.base, self.next);
    }

    /// Gives up packets that so many transmissions, or `long` after which, one was sent that has arrived.
    fn overtaken(&mut self, packets: u32, long: impl Fn(&Sent, &Sent) -> bool) -> u32 {
        let newest = self.newest;
        let mut given_up = 0;
        let mut word = self.base / 64;
        while word * 64 < self.top {
            let mut open = self.under_way(word);
            while open != 0 {
                let index = word * 64 + open.trailing_zeros();
                let sent = self.sent[index as usize & (self.sent.len() - 1)];
                let after = newest.order.saturating_sub(sent.order);
                if after >= packets || (after > 0 && long(&newest, &sent)) {
                    self.lost.insert(index);
                    given_up += 1;
                }
                open &= open - 1;
            }
            word += 1;
        }
        self.lost_count += given_up;
        self.outstanding -= given_up;
        given_up
    }

    /// The packets of 64 that are under way.
    fn under_way(&mut self, word: u32) -> u64 {
        let start = word * 64;
        let mut open = !*self.arrived.word(word) & !*self.lost.word(word);
        if self.next - start < 64 {
            open &= below(self.next - start);
        }
        if self.base > start {
            open &= !below(self.base - start);
        }
        open
    }

    /// Whether something under way has been overtaken by what has arrived, so that it is late or lost.
    pub fn is_behind(&mut self) -> bool {
        let newest = self.newest.order;
        (self.base / 64..self.top.div_ceil(64)).any(|word| {
            let mut open = self.under_way(word);
            while open != 0 {
                let index = word * 64 + open.trailing_zeros();
                if self.sent[index as usize & (self.sent.len() - 1)].order < newest {
                    return true;
                }
                open &= open - 1;
            }
            false
        })
    }

    /// Time has passed since the last ack: whatever was overtaken counts as lost. Returns how many.
    pub fn expire(&mut self) -> u32 {
        self.overtaken(1, |_, _| true)
    }

    /// Gives up everything under way. Returns how many packets that were.
    pub fn give_up(&mut self) -> u32 {
        let given_up = self.outstanding;
        self.unheard = self.orders;
        let mut word = self.base / 64;
        while word * 64 < self.next {
            let open = self.under_way(word);
            *self.lost.word(word) |= open;
            word += 1;
        }
        self.lost_count += given_up;
        self.outstanding = 0;
        given_up
    }

    /// Everything below has arrived.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// The lowest index never sent.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The receiver has kept nothing, says the ack with this sequence: what was sent counts as never sent. Returns how
    /// much of it was under way.
    pub fn turn_back(&mut self, sequence: u64) -> u32 {
        if sequence < self.told {
            return 0; // overtaken by an ack that knows better
        }
        let Scoreboard { outstanding, most, orders, newest, marked, since, .. } = *self;
        let sent = std::mem::take(&mut self.sent);
        let (limit, told, turned_back) = (0, sequence, sequence);
        *self = Scoreboard {
            limit,
            most,
            sent,
            orders,
            newest,
            told,
            turned_back,
            marked,
            since,
            ..Scoreboard::default()
        };
        outstanding
    }

    /// Whether anything was ever sent.
    pub fn has_begun(&self) -> bool {
        self.orders > 0
    }

    /// Of `total`, those never sent or given up as lost.
    pub fn left(&self, total: u32) -> u32 {
        total - self.next + self.lost_count
    }

    /// Packets sent that have neither arrived nor been given up.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }
}

#[cfg(test)]
mod tests;
