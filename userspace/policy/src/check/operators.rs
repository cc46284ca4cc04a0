//! Operators: which types they take, and what they come to where both sides are constants.

use super::Checker;
use super::constants::number_in;
use super::frame::Value;
use super::kind::{Kind, Wide};
use crate::ast::{Expression, Literal, Operator, PatternKind};
use crate::diagnostics::Span;
use crate::ir::{Arithmetic, Comparison, Constant, Number, Op, Operand};
use crate::operations;

impl Checker<'_, '_, '_> {
    pub(super) fn not(&mut self, inner: &Expression, span: &Span) -> Option<Value> {
        let value = self.condition(inner)?;
        if let Some(number) = number_in(&value.operand) {
            return Some(constant(u64::from(number == 0), Kind::Bool));
        }
        Some(self.keep(span, Op::Not(value.operand), Kind::Bool, value.optional))
    }

    /// An operand of `and`, `or`, `not`.
    fn condition(&mut self, expression: &Expression) -> Option<Value> {
        self.frame.logic += 1;
        let value = self.typed(expression, &Kind::Bool, "`and`, `or` and `not` take");
        self.frame.logic -= 1;
        value
    }

    pub(super) fn negate(&mut self, inner: &Expression, span: &Span) -> Option<Value> {
        let value = self.value(inner)?;
        let (kind, number) = match value.kind.wide() {
            Some(Wide::Signed) => (Kind::I64, Number::Signed),
            Some(Wide::Float) => (Kind::Float, Number::Float),
            _ => {
                self.sink
                    .error(&inner.span, format!("this is {}, which has no sign", value.kind), "not signed")
                    .help("convert it: -as_i64(x)");
                return None;
            }
        };
        let zero = Operand::Constant(Constant::Number(0));
        Some(self.calculate(span, Arithmetic::Subtract, number, (zero, value.operand), kind, value.optional))
    }

    pub(super) fn binary(
        &mut self,
        operator: Operator,
        left: &Expression,
        right: &Expression,
        span: &Span,
    ) -> Option<Value> {
        match operator {
            Operator::Arithmetic(op) => self.arithmetic(op, left, right, span),
            Operator::Compare(op) => self.compare(op, left, right, span),
            Operator::And | Operator::Or => {
                let (a, b) = (self.condition(left), self.condition(right));
                let (a, b) = (a?, b?);
                let optional = a.optional || b.optional;
                let op = match operator {
                    Operator::And => Op::And(a.operand, b.operand),
                    _ => Op::Or(a.operand, b.operand),
                };
                if let Op::And(Operand::Constant(_), Operand::Constant(_))
                | Op::Or(Operand::Constant(_), Operand::Constant(_)) = &op
                {
                    let (Op::And(a, b) | Op::Or(a, b)) = &op else { return None };
                    let (a, b) = (number_in(a)? != 0, number_in(b)? != 0);
                    let folded = if operator == Operator::And { a && b } else { a || b };
                    return Some(constant(u64::from(folded), Kind::Bool));
                }
                Some(self.keep(span, op, Kind::Bool, optional))
            }
        }
    }

    /// Both sides, a constant with the type that the other side gives it.
    fn sides(
        &mut self,
        left: &Expression,
        right: &Expression,
        adopt: impl Fn(&Kind, &PatternKind) -> Kind,
    ) -> Option<(Value, Value)> {
        let (first, second) = (self.as_constant(left), self.as_constant(right));
        let left_adopts = first.is_some();
        let (known, other, adopting) = match (first, second) {
            (Some(adopting), None) => (right, left, adopting),
            (None, Some(adopting)) => (left, right, adopting),
            _ => {
                let (a, b) = (self.value(left), self.value(right));
                return Some((a?, b?));
            }
        };
        let value = self.value(known)?;
        let kind = adopt(&value.kind, &adopting);
        let constant = self.constant(&adopting, &other.span, &kind)?;
        let adopted = Value::new(Operand::Constant(constant), kind, false);
        Some(if left_adopts { (adopted, value) } else { (value, adopted) })
    }

    fn compare(
        &mut self,
        op: Comparison,
        left: &Expression,
        right: &Expression,
        span: &Span,
    ) -> Option<Value> {
        let equality = matches!(op, Comparison::Equal | Comparison::NotEqual);
        if equality && let Some(value) = self.is_one_of_methods(op, left, right, span) {
            return value;
        }
        let (a, b) = self.sides(left, right, |kind, _| kind.widened())?;
        let optional = a.optional || b.optional;
        if let (Some(wide), Some(other)) = (a.kind.wide(), b.kind.wide()) {
            if wide != other {
                return self.disagree(&a.kind, &b.kind, span);
            }
            let number = wide.number();
            if let (Some(x), Some(y)) = (number_in(&a.operand), number_in(&b.operand)) {
                return Some(constant(operations::Order::new(op, number).holds(x, y).into(), Kind::Bool));
            }
            let op = Op::Compare { op, number, a: a.operand, b: b.operand };
            return Some(self.keep(span, op, Kind::Bool, optional));
        }
        if !a.kind.fits(&b.kind) && !b.kind.fits(&a.kind) && a.kind.join(&b.kind).is_none() {
            return self.disagree(&a.kind, &b.kind, span);
        }
        if !equality {
            self.sink
                .error(span, format!("{} has no order", a.kind), "smaller or larger than what?")
                .help("compare it with == or !=");
            return None;
        }
        if !a.kind.is_text() {
            let op = Op::Compare { op, number: Number::Unsigned, a: a.operand, b: b.operand };
            return Some(self.keep(span, op, Kind::Bool, optional));
        }
        let same = self.keep(span, Op::Same { a: a.operand, b: b.operand }, Kind::Bool, optional);
        if op == Comparison::Equal {
            return Some(same);
        }
        Some(self.keep(span, Op::Not(same.operand), Kind::Bool, optional))
    }

    /// `method == Get`, where several services may have a method of that name; `None`: it is something else.
    #[expect(clippy::option_option, reason = "whether it is this, and whether that is right")]
    fn is_one_of_methods(
        &mut self,
        op: Comparison,
        left: &Expression,
        right: &Expression,
        span: &Span,
    ) -> Option<Option<Value>> {
        let (method, name) = match (super::is_name(left, "method"), super::is_name(right, "method")) {
            (true, false) => (left, right),
            (false, true) => (right, left),
            _ => return None,
        };
        let written = match self.as_constant(name)? {
            PatternKind::Name(written) | PatternKind::Literal(Literal::Text(written)) => written,
            _ => return None,
        };
        let subject = self.value(method)?;
        let Some(numbers) = self.ids(&written, &name.span, &subject.kind) else { return Some(None) };
        let found = self.is_one_of(subject.operand, &numbers, span);
        Some(Some(match op {
            Comparison::NotEqual => self.keep(span, Op::Not(found.operand), Kind::Bool, false),
            _ => found,
        }))
    }

    /// Whether a number that is always there is one of some.
    pub(super) fn is_one_of(&mut self, subject: Operand, numbers: &[u64], span: &Span) -> Value {
        let mut found: Option<Value> = None;
        for number in numbers {
            let (op, kind) = (Comparison::Equal, Number::Unsigned);
            let b = Operand::Constant(Constant::Number(*number));
            let this =
                self.keep(span, Op::Compare { op, number: kind, a: subject.clone(), b }, Kind::Bool, false);
            found = Some(match found {
                None => this,
                Some(before) => self.keep(span, Op::Or(before.operand, this.operand), Kind::Bool, false),
            });
        }
        found.unwrap_or_else(|| constant(0, Kind::Bool))
    }

    fn disagree(&mut self, a: &Kind, b: &Kind, span: &Span) -> Option<Value> {
        let help = match (a.wide(), b.wide()) {
            (Some(Wide::Signed), Some(Wide::Unsigned)) | (Some(Wide::Unsigned), Some(Wide::Signed)) => {
                Some("convert one side: as_u64(x) makes negative numbers 0, as_i64(x) stops at the largest")
            }
            (Some(Wide::Float), Some(_)) | (Some(_), Some(Wide::Float)) => {
                Some("convert the other side: float(x)")
            }
            (Some(Wide::Duration), Some(_)) | (Some(_), Some(Wide::Duration)) => {
                Some("write times with a unit, such as 250ms; as_u64(x) gives the ns of one")
            }
            _ => None,
        };
        self.sink
            .error(span, format!("{a} and {b} do not go together"), "two types")
            .maybe_help(help.map(str::to_owned));
        None
    }

    fn arithmetic(
        &mut self,
        op: Arithmetic,
        left: &Expression,
        right: &Expression,
        span: &Span,
    ) -> Option<Value> {
        let scales = matches!(op, Arithmetic::Multiply | Arithmetic::Divide);
        let adopt = |kind: &Kind, adopting: &PatternKind| match adopting {
            PatternKind::Literal(Literal::Number { .. }) if scales && *kind == Kind::Duration => Kind::U64,
            // `n * 1ms` is a time.
            PatternKind::Literal(Literal::Duration(_)) if scales => Kind::Duration,
            _ => kind.widened(),
        };
        let (a, b) = self.sides(left, right, adopt)?;
        let optional = a.optional || b.optional;
        let (Some(x), Some(y)) = (a.kind.wide(), b.kind.wide()) else {
            let odd = if a.kind.wide().is_none() { &a.kind } else { &b.kind };
            self.sink.error(span, format!("{odd} is not a number to calculate with"), "not a number");
            return None;
        };
        let result = match (x, op, y) {
            (Wide::Percent, _, _) | (_, _, Wide::Percent) => {
                self.sink
                    .error(span, "percentages are compared, not calculated with", "not a number")
                    .help("as_u64(x) gives parts per million");
                return None;
            }
            (Wide::Duration, Arithmetic::Multiply | Arithmetic::Divide, Wide::Unsigned)
            | (Wide::Unsigned, Arithmetic::Multiply, Wide::Duration) => Kind::Duration,
            (Wide::Duration, Arithmetic::Divide, Wide::Duration) => Kind::U64,
            (Wide::Duration, Arithmetic::Multiply, Wide::Duration) => {
                self.sink.error(span, "a time multiplied by a time is no time", "two times");
                return None;
            }
            (x, _, y) if x == y => x.kind(),
            _ => return self.disagree(&a.kind, &b.kind, span),
        };
        let number = if x == Wide::Duration { Number::Unsigned } else { x.number() };
        Some(self.calculate(span, op, number, (a.operand, b.operand), result, optional))
    }

    fn calculate(
        &mut self,
        span: &Span,
        op: Arithmetic,
        number: Number,
        (a, b): (Operand, Operand),
        kind: Kind,
        optional: bool,
    ) -> Value {
        if let (Some(x), Some(y)) = (number_in(&a), number_in(&b)) {
            return constant(operations::arithmetic(op, number)(x, y), kind);
        }
        self.keep(span, Op::Arithmetic { op, number, a, b }, kind, optional)
    }
}

pub(super) fn constant(number: u64, kind: Kind) -> Value {
    Value::new(Operand::Constant(Constant::Number(number)), kind, false)
}
