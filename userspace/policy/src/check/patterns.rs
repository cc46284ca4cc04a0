//! Patterns have the subject's type.

use super::Checker;
use super::constants::number_of_id;
use super::frame::Value;
use super::kind::{Kind, Wide};
use crate::ast::{Literal, Pattern, PatternKind};
use crate::diagnostics::Span;
use crate::ir::{self, Constant, Number};
use crate::notation;

/// Bits of an address.
const ADDRESS_BITS: u8 = 128;

impl Checker<'_, '_, '_> {
    pub(super) fn pattern(
        &mut self,
        pattern: &Pattern,
        alternatives: usize,
        subject: Option<&Value>,
    ) -> Option<ir::Pattern> {
        let Pattern { span, kind } = pattern;
        if let PatternKind::Present(Some(name)) = kind {
            if alternatives > 1 {
                self.sink
                    .error(
                        span,
                        format!("`{}` would have no value in the other alternatives", name.text),
                        "binds a name",
                    )
                    .help("give Some(x) an arm of its own, or write Some(_)");
            }
            self.check_new_name(&name.text, &name.span);
            self.bind(name, subject.map(|subject| Value { optional: false, ..subject.clone() }));
        }
        let subject = subject?;
        let optional = matches!(kind, PatternKind::Absent | PatternKind::Present(_));
        if optional && !subject.optional {
            self.sink
                .error(span, "this value is never absent", "matches presence")
                .help("match its values, or write _");
            return None;
        }
        Some(match kind {
            PatternKind::Any => ir::Pattern::Any,
            PatternKind::Absent => ir::Pattern::Absent,
            PatternKind::Present(_) => ir::Pattern::Present,
            PatternKind::Prefix(prefix) => return self.prefix(prefix, span, &subject.kind),
            PatternKind::Range(from, to) => return self.range(from, to, span, &subject.kind),
            PatternKind::Literal(Literal::Text(text)) if subject.kind == Kind::Address => {
                return self.addresses(text, span);
            }
            PatternKind::Literal(_) => return self.equal(kind, span, &subject.kind),
            PatternKind::Name(name) => match self.frame.parameters.get(name) {
                None => return self.equal(kind, span, &subject.kind),
                Some(None) => return None,
                Some(Some(argument)) => {
                    let argument = argument.clone();
                    let constant = match argument.kind {
                        crate::ast::ExpressionKind::Literal(Literal::Text(text))
                            if subject.kind == Kind::Address =>
                        {
                            return self.addresses(&text, span);
                        }
                        crate::ast::ExpressionKind::Literal(literal) => PatternKind::Literal(literal),
                        crate::ast::ExpressionKind::Name(name) => PatternKind::Name(name),
                        _ => return None,
                    };
                    return self.equal(&constant, span, &subject.kind);
                }
            },
        })
    }

    /// A constant; the name of a method can be that of several.
    fn equal(&mut self, constant: &PatternKind, span: &Span, kind: &Kind) -> Option<ir::Pattern> {
        if let (Kind::Method, PatternKind::Name(name) | PatternKind::Literal(Literal::Text(name))) =
            (kind, constant)
        {
            let numbers = self.ids(name, span, kind)?;
            return Some(match numbers.as_slice() {
                [only] => ir::Pattern::Equal(Constant::Number(*only)),
                _ => ir::Pattern::OneOf(numbers),
            });
        }
        Some(ir::Pattern::Equal(self.constant(constant, span, kind)?))
    }

    fn prefix(&mut self, prefix: &str, span: &Span, kind: &Kind) -> Option<ir::Pattern> {
        match kind {
            Kind::Text(_) | Kind::Bytes(_) => Some(ir::Pattern::Prefix(prefix.as_bytes().to_vec())),
            Kind::Method | Kind::Service => Some(ir::Pattern::OneOf(self.starting_with(prefix, span, kind)?)),
            _ => {
                let message = format!("{kind} does not start with anything");
                self.sink
                    .error(span, message, "not text")
                    .help("`*` stands for any end of a text; write \\* for a star");
                None
            }
        }
    }

    /// The numbers of the methods or services whose names start so, ascending.
    pub(super) fn starting_with(&mut self, prefix: &str, span: &Span, kind: &Kind) -> Option<Vec<u64>> {
        let ids = match kind {
            Kind::Service => self.methods.services_starting_with(prefix),
            _ => self.methods.starting_with(prefix),
        };
        if ids.is_empty() {
            self.sink
                .error(span, format!("no {kind} of the schema starts with '{prefix}'"), "never matches")
                .help("methods are matched by their names and by their paths, such as 'kv.Kv/Get'");
            return None;
        }
        let mut numbers: Vec<u64> = ids.into_iter().map(number_of_id).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers)
    }

    fn range(&mut self, from: &Literal, to: &Literal, span: &Span, kind: &Kind) -> Option<ir::Pattern> {
        let number = match kind.wide() {
            Some(Wide::Unsigned | Wide::Duration | Wide::Percent) => Number::Unsigned,
            Some(Wide::Signed) => Number::Signed,
            Some(Wide::Float) => Number::Float,
            None => {
                self.sink
                    .error(span, format!("{kind} has no ranges"), "not a number")
                    .help("ranges are for numbers and times: 1..10, 1ms..5ms");
                return None;
            }
        };
        // The end is not part of it: it may be one behind the largest number.
        let wide = kind.widened();
        let from = self.constant(&PatternKind::Literal(from.clone()), span, kind);
        let to = self.constant(&PatternKind::Literal(to.clone()), span, &wide);
        let (Constant::Number(from), Constant::Number(to)) = (from?, to?) else { return None };
        let empty = match number {
            Number::Unsigned => from >= to,
            Number::Signed => from as i64 >= to as i64,
            Number::Float => f64::from_bits(from) >= f64::from_bits(to),
        };
        if empty {
            self.sink
                .error(span, "this range is empty", "never matches")
                .help("ranges go up, and their end is not part of them: 1..10 is 1 to 9");
            return None;
        }
        Some(ir::Pattern::Range { number, from, to })
    }

    /// `'10.0.0.0/8'`, or one address.
    fn addresses(&mut self, text: &str, span: &Span) -> Option<ir::Pattern> {
        match notation::cidr(text) {
            Some((address, ADDRESS_BITS)) => Some(ir::Pattern::Equal(Constant::Bytes(address.to_vec()))),
            Some((address, bits)) => Some(ir::Pattern::Cidr { address, bits }),
            None => {
                self.sink
                    .error(span, format!("'{text}' is neither an address nor a network"), "not an address")
                    .help("networks are '10.0.0.0/8' or '2001:db8::/32', with zeros behind the prefix");
                None
            }
        }
    }
}
