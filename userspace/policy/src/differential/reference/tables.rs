//! Tables in their users' notation.

use super::value::{Maybe, Of, Value, format, format_key, parse, saturated};
use super::{Names, Reference, Way};
use crate::ast::Expression;
use crate::notation;
use crate::table::{KeyType, TableKind, TableSpec, ValueType};

impl Reference {
    fn spec(&self, table: &str) -> TableSpec {
        self.specs.iter().find(|spec| spec.name == *table).unwrap().clone()
    }

    /// A key as a user would write it.
    pub(super) fn key(
        &mut self,
        table: &str,
        key: &[Expression],
        way: &mut Way<'_>,
        names: &Names,
    ) -> Option<String> {
        let values: Vec<Maybe> = key.iter().map(|part| self.value(part, way, names)).collect();
        let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
        match self.spec(table).key {
            KeyType::Unit => Some(String::new()),
            KeyType::Cidr => {
                let Value::Text(address) = &values[0] else { panic!("{values:?}") };
                let address = match address.as_slice().try_into() {
                    Ok(address) => address,
                    Err(_) => notation::address(std::str::from_utf8(address).unwrap()).unwrap(),
                };
                Some(notation::format_cidr(address, 128))
            }
            KeyType::Tuple { parts } => {
                let parts: Vec<String> =
                    values.iter().zip(&parts).map(|(value, kind)| format_key(value, kind)).collect();
                Some(parts.join(","))
            }
            kind => Some(format_key(&values[0], &kind)),
        }
    }

    pub(super) fn get(&self, table: &str, key: &str) -> Maybe {
        let spec = self.spec(table);
        let entries = &self.tables[table];
        let text = match spec.kind {
            TableKind::Lpm => {
                let (address, _) = notation::cidr(key).unwrap();
                let covering = entries.iter().filter_map(|(network, value)| {
                    let (network, bits) = notation::cidr(network).unwrap();
                    super::same_network(&address, &network, bits).then_some((bits, value))
                });
                covering.max_by_key(|(bits, _)| *bits).map(|(_, value)| value)
            }
            _ => entries.get(key),
        };
        text.map(|text| parse(text, &spec.value))
    }

    /// Whether there was room.
    pub(super) fn set(&mut self, table: &str, key: &str, value: &Value) -> bool {
        let spec = self.spec(table);
        // What is too long for its place changes nothing.
        if let (Value::Text(text), ValueType::String { max_len } | ValueType::Bytes { max_len }) =
            (value, &spec.value)
            && text.len() > usize::from(*max_len)
        {
            return true;
        }
        let entries = self.tables.get_mut(table).unwrap();
        let fits = entries.contains_key(key) || entries.len() < spec.capacity as usize;
        if fits {
            entries.insert(key.to_owned(), format(value, &spec.value));
        }
        fits
    }

    pub(super) fn add(&mut self, table: &str, key: &str, amount: i128) -> Maybe {
        let spec = self.spec(table);
        let old = match self.get(table, key) {
            Some(Value::Int(old, _)) => old,
            None => 0,
            other => panic!("{other:?}"),
        };
        let (of, low, high) = match spec.value {
            ValueType::U32 => (Of::Unsigned, 0, u32::MAX.into()),
            ValueType::I32 => (Of::Signed, i32::MIN.into(), i32::MAX.into()),
            ValueType::I64 => (Of::Signed, i64::MIN.into(), i64::MAX.into()),
            _ => (Of::Unsigned, 0, u64::MAX.into()),
        };
        let sum = Value::Int(saturated(old + amount, of).clamp(low, high), of);
        let room = self.set(table, key, &sum);
        (room && spec.kind != TableKind::Counter).then_some(sum)
    }

    /// A bucket of `burst` that fills with `count` in `period_ns`, at a time: whether there was room for `cost`.
    pub(super) fn take(
        &mut self,
        table: &str,
        key: &str,
        now: u64,
        (count, period_ns): (u64, u64),
        burst: u64,
        cost: u64,
    ) -> bool {
        let per = cost.saturating_mul(period_ns) / count;
        let limit = burst.saturating_mul(period_ns) / count;
        let known = match self.get(table, key) {
            Some(Value::Int(known, _)) => known as u64,
            None => 0,
            other => panic!("{other:?}"),
        };
        let next = known.max(now).saturating_add(per);
        next - now <= limit && self.set(table, key, &Value::Int(next.into(), Of::Duration))
    }
}
