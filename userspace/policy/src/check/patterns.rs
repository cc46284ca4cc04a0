//! The arms of a `match`: patterns have the subject's type, every case has an arm, and every arm has a case.

use super::Checker;
use super::element::{Scope, Value};
use crate::ast::{Arm, Literal, Pattern, PatternKind};
use crate::diagnostics::Span;
use crate::ir::{self, Constant, Operand};
use crate::suggest::did_you_mean;
use crate::table::KeyType;

impl Checker<'_, '_, '_> {
    /// An arm, and whether it ends.
    pub(super) fn arm(&mut self, arm: &Arm, subject: Option<&Value>, scope: &mut Scope) -> (ir::Arm, bool) {
        let outer = scope.variables.len();
        scope.depth += 1;
        let mut patterns = Vec::new();
        for pattern in &arm.patterns {
            if let Some(pattern) = self.pattern(pattern, arm.patterns.len(), subject, scope) {
                patterns.push(pattern);
            }
        }
        let block = self.block(&arm.body, scope);
        scope.depth -= 1;
        scope.variables.truncate(outer);
        (ir::Arm { patterns, guard: None, body: block.statements }, block.ends)
    }

    fn pattern(
        &mut self,
        pattern: &Pattern,
        alternatives: usize,
        subject: Option<&Value>,
        scope: &mut Scope,
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
            let value = subject.map(|subject| Value { optional: false, ..subject.clone() });
            scope.bind(name.text.clone(), name.span.clone(), value);
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
            PatternKind::Literal(_) | PatternKind::Name(_) => {
                ir::Pattern::Equal(self.constant(kind, span, &subject.kind)?)
            }
            PatternKind::Prefix(_) | PatternKind::Range(..) => return None,
        })
    }

    /// A constant of a type.
    pub(super) fn constant(
        &mut self,
        constant: &PatternKind,
        span: &Span,
        kind: &KeyType,
    ) -> Option<Constant> {
        let found = match (constant, kind) {
            (PatternKind::Literal(Literal::Bool(value)), KeyType::Bool) => {
                Some(Constant::Number(u64::from(*value)))
            }
            (
                PatternKind::Literal(Literal::Text(text)),
                KeyType::String { max_len } | KeyType::Bytes { max_len },
            ) => {
                if text.len() > usize::from(*max_len) {
                    let message = format!("this has {} bytes, but {kind} has at most {max_len}", text.len());
                    self.sink.error(span, message, "too long to be equal");
                    return None;
                }
                Some(Constant::Bytes(text.clone().into_bytes()))
            }
            (PatternKind::Literal(Literal::Number { negative, magnitude }), _) => {
                let value = i128::from(*magnitude) * if *negative { -1 } else { 1 };
                let range = match kind {
                    KeyType::U32 => Some((0, i128::from(u32::MAX))),
                    KeyType::U64 => Some((0, i128::from(u64::MAX))),
                    KeyType::I32 => Some((i128::from(i32::MIN), i128::from(i32::MAX))),
                    KeyType::I64 => Some((i128::from(i64::MIN), i128::from(i64::MAX))),
                    _ => None,
                };
                if let Some((low, high)) = range
                    && !(low..=high).contains(&value)
                {
                    self.sink.error(span, format!("{value} does not fit {kind}"), format!("{low} to {high}"));
                    return None;
                }
                range.map(|_| Constant::Number(value as u64))
            }
            (PatternKind::Name(name), KeyType::Enum { values }) => {
                let number = values.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
                if number.is_none() {
                    let known = values.iter().map(|(name, _)| name.as_str());
                    let help = did_you_mean(name, "the values are", known);
                    self.sink
                        .error(span, format!("`{name}` is not one of the values"), "unknown")
                        .maybe_help(help);
                    return None;
                }
                number.map(|number| Constant::Number(i64::from(number) as u64))
            }
            _ => None,
        };
        if found.is_none() {
            let help = match (constant, kind) {
                (_, KeyType::Fixed { .. }) => {
                    Some("fixed bytes can be keys of tables, but have no constants".into())
                }
                (_, KeyType::Enum { values }) => {
                    did_you_mean("", "the values are", values.iter().map(|(name, _)| name.as_str()))
                }
                (PatternKind::Name(_), KeyType::String { .. }) => Some("text is quoted: 'text'".into()),
                (PatternKind::Name(_), KeyType::Bool) => Some("the bools are true and false".into()),
                _ => None,
            };
            self.sink
                .error(span, format!("this constant is not of the type {kind}"), format!("not {kind}"))
                .maybe_help(help);
        }
        found
    }

    /// Every case has an arm, and every arm has a case.
    pub(super) fn arms(&mut self, span: &Span, subject: &Value, written: &[Arm], arms: &[ir::Arm]) {
        let mut seen: Vec<&ir::Pattern> = Vec::new();
        let cases = cases(subject);
        for (arm, written) in arms.iter().zip(written) {
            // An arm with a mistake in its patterns has fewer of them.
            if arm.patterns.len() != written.patterns.len() {
                return;
            }
            for (pattern, written) in arm.patterns.iter().zip(&written.patterns) {
                let covered = match pattern {
                    ir::Pattern::Any => seen.contains(&pattern),
                    ir::Pattern::Present => seen.contains(&pattern) || seen.contains(&&ir::Pattern::Any),
                    ir::Pattern::Absent => seen.contains(&&ir::Pattern::Any) || seen.contains(&pattern),
                    ir::Pattern::Equal(_)
                    | ir::Pattern::OneOf(_)
                    | ir::Pattern::Prefix(_)
                    | ir::Pattern::Range { .. }
                    | ir::Pattern::Cidr { .. } => {
                        seen.contains(&pattern)
                            || seen.contains(&&ir::Pattern::Any)
                            || seen.contains(&&ir::Pattern::Present)
                    }
                };
                if covered {
                    self.sink
                        .error(&written.span, "an arm above takes all of this", "never matches")
                        .help("leave it out, or move it up");
                }
                seen.push(pattern);
            }
        }
        if complete(&seen, cases.as_deref(), subject.optional) {
            return;
        }
        let mut missing: Vec<String> = Vec::new();
        if !present(&seen, cases.as_deref()) {
            match &cases {
                Some(cases) => missing.extend(
                    cases
                        .iter()
                        .filter(|(_, number)| !seen.contains(&&ir::Pattern::Equal(Constant::Number(*number))))
                        .map(|(name, _)| name.clone()),
                ),
                None => missing.push("all other values (Some(_))".into()),
            }
        }
        if subject.optional && !seen.contains(&&ir::Pattern::Absent) {
            missing.push("NONE".into());
        }
        self.sink
            .error(span, format!("no arm for {}", missing.join(", ")), "not all cases have an arm")
            .help("add arms for them, or `_` for everything else");
    }
}

