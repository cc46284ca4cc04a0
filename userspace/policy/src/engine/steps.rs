//! What single steps do. What nearly every policy does is part of the walk itself; all else is called, so that the walk
//! keeps what it needs in the processor's registers.

use super::code::{self, List, Share, Source, Terms, Test};
use super::evaluate::{Machine, Memory};
use super::registers::{Register, Registers};
use super::shape::{Shape, Value};
use super::tables::Key;
use super::view::View;
use crate::hash::Hasher;
use crate::ir::FieldRef;
use crate::operations;
use crate::rate;

impl Machine<'_, '_, '_> {
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

    #[inline(always)]
    pub(super) fn lookup(&mut self, table: u16, key: &code::Key) -> Option<u64> {
        match key {
            code::Key::None => self.memory.tables.number(table.into(), &()),
            key => self.lookup_by_key(table, key),
        }
    }

    #[inline(never)]
    fn lookup_by_key(&mut self, table: u16, key: &code::Key) -> Option<u64> {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let table = usize::from(table);
        match *key {
            code::Key::Number(shape, ref source) => tables.number(table, &number_of(view, shape, source)?),
            ref key => tables.number(table, key_of(view, key, &mut [0], words)?),
        }
    }

    /// Changes a table's number ([`super::tables::Tables::update`]); `None` where a part of the key is absent.
    #[inline(always)]
    fn update(
        &mut self,
        table: u16,
        key: &code::Key,
        next: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Option<Option<u64>> {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let table = usize::from(table);
        Some(match *key {
            code::Key::None => tables.update(table, &(), next),
            code::Key::Number(shape, ref source) => {
                tables.update(table, &number_of(view, shape, source)?, next)
            }
            code::Key::Parts(parts) => tables.update(table, build_key(view, parts, words)?, next),
        })
    }

    #[inline(always)]
    pub(super) fn add(
        &mut self,
        table: u16,
        key: &code::Key,
        amount: Register,
        sum: fn(u64, u64) -> u64,
    ) -> Option<u64> {
        let amount = self.number(amount)?;
        match key {
            code::Key::None => {
                let next = |old: Option<u64>| Some(sum(old.unwrap_or(0), amount));
                self.memory.tables.update(table.into(), &(), next)
            }
            key => self.add_by_key(table, key, amount, sum),
        }
    }

    #[inline(never)]
    fn add_by_key(
        &mut self,
        table: u16,
        key: &code::Key,
        amount: u64,
        sum: fn(u64, u64) -> u64,
    ) -> Option<u64> {
        self.update(table, key, |old| Some(sum(old.unwrap_or(0), amount))).flatten()
    }

    #[inline(never)]
    pub(super) fn take(&mut self, table: u16, key: &code::Key, terms: &Terms) -> Option<bool> {
        let Terms { count, cost, burst } = *terms;
        let count = self.number(count)?;
        let registers = &*self.view.registers;
        let (cost, burst) = (share(registers, cost, count)?, share(registers, burst, count)?);
        if count == 0 {
            return Some(false);
        }
        let now = self.view.call.now_ns;
        let taken = self.update(table, key, |old| operations::take(old.unwrap_or(0), now, cost, burst));
        Some(taken?.is_some())
    }

    #[inline(never)]
    pub(super) fn hash(&self, values: List) -> Option<u64> {
        let mut hasher = Hasher::default();
        for source in values.of(&self.view.code.sources) {
            match self.view.value(source)? {
                Value::Number(number) => hasher.word(number),
                Value::Bytes(bytes) => hasher.bytes(bytes),
            }
        }
        Some(hasher.finish())
    }

    /// Keeps a text that a table has in `room` in the arena: the table can change.
    #[inline(never)]
    pub(super) fn fetch(&mut self, into: Register, room: u32, table: u16, key: &code::Key) {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        let text = key_of(view, key, &mut [0], words).and_then(|key| tables.bytes(table.into(), key));
        view.registers.keep(into, room, text);
    }

    /// Sets a table's value, where there is room for it.
    #[inline(never)]
    pub(super) fn write(&mut self, table: u16, key: &code::Key, value: &Source) {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        if let (Some(key), Some(value)) = (key_of(view, key, &mut [0], words), view.value(value)) {
            tables.set(table.into(), key, value);
        }
    }

    #[inline(never)]
    pub(super) fn delete(&mut self, table: u16, key: &code::Key) {
        let Machine { view, memory: Memory { tables, key: words, .. }, .. } = self;
        if let Some(key) = key_of(view, key, &mut [0], words) {
            tables.remove(table.into(), key);
        }
    }

    #[inline(never)]
    pub(super) fn same(&self, a: &Source, b: &Source) -> Option<bool> {
        self.view.value(a).zip(self.view.value(b)).map(|(a, b)| a == b)
    }

    #[inline(never)]
    pub(super) fn starts_with(&self, text: &Source, prefix: List) -> Option<bool> {
        let prefix = prefix.of(&self.view.code.bytes);
        self.view.bytes(text).map(|text| text.starts_with(prefix))
    }

    /// Where the first test leads that holds of a number.
    #[inline(never)]
    pub(super) fn switch(&self, number: Option<u64>, tests: List) -> Option<u32> {
        let code = self.view.code;
        let holds = |test: &&Test| test.probe.holds_of_number(number, &code.numbers);
        tests.of(&code.tests).iter().find(holds).map(|test| test.target)
    }

    /// The same of bytes.
    #[inline(never)]
    pub(super) fn switch_bytes(&self, subject: &Source, tests: List) -> Option<u32> {
        let code = self.view.code;
        let bytes = self.view.bytes(subject);
        let holds = |test: &&Test| test.probe.holds_of_bytes(bytes, &code.bytes);
        tests.of(&code.tests).iter().find(holds).map(|test| test.target)
    }

    #[inline(never)]
    pub(super) fn log(&mut self, values: List) {
        let values = values.of(&self.view.code.logged).iter();
        let values = values.map(|(source, kind)| (self.view.value(source), kind));
        self.memory.log.line(self.element, self.view.call.method, values);
    }

    /// `None`, and nothing changes, where there is no value or no such field.
    #[inline(never)]
    pub(super) fn write_field(&mut self, field: FieldRef, value: &Source) -> Option<()> {
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
    #[inline(never)]
    pub(super) fn crypt(&mut self, field: FieldRef, key: u16, decrypt: bool) -> Option<bool> {
        let now_ns = self.view.call.now_ns;
        let (place, bytes) = self.view.field(field)?;
        let Shape::Inline(_) = place.shape else { return None };
        let (length, room) = bytes.split_first_mut()?;
        let known = Some(usize::from(*length)).filter(|known| *known <= room.len())?;
        let Some(cipher) = self.keys.get(usize::from(key))? else { return Some(false) };
        let now = match decrypt {
            true => cipher.decrypt(&mut self.memory.spare, room, known),
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
fn key_of<'k>(
    view: &View<'_, '_, '_>,
    key: &code::Key,
    one: &'k mut [u64; 1],
    words: &'k mut Key,
) -> Option<&'k [u64]> {
    match *key {
        code::Key::None => Some(&[]),
        code::Key::Number(shape, ref source) => {
            *one = [number_of(view, shape, source)?];
            Some(one)
        }
        code::Key::Parts(parts) => build_key(view, parts, words),
    }
}

/// A key of one number.
#[inline(always)]
fn number_of(view: &View<'_, '_, '_>, shape: Shape, source: &Source) -> Option<u64> {
    Some(shape.canonical(view.number(source)?))
}

/// A key of several parts, or of one that is no number.
#[inline(never)]
fn build_key<'k>(view: &View<'_, '_, '_>, parts: List, key: &'k mut Key) -> Option<&'k [u64]> {
    key.clear();
    parts.of(&view.code.parts).iter().try_for_each(|(shape, source)| match view.value(source)? {
        Value::Number(number) => key.push_number(*shape, number),
        Value::Bytes(bytes) => key.push_bytes(*shape, bytes),
    })?;
    Some(key.words())
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
