//! Where a program keeps what does not fit into registers.
//!
//! Keys, texts and slots are in a map of the policy's own, one entry per CPU, not on the stack: there is more room, and
//! the verifier does not follow what is in it, so that it need not walk every way to every combination of values. The
//! stack holds pointers, which may be nowhere else.

use super::Refused;
use crate::table::TableSpec;

/// The longest text: a length byte says how long.
pub(super) const TEXT_MAX: usize = 255;
/// Room for a text with its length byte, in whole words, and a word more, since texts are moved in words.
const TEXT_ROOM: i16 = 264;
/// The longest key that a BPF hash table takes.
pub(super) const KEY_MAX: usize = 512;
/// The largest entry that a per-CPU map can have.
const SIZE_MAX: usize = 32_768;

/// On the stack, from the frame pointer: four bytes, the index into a shared array; eight where a layout is looked up.
pub(super) const INDEX: i16 = -8;
/// On the stack: where the root program's [`tollfree_wire::maps::CallContext`] is.
pub(super) const CONTEXT: i16 = -16;
/// On the stack: where the session's entry is.
pub(super) const SESSION: i16 = -24;
/// On the stack: where the peer's entry is.
pub(super) const PEER: i16 = -32;
/// On the stack: where an answer or a table's value is being put together.
pub(super) const KEPT: i16 = -40;

/// Where a table's key is put together.
pub(super) const KEY: i16 = 0;
/// Where a value to be set is.
pub(super) const VALUE: i16 = KEY + KEY_MAX as i16 + 8;
/// Where texts are brought into one form, to be compared, hashed or written.
pub(super) const TEXTS: [i16; 2] = [VALUE + TEXT_ROOM, VALUE + 2 * TEXT_ROOM];
/// Numbers, while the next is being found.
pub(super) const NUMBERS: [i16; 3] = [NUMBER, NUMBER + 8, NUMBER + 16];
const NUMBER: i16 = VALUE + 3 * TEXT_ROOM;
/// The time.
pub(super) const NOW: i16 = NUMBER + 24;
/// This host's port.
pub(super) const PORT: i16 = NUMBER + 32;
/// Whether the peer's entry is this session's.
pub(super) const PEER_KNOWN: i16 = NUMBER + 40;
/// Which of the methods the call is for, where a group has several: its place in `tf_decisions`.
pub(super) const ORDINAL: i16 = NUMBER + 48;
/// What is left of it is the current element's slots.
const SLOTS: i16 = NUMBER + 56;

/// What an element keeps in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Eight bytes: whether there is anything. The value is behind it.
    pub present: i16,
    pub kind: SlotKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotKind {
    Number,
    Text(Form),
    /// It was copied from a field that the methods at hand do not have.
    Never,
}

/// How a text is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A length byte, then at most so many bytes.
    Inline(usize),
    /// Exactly so many bytes.
    Fixed(usize),
}

impl Form {
    /// Bytes in memory.
    pub(super) fn width(self) -> usize {
        match self {
            Form::Inline(max) => 1 + max,
            Form::Fixed(len) => len,
        }
    }
}

impl Slot {
    pub(super) fn value(self) -> i16 {
        self.present + 8
    }
}

/// What the slots of an element hold at one place of its text.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Vec<Option<Slot>>);

/// The slots of the element at hand, and how much room any element has needed.
#[derive(Debug)]
pub(super) struct Slots {
    held: Held,
    /// Where each slot was put for each kind of value.
    places: Vec<(usize, Slot)>,
    end: i16,
    highest: i16,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots { held: Held::default(), places: Vec::new(), end: SLOTS, highest: SLOTS }
    }

    /// A new element begins: slots end with theirs.
    pub(super) fn clear(&mut self) {
        self.held = Held::default();
        self.places.clear();
        self.end = SLOTS;
    }

    pub(super) fn get(&self, slot: usize) -> Option<Slot> {
        self.held.0.get(slot).copied().flatten()
    }

    /// What they hold here: [`Slots::at`] comes back to it.
    pub(super) fn here(&self) -> Held {
        self.held.clone()
    }

    /// What is emitted next stands where they hold this. Code is not emitted in the order of the text, but slots are
    /// shared by it: a later guard, emitted before an earlier arm's body, can have the slot of what that body reads. All
    /// that an arm, and what is behind a match, reads of the time before is what they held before the match.
    pub(super) fn at(&mut self, held: &Held) {
        self.held.clone_from(held);
    }

    /// Makes room for a value.
    pub(super) fn add(&mut self, slot: usize, kind: SlotKind) -> Result<Slot, Refused> {
        let known = self.places.iter().find(|(of, place)| *of == slot && place.kind == kind);
        let place = match known {
            Some((_, place)) => *place,
            None => self.put(slot, kind)?,
        };
        if self.held.0.len() <= slot {
            self.held.0.resize(slot + 1, None);
        }
        self.held.0[slot] = Some(place);
        Ok(place)
    }

    fn put(&mut self, slot: usize, kind: SlotKind) -> Result<Slot, Refused> {
        let room = match kind {
            SlotKind::Number | SlotKind::Never => 8,
            // Texts are moved in words, the last of which may be only partly theirs.
            SlotKind::Text(form) => (form.width() + 8).next_multiple_of(8),
        };
        let new = Slot { present: self.end, kind };
        let end = usize::try_from(self.end).unwrap_or(SIZE_MAX) + 8 + room;
        self.end = i16::try_from(end)
            .ok()
            .filter(|_| end + 8 < SIZE_MAX)
            .ok_or_else(|| Refused::new("keeps more text than fits into an XDP program's memory"))?;
        self.highest = self.highest.max(self.end);
        self.places.push((slot, new));
        Ok(new)
    }

    /// Bytes of the map's entry.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.highest).unwrap_or(SIZE_MAX as u32)
    }
}

/// Whether a table can be a BPF map at all.
pub(super) fn fits(table: &TableSpec) -> bool {
    table.key_size as usize <= KEY_MAX && table.value_size as usize <= 1 + TEXT_MAX
}
