//! Tables, counters and cells: reading, writing, adding, taking.

use super::Checker;
use super::constants::number_in;
use super::frame::Value;
use super::kind::{Kind, Wide};
use super::tables::Table;
use crate::ast::{Expression, ExpressionKind, Literal, Name, Rate};
use crate::diagnostics::Span;
use crate::ir::{Action, Constant, Number, Op, Operand};
use crate::table::TableKind;

/// A table, and a key of its type.
struct Entry {
    table: usize,
    key: Vec<Operand>,
    optional: bool,
}

impl Checker<'_, '_, '_> {
    pub(super) fn cell(&self, name: &str) -> bool {
        let table = self.table_names.get(name).and_then(|at| self.tables.get(*at));
        table.is_some_and(|table| table.spec.kind == TableKind::Cell)
    }

    /// `get(from, what)`
    pub(super) fn get(&mut self, from: &Expression, what: &[Expression], span: &Span) -> Option<Value> {
        let (resolved, _) = self.resolved(from)?;
        let word = match &resolved.kind {
            ExpressionKind::Name(name) => name.clone(),
            _ => String::new(),
        };
        match (word.as_str(), what) {
            ("rpc" | "request" | "response", [field]) => self.get_field(&word, from, field),
            ("peer", [what]) => self.get_peer(what),
            ("metadata", [key]) => {
                let key = self.text(key, "metadata", "get(metadata, 'key')")?;
                let at = super::functions::place_of(&mut self.uses.metadata, &key);
                let kind = Kind::Text(super::kind::Length::Unbounded);
                Some(Value::new(Operand::Metadata(at), kind, true))
            }
            ("rpc" | "request" | "response" | "peer" | "metadata", _) => {
                self.sink
                    .error(span, format!("`get({word}, ...)` takes one thing to read"), "not a value")
                    .help(format!("write get({word}, 'name')"));
                None
            }
            _ => self.look_up(from, what, span),
        }
    }

    fn look_up(&mut self, table: &Expression, key: &[Expression], span: &Span) -> Option<Value> {
        let Entry { table: at, key, optional: _ } = self.entry(table, key)?;
        let Table { spec, value, .. } = self.tables.get(at)?;
        let (kind, value) = (spec.kind, value.clone());
        if kind == TableKind::Counter {
            self.sink
                .error(span, format!("`{}` is a counter: policies only add to it", spec.name), "not readable here")
                .help("read it with `tollfree policy table`; what a policy reads itself is a cell: `n: u64 = 0`");
            return None;
        }
        let Some(value) = value else {
            self.sink
                .error(span, format!("`{}` holds token buckets", spec.name), "not readable")
                .help("ask for a token: take(table, key, 100/s)");
            return None;
        };
        let op = Op::Lookup { table: at, key };
        Some(self.keep(span, op, value, kind != TableKind::Cell))
    }

    /// The table that an expression names.
    fn table(&mut self, table: &Expression) -> Option<usize> {
        let (resolved, given) = self.resolved(table)?;
        if let ExpressionKind::Name(name) = &resolved.kind
            && (given || self.frame.find(name).is_none())
            && !super::constants::WORDS.contains(&name.as_str())
        {
            // A table that is not declared has been reported with the tables.
            return self.table_names.get(name).copied();
        }
        self.sink
            .error(&table.span, "this is not a table", "neither `rpc` nor a table")
            .help("read fields with get(rpc, 'field') and tables with get(table, key)");
        None
    }

    fn entry(&mut self, table: &Expression, key: &[Expression]) -> Option<Entry> {
        let at = self.table(table)?;
        let kinds = self.tables.get(at)?.key.clone();
        if kinds.len() != key.len() {
            let name = self.tables.get(at)?.spec.name.clone();
            let message = match kinds.len() {
                0 => format!("`{name}` is one value: it has no key"),
                1 => format!("`{name}` is looked up by one key, but {} stand here", key.len()),
                many => format!("`{name}` is looked up by {many} keys, but {} stand here", key.len()),
            };
            let span = match (key.first(), key.last()) {
                (Some(first), Some(last)) => first.span.start..last.span.end,
                _ => table.span.clone(),
            };
            self.sink.error(&span, message, "keys of another number");
            return None;
        }
        let values: Vec<Option<Value>> =
            key.iter().zip(&kinds).map(|(key, kind)| self.typed(key, kind, "the table's keys are")).collect();
        let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
        let optional = values.iter().any(|value| value.optional);
        Some(Entry { table: at, key: values.into_iter().map(|value| value.operand).collect(), optional })
    }

    /// Whether a table's entries are written by set() and delete(); reports it if not.
    fn writable(&mut self, at: usize, span: &Span, what: &str) -> Option<Kind> {
        let Table { spec, value, .. } = self.tables.get(at)?;
        match (spec.kind, value) {
            (TableKind::Counter, _) => {
                self.sink
                    .error(
                        span,
                        format!("`{}` is a counter: policies only add to it", spec.name),
                        "a counter",
                    )
                    .help(format!("write add({}, 1)", spec.name));
                None
            }
            (_, None) if what == "set" => {
                self.sink
                    .error(span, format!("`{}` holds token buckets", spec.name), "not a value")
                    .help("take(table, key, 100/s) takes a token; delete(table, key) fills a bucket up");
                None
            }
            (_, value) => Some(value.clone().unwrap_or(Kind::Duration)),
        }
    }

    /// `set(table, key, value)`
    pub(super) fn set(&mut self, table: &Expression, rest: &[Expression], span: &Span) -> Option<Action> {
        let (value, key) = rest.split_last()?;
        let Entry { table, key, optional: _ } = self.entry(table, key)?;
        let kind = self.writable(table, span, "set")?;
        let place = &value.span;
        let value = self.stored(value, &kind, "the table's values are")?;
        if let (Operand::Field(_), Kind::Enum(names)) = (&value.operand, &value.kind)
            && !names.closed
        {
            self.sink
                .error(place, "a field's enum cannot be kept in a table", "could be any number")
                .help("match it, and set the names one by one");
        }
        Some(Action::Set { table, key, value: value.operand })
    }

    /// A text or bytes of any length: what is too long for its place changes nothing.
    pub(super) fn any_length(&mut self, value: &Expression, kind: &Kind, what: &str) -> Option<Value> {
        let any = match kind {
            Kind::Text(_) => Kind::Text(super::kind::Length::Unbounded),
            Kind::Bytes(_) => Kind::Bytes(super::kind::Length::Unbounded),
            other => other.clone(),
        };
        self.typed(value, &any, what)
    }

    /// `delete(table, key)`
    pub(super) fn delete(&mut self, table: &Expression, key: &[Expression], span: &Span) -> Option<Action> {
        let Entry { table, key, optional: _ } = self.entry(table, key)?;
        if self.tables.get(table)?.spec.kind == TableKind::Cell {
            self.sink
                .error(span, "a cell always has a value", "cannot be deleted")
                .help("give it another one: set(cell, 0)");
            return None;
        }
        self.writable(table, span, "delete")?;
        Some(Action::Delete { table, key })
    }

    /// `add(table, key, n)`
    pub(super) fn add(&mut self, table: &Expression, rest: &[Expression], span: &Span) -> Option<Value> {
        let (amount, key) = rest.split_last()?;
        let Entry { table: at, key, optional } = self.entry(table, key)?;
        let Table { spec, value, .. } = self.tables.get(at)?;
        let counter = spec.kind == TableKind::Counter;
        let Some(kind) = value.clone().filter(|kind| kind.wide().is_some()) else {
            let held = value.as_ref().map_or("token buckets".to_owned(), ToString::to_string);
            let message = format!("`{}` holds {held}: nothing to add to", spec.name);
            self.sink.error(span, message, "not a number");
            return None;
        };
        let negative = matches!(self.literal_of(amount), Some(Literal::Number { negative: true, .. }));
        // A signed amount takes away from an unsigned number.
        let amount = match (kind.wide()?, negative) {
            (Wide::Unsigned, true) if counter => {
                self.sink.error(&amount.span, "a counter only grows", "less than nothing");
                return None;
            }
            (Wide::Unsigned, true) => self.typed(amount, &Kind::I64, "what is added is")?,
            (Wide::Unsigned, false) if self.literal_of(amount).is_none() => {
                let amount_span = &amount.span;
                let value = self.value(amount)?;
                match value.kind.wide() {
                    Some(Wide::Unsigned) => value,
                    Some(Wide::Signed) if !counter => value,
                    _ => {
                        let message = format!("this is {}, but what is added is {kind}", value.kind);
                        self.sink.error(amount_span, message, format!("not {kind}"));
                        return None;
                    }
                }
            }
            _ => self.typed(amount, &kind.widened(), "what is added is")?,
        };
        let optional = optional || amount.optional || counter;
        let number = amount.kind.wide().map_or(Number::Unsigned, Wide::number);
        let op = Op::Add { table: at, key, number, amount: amount.operand };
        Some(self.keep(span, op, kind.widened(), optional))
    }

    /// `take(table, key, 100/s, burst = 20, cost = 1)`
    pub(super) fn take(
        &mut self,
        table: &Expression,
        rest: &[Expression],
        named: &[(Name, Expression)],
        span: &Span,
    ) -> Option<Value> {
        let (rate, key) = rest.split_last()?;
        let [burst, cost] = self.options(named, "take", ["burst", "cost"]);
        let rate = self.rate(rate);
        let entry = self.entry(table, key);
        let what = "tokens are counted in";
        let burst = match burst {
            Some(burst) => Some(self.typed(burst, &Kind::U64, what)?),
            None => None,
        };
        let cost = match cost {
            Some(cost) => Some(self.typed(cost, &Kind::U64, what)?),
            None => None,
        };
        let (Rate { count, period_ns }, Entry { table: at, key, optional }) = (rate?, entry?);
        let Table { spec, value, .. } = self.tables.get(at)?;
        if value.is_some() || spec.kind == TableKind::Counter {
            let message = format!("`{}` does not hold token buckets", spec.name);
            self.sink.error(&table.span, message, "no buckets").help(format!(
                "declare it so: `{}: table(... -> bucket)`, or `{0}: bucket` for one",
                spec.name
            ));
            return None;
        }
        let number = |number| Operand::Constant(Constant::Number(number));
        let optional = optional
            || burst.as_ref().is_some_and(|v| v.optional)
            || cost.as_ref().is_some_and(|v| v.optional);
        let burst = burst.map_or(number(count.max(1)), |burst| burst.operand);
        let cost = cost.map_or(number(1), |cost| cost.operand);
        if let (Some(cost_n), Some(burst_n)) = (number_in(&cost), number_in(&burst))
            && cost_n > burst_n
        {
            self.sink
                .error(span, format!("{cost_n} tokens never fit a bucket of {burst_n}"), "never true")
                .help("make burst at least as large as cost");
        }
        let op = Op::Take { table: at, key, count: number(count), period_ns, burst, cost };
        Some(self.keep(span, op, Kind::Bool, optional))
    }

    fn rate(&mut self, rate: &Expression) -> Option<Rate> {
        self.resolved(rate)?;
        match self.literal_of(rate) {
            Some(Literal::Rate(Rate { count: 0, .. })) => {
                self.sink
                    .error(&rate.span, "a rate of nothing lets nothing through", "never a token")
                    .help("refuse calls with drop() or reject(CODE)");
                None
            }
            Some(Literal::Rate(rate)) => Some(rate),
            _ => {
                self.sink
                    .error(&rate.span, "this is not a rate", "how many in which time?")
                    .help("rates are 100/s, 10/m, 10MiB/s, or a parameter; write take(table, key, 100/s)");
                None
            }
        }
    }
}