/// The values, where they can be listed. An enum field can have numbers that this schema has no name for (a newer
/// peer's), so it needs an arm for those too; only tables' own enums are closed.
fn cases(subject: &Value) -> Option<Vec<(String, u64)>> {
    match &subject.kind {
        KeyType::Bool => Some(vec![("false".into(), 0), ("true".into(), 1)]),
        KeyType::Enum { values } if matches!(subject.operand, Operand::Slot(_)) => {
            Some(values.iter().map(|(name, number)| (name.clone(), i64::from(*number) as u64)).collect())
        }
        _ => None,
    }
}

/// Whether every value that is there has an arm.
fn present(seen: &[&ir::Pattern], cases: Option<&[(String, u64)]>) -> bool {
    let listed = cases.is_some_and(|cases| {
        cases.iter().all(|(_, number)| seen.contains(&&ir::Pattern::Equal(Constant::Number(*number))))
    });
    listed || seen.iter().any(|pattern| matches!(pattern, ir::Pattern::Any | ir::Pattern::Present))
}

fn complete(seen: &[&ir::Pattern], cases: Option<&[(String, u64)]>, optional: bool) -> bool {
    seen.contains(&&ir::Pattern::Any)
        || (present(seen, cases) && (!optional || seen.contains(&&ir::Pattern::Absent)))
}
