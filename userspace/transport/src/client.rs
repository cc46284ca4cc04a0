//! The client's end of a session: which calls have its slots.
//!
//! `link` finds a call a session and a slot, `connect` opens sessions, `moving` ends them. `request` and `response` are a
//! call's two messages, `ending` is all ways in which it is over, `calls` the table of what is open.

pub(crate) mod calls;
pub(crate) mod connect;
mod ending;
pub(crate) mod link;
mod moving;
mod request;
mod response;

use crate::extension::Order;
use connect::Handshake;
use tollfree_wire::header::CALL_SLOTS;

/// The client's end of a session.
pub(crate) struct Client {
    link: u32,
    /// Until the session is agreed on.
    handshake: Option<Handshake>,
    /// Takes no new calls.
    pub closing: bool,
    /// The server is to hear of its end.
    pub goodbye: bool,
    /// Up to the highest slot used so far.
    slots: Vec<Slot>,
    /// A bit per slot without a call.
    free: [u64; CALL_SLOTS / 64],
    open: usize,
    used_at: u64,
    idle_ns: u64,
    /// The number of the next call of an ordered method.
    next_order: u32,
}

/// A place for a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// The last call id given out.
    last: u64,
    /// The call's, while it is open.
    pub key: Option<u64>,
    /// Its number, while it is open and its method ordered.
    pub order: Option<u32>,
}

impl Client {
    pub fn new(link: u32, handshake: Handshake, now: u64) -> Client {
        let free = [u64::MAX; CALL_SLOTS / 64];
        let slots = Vec::new();
        Client {
            link,
            handshake: Some(handshake),
            closing: false,
            goodbye: false,
            slots,
            free,
            open: 0,
            used_at: now,
            idle_ns: 0,
            next_order: 0,
        }
    }

    pub fn link(&self) -> u32 {
        self.link
    }

    pub fn handshake(&mut self) -> Option<&mut Handshake> {
        self.handshake.as_mut()
    }

    /// The handshake is done. The server forgets the session after `idle_ns` of silence (0: never).
    pub fn opened(&mut self, now: u64, idle_ns: u64) {
        self.handshake = None;
        self.used_at = now;
        self.idle_ns = idle_ns;
    }

    /// When the session has idled long enough to close it: well before the server would.
    pub fn idle_at(&self) -> Option<u64> {
        (self.idle_ns != 0).then(|| self.used_at + self.idle_ns / 4 * 3)
    }

    /// Calls with a slot.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Their keys; those of ordered methods from the last made to the first, as they go back to the front of a queue.
    /// Allocates.
    pub fn keys(&self) -> Vec<u64> {
        let age = |slot: &&Slot| slot.order.map(|order| self.next_order.wrapping_sub(order));
        let mut slots: Vec<&Slot> = self.slots.iter().collect();
        slots.sort_by_key(age);
        slots.iter().filter_map(|slot| slot.key).collect()
    }

    /// The slots used so far.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The lowest number of an open call; the next one's if there is none.
    pub fn floor(&self) -> u32 {
        let age = |slot: &Slot| slot.order.map(|order| self.next_order.wrapping_sub(order));
        self.next_order.wrapping_sub(self.slots.iter().filter_map(age).max().unwrap_or(0))
    }

    /// Gives a call the lowest free slot, and the id it has there. Low slots first: they are what both ends have
    /// memory for already.
    #[inline]
    pub fn take_slot(&mut self, key: u64, ordered: bool, now: u64) -> Option<u64> {
        let word = self.free.iter().position(|bits| *bits != 0)?;
        let bit = self.free[word].trailing_zeros() as usize;
        let slot = word * 64 + bit;
        self.free[word] &= !(1 << bit);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, Slot::default());
        }
        let Slot { last, key: holder, order } = &mut self.slots[slot];
        *last = if *last == 0 { CALL_SLOTS as u64 | slot as u64 } else { *last + CALL_SLOTS as u64 };
        *holder = Some(key);
        *order = ordered.then_some(self.next_order);
        self.next_order = self.next_order.wrapping_add(u32::from(ordered));
        self.open += 1;
        self.used_at = now;
        Some(*last)
    }

    fn free_slot(&mut self, id: u64) {
        let slot = id as usize % CALL_SLOTS;
        if let Some(Slot { last, key, order }) = self.slots.get_mut(slot)
            && *last == id
            && key.take().is_some()
        {
            *order = None;
            self.free[slot / 64] |= 1 << (slot % 64);
            self.open -= 1;
        }
    }

    /// The key of the open call with this id.
    #[inline]
    pub fn call(&self, id: u64) -> Option<u64> {
        self.slots.get(id as usize % CALL_SLOTS).filter(|slot| slot.last == id)?.key
    }

    /// What an ordered call's request says of its turn.
    fn order(&self, id: u64) -> Option<Order> {
        let slot = self.slots.get(id as usize % CALL_SLOTS).filter(|slot| slot.last == id)?;
        Some(Order { number: slot.order?, floor: self.floor() })
    }

    /// Whether a call with this id was made on this session and has ended.
    fn has_ended(&self, id: u64) -> bool {
        let slot = self.slots.get(id as usize % CALL_SLOTS);
        slot.is_some_and(|slot| id < slot.last || (id == slot.last && slot.key.is_none()))
    }
}
