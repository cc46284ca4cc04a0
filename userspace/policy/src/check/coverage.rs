//! The arms of a `match`: every case has an arm, and every arm has a case.

use super::Checker;
use super::constants::number_of_id;
use super::frame::Value;
use super::kind::Kind;
use crate::ast::Arm;
use crate::diagnostics::Span;
use crate::ir::{self, Constant, Pattern};
use std::collections::HashSet;

/// Cases that a message lists.
const LISTED_MAX: usize = 12;

/// What the arms so far take.
#[derive(Default)]
struct Seen<'p> {
    any: bool,
    absent: bool,
    present: bool,
    numbers: HashSet<u64>,
    others: HashSet<&'p Pattern>,
}

impl<'p> Seen<'p> {
    /// Whether a pattern can match nothing that is left.
    fn covers(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Any => self.any || (self.present && self.absent),
            Pattern::Absent => self.any || self.absent,
            Pattern::Present => self.any || self.present,
            _ if self.any || self.present => true,
            Pattern::Equal(Constant::Number(number)) => self.numbers.contains(number),
            Pattern::OneOf(numbers) => numbers.iter().all(|number| self.numbers.contains(number)),
            other => self.others.contains(other),
        }
    }

    fn add(&mut self, pattern: &'p Pattern) {
        match pattern {
            Pattern::Any => self.any = true,
            Pattern::Absent => self.absent = true,
            Pattern::Present => self.present = true,
            Pattern::Equal(Constant::Number(number)) => {
                self.numbers.insert(*number);
            }
            Pattern::OneOf(numbers) => self.numbers.extend(numbers),
            other => {
                self.others.insert(other);
            }
        }
    }
}

impl Checker<'_, '_, '_> {
    /// Reports cases without an arm and arms without a case.
    pub(super) fn coverage(&mut self, span: &Span, subject: &Value, written: &[Arm], arms: &[ir::Arm]) {
        let mut seen = Seen::default();
        for (arm, written) in arms.iter().zip(written) {
            // An arm with a mistake in its patterns or its guard has less of them.
            if arm.patterns.len() != written.patterns.len() || arm.guard.is_some() != written.guard.is_some()
            {
                return;
            }
            for (pattern, written) in arm.patterns.iter().zip(&written.patterns) {
                if seen.covers(pattern) {
                    self.sink
                        .error(&written.span, "an arm above takes all of this", "never matches")
                        .help("leave it out, or move it up");
                }
                if arm.guard.is_none() {
                    seen.add(pattern);
                }
            }
        }
        if seen.any {
            return;
        }
        let mut missing: Vec<String> = Vec::new();
        if !seen.present {
            match self.cases(&subject.kind) {
                Some(cases) => {
                    let left = cases.into_iter().filter(|(_, number)| !seen.numbers.contains(number));
                    missing.extend(left.map(|(name, _)| name));
                }
                None => missing.push("all other values (Some(_))".into()),
            }
        }
        if !subject.optional && missing == ["all other values (Some(_))"] {
            missing = vec!["all other values".into()];
        }
        if subject.optional && !seen.absent {
            missing.push("NONE".into());
        }
        if missing.is_empty() {
            return;
        }
        let more = missing.len().saturating_sub(LISTED_MAX);
        missing.truncate(LISTED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        self.sink
            .error(span, format!("no arm for {}{more}", missing.join(", ")), "not all cases have an arm")
            .help("add arms for them, or `_` for everything else");
    }

    /// The values, where they can be listed.
    fn cases(&self, kind: &Kind) -> Option<Vec<(String, u64)>> {
        match kind {
            Kind::Bool => Some(vec![("false".into(), 0), ("true".into(), 1)]),
            Kind::Enum(names) if names.closed => {
                let values = names.values.iter();
                Some(values.map(|(name, number)| (name.clone(), i64::from(*number) as u64)).collect())
            }
            Kind::Method => {
                let methods = self.methods.within(self.frame.methods.as_deref());
                Some(methods.map(|m| (self.methods.label(m).to_owned(), number_of_id(m.id))).collect())
            }
            Kind::Service => {
                let services = self.methods.services_within(self.frame.methods.as_deref()).into_iter();
                Some(services.map(|(name, number)| (name.to_owned(), number_of_id(number))).collect())
            }
            _ => None,
        }
    }
}
