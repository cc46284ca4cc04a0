//! What an element does: what it reads and changes, and how it can end. Placement and `explain` go by it.

use crate::ir::{Action, Arm, Body, Element, Exit, FieldRef, Op, Operand, Policy, Statement};
use std::collections::BTreeSet;

/// Names, in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub fields: BTreeSet<String>,
    pub tables_read: BTreeSet<String>,
    pub tables_written: BTreeSet<String>,
    /// Reads and changes the session's entry.
    pub session: bool,
    /// Can keep a call from the next element.
    pub stops: bool,
}

/// The effects of one element.
pub(crate) fn of(element: &Element, policy: &Policy) -> Effects {
    let mut effects = Effects::default();
    match &element.request {
        Some(Body::SessionTracker(_)) => (effects.session, effects.stops) = (true, true),
        Some(Body::Block(block)) => effects.block(block, policy),
        None => {}
    }
    effects
}

impl Effects {
    fn block(&mut self, block: &[Statement], policy: &Policy) {
        for statement in block {
            match &statement.action {
                Action::Let { into: _, op: Op::Lookup { table, key } } => {
                    self.operands(key, policy);
                    self.tables_read.extend(table_name(policy, *table));
                }
                Action::Match { subject, arms } => {
                    self.operand(subject, policy);
                    for Arm { patterns: _, guard: _, body } in arms {
                        self.block(body, policy);
                    }
                }
                Action::Set { table, key, value } => {
                    self.operands(key, policy);
                    self.operand(value, policy);
                    self.tables_written.extend(table_name(policy, *table));
                }
                Action::Delete { table, key } => {
                    self.operands(key, policy);
                    self.tables_written.extend(table_name(policy, *table));
                }
                Action::Exit(Exit::Send) => {}
                Action::Exit(_) => self.stops = true,
                Action::Let { .. } | Action::SetField { .. } | Action::Effect(_) => {}
            }
        }
    }

    fn operands(&mut self, operands: &[Operand], policy: &Policy) {
        for operand in operands {
            self.operand(operand, policy);
        }
    }

    fn operand(&mut self, operand: &Operand, policy: &Policy) {
        if let Operand::Field(FieldRef::Request(field)) = operand {
            self.fields.extend(policy.fields.get(*field).map(|field| field.name.clone()));
        }
    }
}

fn table_name(policy: &Policy, table: usize) -> Option<String> {
    policy.tables.get(table).map(|table| table.name.clone())
}
