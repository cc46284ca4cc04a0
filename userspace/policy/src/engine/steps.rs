//! What single steps do.

use super::code::{self, List, Share, Source, Terms};
use super::evaluate::{Machine, Memory};
use super::registers::{Register, Registers};
use super::shape::{Shape, Value};
use super::tables::Key;
use super::view::View;
use crate::hash::Hasher;
use crate::ir::FieldRef;
use crate::operations;
use crate::rate;

impl Machine<'_, '_> {
    #[inline(always)]
    pub(super) fn number(&self, register: Register) -> Option<u64> {
        self.view.registers.number(register)
    }

    #[inline(always)]
    pub(super) fn two(&self, a: Register, b: Register) -> Option<(u64, u64)> {
        self.number(a).zip(self.number(b))
    }

    #[inline(always)]
    pub(super) fn set(&mut self, into: Register, number: Option<u64>) {
        self.view.registers.set_number(into, number);
    }

    #[inline]
    pub(super) fn lookup(&mut self, table: u16, key: &code::Key) -> Option<u64> {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        tables.number(table.into(), key_of(view, key, &mut [0], words)?)
    }

    #[inline]
    pub(super) fn add(
        &mut self,
        table: u16,
        key: &code::Key,
        amount: Register,
        sum: fn(u64, u64) -> u64,
    ) -> Option<u64> {
        let amount = self.number(amount)?;
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let next = |old: Option<u64>| Some(sum(old.unwrap_or(0), amount));
        tables.update(table.into(), key_of(view, key, &mut [0], words)?, next)
    }

    #[inline]
    pub(super) fn take(&mut self, table: u16, key: &code::Key, terms: &Terms) -> Option<bool> {
        let Terms { count, cost, burst } = *terms;
        let count = self.number(count)?;
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let (cost, burst) = (share(view.registers, cost, count)?, share(view.registers, burst, count)?);
        if count == 0 {
            return Some(false);
        }
        let now = view.call.now_ns;
        let next = |old: Option<u64>| operations::take(old.unwrap_or(0), now, cost, burst);
        Some(tables.update(table.into(), key_of(view, key, &mut [0], words)?, next).is_some())
    }

    pub(super) fn hash(&self, values: List) -> Option<u64> {
        let mut hasher = Hasher::default();
        for source in values.of(&self.view.code.sources) {
            match self.view.value(*source)? {
                Value::Number(number) => hasher.word(number),
                Value::Bytes(bytes) => hasher.bytes(bytes),
            }
        }
        Some(hasher.finish())
    }

    /// Keeps a text that a table has in `room` in the arena: the table can change.
    pub(super) fn fetch(&mut self, into: Register, room: u32, table: u16, key: &code::Key) {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let text = key_of(view, key, &mut [0], words).and_then(|key| tables.bytes(table.into(), key));
        view.registers.keep(into, room, text);
    }

    /// Sets a table's value, where there is room for it.
    pub(super) fn write(&mut self, table: u16, key: &code::Key, value: Source) {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        if let (Some(key), Some(value)) = (key_of(view, key, &mut [0], words), view.value(value)) {
            tables.set(table.into(), key, value);
        }
    }

    /// `None`, and nothing changes, where there is no value or no such field.
    pub(super) fn write_field(&mut self, field: FieldRef, value: Source) -> Option<()> {
        let mut text = [0; 255];
        let value = match self.view.value(value)? {
            Value::Number(number) => Value::Number(number),
            Value::Bytes(bytes) => {
                let text = text.get_mut(..bytes.len())?;
                text.copy_from_slice(bytes);
                Value::Bytes(text)
            }
        };
        let (place, bytes) = self.view.field(field)?;
        place.shape.write(value, bytes);
        Some(())
    }

    /// Whether it was possible; `None` where there is no such field.
    pub(super) fn crypt(&mut self, field: FieldRef, key: u16, decrypt: bool) -> Option<bool> {
        let now_ns = self.view.call.now_ns;
        let (place, bytes) = self.view.field(field)?;
        let Shape::Inline(_) = place.shape else { return None };
        let (length, room) = bytes.split_first_mut()?;
        let known = Some(usize::from(*length)).filter(|known| *known <= room.len())?;
        let Some(cipher) = self.keys.get(usize::from(key))? else { return Some(false) };
        let now = match decrypt {
            true => cipher.decrypt(room, known),
            false => cipher.encrypt(&mut self.memory.nonces, now_ns, room, known),
        };
        let Some(now) = now else { return Some(false) };
        room.get_mut(now..)?.fill(0);
        *length = u8::try_from(now).ok()?;
        Some(true)
    }
}

/// False where either is false, absent or not.
pub(super) fn and(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(0), _) | (_, Some(0)) => Some(0),
        (Some(_), Some(_)) => Some(1),
        _ => None,
    }
}

/// True where either is true, absent or not.
pub(super) fn or(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(0), Some(0)) => Some(0),
        (Some(1..), _) | (_, Some(1..)) => Some(1),
        _ => None,
    }
}

/// A key, put together in `one` or in `words`; `None` where a part of it is absent, or does not fit.
#[inline(always)]
pub(super) fn key_of<'k>(
    view: &View<'_, '_>,
    key: &code::Key,
    one: &'k mut [u64; 1],
    words: &'k mut Key,
) -> Option<&'k [u64]> {
    match *key {
        code::Key::None => Some(&[]),
        code::Key::Number(shape, source) => {
            *one = [shape.canonical(view.number(source)?)];
            Some(one)
        }
        code::Key::Parts(parts) => {
            build_key(view, parts, words)?;
            Some(words.words())
        }
    }
}

/// Puts a key of several parts together, or of one that is no number.
#[inline(never)]
fn build_key(view: &View<'_, '_>, parts: List, key: &mut Key) -> Option<()> {
    key.clear();
    parts.of(&view.code.parts).iter().try_for_each(|(shape, source)| match view.value(*source)? {
        Value::Number(number) => key.push_number(*shape, number),
        Value::Bytes(bytes) => key.push_bytes(*shape, bytes),
    })
}

/// Some calls' share of a bucket's period; 0 where nothing is to get through.
#[inline]
fn share(numbers: &Registers, share: Share, count: u64) -> Option<u64> {
    match share {
        Share::Known(share) => Some(share),
        Share::Of { calls, period_ns } => {
            Some(rate::share(numbers.number(calls)?, period_ns, count).unwrap_or(0))
        }
    }
}
