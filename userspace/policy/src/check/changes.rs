//! Which fields of the message at hand a handler changes: a variable bound to one of them needs a copy of its own.

use super::{Checker, is_name};
use crate::ast::{Call, Expression, ExpressionKind, Literal, Statement, StatementKind};
use std::collections::HashSet;

impl Checker<'_, '_, '_> {
    pub(super) fn changed_fields(&self, block: &[Statement]) -> HashSet<String> {
        let mut found = HashSet::new();
        self.in_block(block, &mut found);
        found
    }

    fn in_block(&self, block: &[Statement], found: &mut HashSet<String>) {
        for statement in block {
            match &statement.kind {
                StatementKind::Assign { name: _, value } => self.in_expression(value, found),
                StatementKind::Match { subject, arms } => {
                    self.in_expression(subject, found);
                    for arm in arms {
                        if let Some(guard) = &arm.guard {
                            self.in_expression(guard, found);
                        }
                        self.in_block(&arm.body, found);
                    }
                }
                StatementKind::Call(call) => self.in_call(call, found),
                StatementKind::Pass => {}
            }
        }
    }

    fn in_expression(&self, expression: &Expression, found: &mut HashSet<String>) {
        match &expression.kind {
            ExpressionKind::Name(_) | ExpressionKind::Literal(_) => {}
            ExpressionKind::Call(call) => self.in_call(call, found),
            ExpressionKind::Not(inner) | ExpressionKind::Negate(inner) => self.in_expression(inner, found),
            ExpressionKind::Binary { operator: _, left, right } => {
                self.in_expression(left, found);
                self.in_expression(right, found);
            }
        }
    }

    fn in_call(&self, call: &Call, found: &mut HashSet<String>) {
        let Call { name, arguments, named, span: _ } = call;
        if let ("set" | "delete" | "encrypt" | "decrypt", [rpc, field, ..]) =
            (name.text.as_str(), arguments.as_slice())
            && is_name(rpc, "rpc")
            && let Some(Literal::Text(field)) = self.literal_of(field)
        {
            found.insert(field);
        }
        for argument in arguments.iter().chain(named.iter().map(|(_, argument)| argument)) {
            self.in_expression(argument, found);
        }
    }
}
