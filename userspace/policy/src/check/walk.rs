//! Every operand and every table that a handler mentions, to be renumbered.

use crate::ir::{Action, Effect, Exit, Op, Operand, Statement};

/// The operands that an action itself has: not those of a match's arms.
pub(super) fn operands(action: &mut Action, see: &mut dyn FnMut(&mut Operand)) {
    match action {
        Action::Let { into: _, op } => operands_of(op, see),
        Action::Match { subject, arms: _ } => see(subject),
        Action::Set { table: _, key, value } => {
            key.iter_mut().for_each(&mut *see);
            see(value);
        }
        Action::Delete { table: _, key } => key.iter_mut().for_each(see),
        Action::SetField { field: _, value } => value.iter_mut().for_each(see),
        Action::Effect(effect) => match effect {
            Effect::Delay(operand) | Effect::Timeout(operand) => see(operand),
            Effect::Route { selector: _, index } => index.iter_mut().for_each(see),
            Effect::Mirror { selector: _ } => {}
            Effect::Eject { duration, max_ppm } => [duration, max_ppm].into_iter().for_each(see),
            Effect::Log(values) => values.iter_mut().for_each(|(value, _)| see(value)),
        },
        Action::Exit(Exit::Answer(fields)) => fields.iter_mut().for_each(|(_, value)| see(value)),
        Action::Exit(Exit::Send | Exit::Drop | Exit::Reject(..) | Exit::Retry { .. }) => {}
    }
}

fn operands_of(op: &mut Op, see: &mut dyn FnMut(&mut Operand)) {
    match op {
        Op::Copy(a)
        | Op::Not(a)
        | Op::Chance(a)
        | Op::StartsWith { text: a, prefix: _ }
        | Op::Convert { from: _, to: _, value: a }
        | Op::Narrow { number: _, value: a } => see(a),
        Op::Lookup { table: _, key } | Op::Hash(key) => key.iter_mut().for_each(see),
        Op::Add { table: _, key, number: _, amount } => {
            key.iter_mut().for_each(&mut *see);
            see(amount);
        }
        Op::Take { table: _, key, count, period_ns: _, burst, cost } => {
            key.iter_mut().for_each(&mut *see);
            [count, burst, cost].into_iter().for_each(see);
        }
        Op::Arithmetic { op: _, number: _, a, b }
        | Op::Compare { op: _, number: _, a, b }
        | Op::Same { a, b }
        | Op::And(a, b)
        | Op::Or(a, b) => [a, b].into_iter().for_each(see),
        Op::Random | Op::Backends(_) | Op::Ask(_) | Op::Crypt { .. } => {}
    }
}

/// The table that an action reads or writes.
pub(super) fn table(action: &mut Action) -> Option<&mut usize> {
    match action {
        Action::Set { table, .. }
        | Action::Delete { table, .. }
        | Action::Let {
            op: Op::Lookup { table, .. } | Op::Add { table, .. } | Op::Take { table, .. }, ..
        } => Some(table),
        _ => None,
    }
}

/// Every action of a block, with those of its arms.
pub(super) fn actions(block: &mut [Statement], see: &mut dyn FnMut(&mut Action)) {
    for statement in block {
        see(&mut statement.action);
        if let Action::Match { subject: _, arms } = &mut statement.action {
            for arm in arms {
                if let Some(guard) = &mut arm.guard {
                    actions(&mut guard.statements, see);
                }
                actions(&mut arm.body, see);
            }
        }
    }
}
