//! What an element keeps while it judges one call.

use super::code::{Code, Source};

/// The number of a register. Of those for numbers there are as many as it can say: none has to be looked for in vain.
pub type Register = u8;

/// How many registers of numbers there are: first those of [`SLOTS_MAX`](super::program::SLOTS_MAX) values, then those
/// that operands are loaded into, then those of constants.
pub const REGISTERS: usize = Register::MAX as usize + 1;

/// Room for what is kept. Numbers and texts are numbered apart.
#[derive(Clone, Debug)]
pub struct Registers {
    /// Constants are in registers of their own, which no step writes.
    numbers: [Option<u64>; REGISTERS],
    texts: Box<[Text]>,
    /// The bytes of texts.
    arena: Box<[u8]>,
}

/// A text that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Text {
    #[default]
    Absent,
    /// In the arena.
    Here { at: u32, len: u8 },
    /// Bytes that do not change while a call is judged: another name for them.
    Alias(Source),
}

impl Registers {
    pub fn new(code: &Code) -> Registers {
        let mut numbers = [None; REGISTERS];
        for (register, number) in &code.constants {
            numbers[usize::from(*register)] = Some(*number);
        }
        Registers {
            numbers,
            texts: vec![Text::Absent; code.sizes.texts].into(),
            arena: vec![0; code.sizes.arena].into(),
        }
    }

    #[inline(always)]
    pub fn number(&self, register: Register) -> Option<u64> {
        self.numbers[usize::from(register)]
    }

    #[inline(always)]
    pub fn set_number(&mut self, register: Register, number: Option<u64>) {
        self.numbers[usize::from(register)] = number;
    }

    #[inline]
    pub fn text(&self, register: Register) -> Text {
        self.texts.get(usize::from(register)).copied().unwrap_or_default()
    }

    #[inline]
    pub fn set_text(&mut self, register: Register, text: Text) {
        if let Some(place) = self.texts.get_mut(usize::from(register)) {
            *place = text;
        }
    }

    /// A text's bytes in the arena.
    #[inline]
    pub fn bytes(&self, at: u32, len: u8) -> Option<&[u8]> {
        self.arena.get(at as usize..)?.get(..usize::from(len))
    }

    /// Copies a text to its room in the arena.
    pub fn keep(&mut self, register: Register, room: u32, text: Option<&[u8]>) {
        let kept = text.and_then(|text| {
            let len = u8::try_from(text.len()).ok()?;
            self.arena.get_mut(room as usize..)?.get_mut(..text.len())?.copy_from_slice(text);
            Some(Text::Here { at: room, len })
        });
        self.set_text(register, kept.unwrap_or_default());
    }
}
