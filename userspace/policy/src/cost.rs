//! What an element costs a call, roughly: for `explain`, so that the dear elements stand out.
//!
//! The figures for XDP were measured with `BPF_PROG_TEST_RUN` on one two-core machine, in which a lookup of a 16-byte key
//! took 20 ns (a miss) to 29 ns (a hit), and reading per-CPU memory 2 ns: a whole policy with one lookup took 27 ns, one
//! without took 1 to 3 ns. The figures for what only the engine does are estimates. Other machines differ; what is dear
//! stays so.

use crate::effects::{self, Node};
use crate::ir::{Action, Attribute, Body, Effect, Element, Op, Operand, Policy, Statement};
use crate::table::{KeyType, TableKind};

/// What reading a decision costs: an entry of an array, and three comparisons.
pub(crate) const DECIDED_NS: u32 = 3;
/// Reading an array's entry.
const ARRAY_NS: u32 = 2;
/// Looking up a hash table.
const HASH_NS: u32 = 25;
/// The same where the table keeps track of what was used last.
const LRU_NS: u32 = 30;
/// Looking up the longest prefix.
const LPM_NS: u32 = 40;
/// Changing a hash table's entry, as opposed to finding it.
const UPDATE_NS: u32 = 40;
/// Reading the clock.
const CLOCK_NS: u32 = 15;
/// A random number.
const RANDOM_NS: u32 = 5;
/// Anything else, per statement.
const STATEMENT_NS: u32 = 1;
/// Putting a line into the log's queue.
const LOG_NS: u32 = 100;
/// Encrypting or decrypting a field.
const CRYPT_NS: u32 = 100;

/// Where an element runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Xdp,
    Engine,
}

/// What an element's request handler costs at most, in ns.
pub(crate) fn of_request(element: &Element, policy: &Policy, at: At) -> u32 {
    match &element.request {
        None => 0,
        Some(Body::SessionTracker(_)) => ARRAY_NS + CLOCK_NS + 2 * STATEMENT_NS,
        Some(Body::Block(block)) => of_block(block, policy, at),
    }
}

/// What an element's response handler costs at most, in ns.
pub(crate) fn of_response(element: &Element, policy: &Policy) -> u32 {
    element.response.as_ref().map_or(0, |block| of_block(block, policy, At::Engine))
}

/// Only one arm of a match runs, the dearest.
fn of_block(block: &[Statement], policy: &Policy, at: At) -> u32 {
    let mut clock = false;
    effects::visit(block, &mut |node| {
        clock |=
            matches!(node, Node::Op(Op::Take { .. }) | Node::Operand(Operand::Attribute(Attribute::Now)));
    });
    // The engine has read the clock anyway.
    let clock = if clock && at == At::Xdp { CLOCK_NS } else { 0 };
    clock + statements(block, policy)
}

fn statements(block: &[Statement], policy: &Policy) -> u32 {
    block.iter().map(|statement| STATEMENT_NS + action(&statement.action, policy)).sum()
}

fn action(action: &Action, policy: &Policy) -> u32 {
    match action {
        Action::Let { op, .. } => op_cost(op, policy),
        Action::Match { arms, .. } => {
            let guards = arms.iter().filter_map(|arm| arm.guard.as_ref());
            let guards: u32 = guards.map(|guard| statements(&guard.statements, policy)).sum();
            let dearest = arms.iter().map(|arm| statements(&arm.body, policy)).max();
            guards + arms.len() as u32 / 2 + dearest.unwrap_or(0)
        }
        Action::Set { table, .. } | Action::Delete { table, .. } => {
            found(*table, policy) + changed(*table, policy)
        }
        Action::Effect(Effect::Log(_)) => LOG_NS,
        Action::SetField { .. } | Action::Effect(_) | Action::Exit(_) => 0,
    }
}

fn op_cost(op: &Op, policy: &Policy) -> u32 {
    match op {
        Op::Lookup { table, .. } | Op::Add { table, .. } | Op::Take { table, .. } => found(*table, policy),
        Op::Random | Op::Chance(_) => RANDOM_NS,
        Op::Hash(operands) => 5 * operands.len() as u32,
        Op::Crypt { .. } => CRYPT_NS,
        _ => 0,
    }
}

fn found(table: usize, policy: &Policy) -> u32 {
    match policy.tables.get(table).map(|table| (table.kind, &table.key)) {
        Some((TableKind::Cell, _) | (TableKind::Counter, KeyType::Unit)) => ARRAY_NS,
        Some((TableKind::Counter | TableKind::Hash, _)) => HASH_NS,
        Some((TableKind::Lru, _)) => LRU_NS,
        Some((TableKind::Lpm, _)) => LPM_NS,
        None => 0,
    }
}

fn changed(table: usize, policy: &Policy) -> u32 {
    match policy.tables.get(table).map(|table| table.kind) {
        Some(TableKind::Cell) | None => 0,
        Some(_) => UPDATE_NS,
    }
}
