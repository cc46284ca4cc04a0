//! What an element does: what it reads and changes, and how it can end. Placement, reordering and `explain` go by it.

use crate::ebpf;
use crate::ir::{
    Action, Arm, Attribute, Body, Effect, Element, Exit, FieldRef, Guard, Number, Op, Operand, Pattern,
    PeerValue, Policy, Statement,
};
use crate::table::{KeyType, ValueType};
use std::collections::BTreeSet;

/// What one handler does. Names are in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Fields of the request that it reads.
    pub fields: BTreeSet<String>,
    /// Fields of the message at hand that it changes.
    pub fields_written: BTreeSet<String>,
    pub tables_read: BTreeSet<String>,
    pub tables_written: BTreeSet<String>,
    /// Reads and changes the session's entry.
    pub session: bool,
    /// Asks who calls.
    pub peer: bool,
    /// Depends on what differs from one call of a method to the next: message, time, chance.
    pub per_call: bool,
    /// Does something besides judging: routes, logs, asks others.
    pub acts: bool,
    /// How it can keep a call from the next element.
    pub refusals: Vec<Exit>,
    /// What of it XDP cannot do, in words that go on from the element's name.
    pub obstacle: Option<String>,
}

/// A part of a handler.
pub(crate) enum Node<'a> {
    Action(&'a Action),
    Op(&'a Op),
    Operand(&'a Operand),
    Pattern(&'a Pattern),
}

/// The effects of an element's request handler.
pub(crate) fn of_request(element: &Element, policy: &Policy) -> Effects {
    match &element.request {
        Some(Body::SessionTracker(_)) => {
            let idle = Exit::Reject(tollfree_wire::Code::Unauthenticated, None);
            Effects { session: true, per_call: true, refusals: vec![idle], ..Effects::default() }
        }
        Some(Body::Block(block)) => of_block(block, policy),
        None => Effects::default(),
    }
}

/// The effects of an element's response handler; `None` where it has none.
pub(crate) fn of_response(element: &Element, policy: &Policy) -> Option<Effects> {
    element.response.as_ref().map(|block| of_block(block, policy))
}

fn of_block(block: &[Statement], policy: &Policy) -> Effects {
    let mut effects = Effects::default();
    visit(block, &mut |node| effects.note(node, policy));
    effects
}

impl Effects {
    /// Whether the element gives the same verdict for every call of a session to a method, and does nothing else: it
    /// can be decided once for all of them.
    pub(crate) fn is_decidable(&self) -> bool {
        self.is_pure() && !self.per_call && self.tables_read.is_empty()
    }

    /// Whether the element only judges: nobody can tell afterwards whether it has run.
    pub(crate) fn is_pure(&self) -> bool {
        let Effects { fields_written, tables_written, session, acts, refusals, .. } = self;
        fields_written.is_empty()
            && tables_written.is_empty()
            && !session
            && !acts
            && refusals.iter().all(|exit| matches!(exit, Exit::Drop | Exit::Reject(..)))
    }

    /// Whether the element touches a table at all.
    pub(crate) fn uses(&self, table: &str) -> bool {
        self.tables_read.contains(table) || self.tables_written.contains(table)
    }

    fn note(&mut self, node: Node<'_>, policy: &Policy) {
        match node {
            Node::Action(action) => self.action(action, policy),
            Node::Op(op) => self.op(op, policy),
            Node::Operand(operand) => self.operand(operand, policy),
            Node::Pattern(Pattern::Range { number: Number::Float, .. }) => self.floats(),
            Node::Pattern(_) => {}
        }
    }

    fn action(&mut self, action: &Action, policy: &Policy) {
        match action {
            Action::Set { table, .. } | Action::Delete { table, .. } => self.writes(*table, policy),
            Action::SetField { field, value: _ } => self.changes(*field, policy),
            Action::Effect(effect) => {
                self.acts = true;
                self.obstacle(match effect {
                    Effect::Delay(_) => "holds calls, which XDP cannot",
                    Effect::Timeout(_) => "limits the time of calls, which the engine keeps",
                    Effect::Route { .. } => "chooses a backend, which the engine sends to",
                    Effect::Mirror { .. } => "sends copies, which XDP cannot",
                    Effect::Eject { .. } => "takes backends out, which the engine does",
                    Effect::Log(_) => "writes to the log, which the engine keeps",
                });
            }
            Action::Exit(exit) => {
                match exit {
                    Exit::Send => return,
                    Exit::Retry { .. } => self.obstacle("makes calls again, which XDP cannot"),
                    Exit::Answer(fields) => {
                        let float = |kind: &KeyType| matches!(kind, KeyType::F32 | KeyType::F64);
                        if fields.iter().any(|(field, _)| {
                            policy.response_fields.get(*field).is_some_and(|field| float(&field.kind))
                        }) {
                            self.floats();
                        }
                    }
                    Exit::Drop | Exit::Reject(..) => {}
                }
                if !self.refusals.contains(exit) {
                    self.refusals.push(exit.clone());
                }
            }
            Action::Let { .. } | Action::Match { .. } => {}
        }
    }

    fn op(&mut self, op: &Op, policy: &Policy) {
        match op {
            Op::Lookup { table, .. } => self.reads(*table, policy),
            Op::Add { table, .. } | Op::Take { table, .. } => {
                self.reads(*table, policy);
                self.writes(*table, policy);
                self.per_call |= matches!(op, Op::Take { .. });
            }
            Op::Random | Op::Chance(_) => self.per_call = true,
            Op::Arithmetic { number: Number::Float, .. }
            | Op::Compare { number: Number::Float, .. }
            | Op::Convert { from: Number::Float, .. }
            | Op::Convert { to: Number::Float, .. } => self.floats(),
            Op::Backends(_) => {
                self.per_call = true;
                self.obstacle("asks how many backends there are, which the engine knows");
            }
            Op::Ask(_) => {
                (self.per_call, self.acts) = (true, true);
                self.obstacle("asks an external authoriser, which XDP cannot");
            }
            Op::Crypt { field, .. } => {
                self.per_call = true;
                self.changes(*field, policy);
                self.obstacle("encrypts or decrypts, for which XDP has no means");
            }
            _ => {}
        }
    }

    fn operand(&mut self, operand: &Operand, policy: &Policy) {
        match operand {
            Operand::Field(field) => {
                self.per_call = true;
                let FieldRef::Request(field) = field else { return };
                let Some(field) = policy.fields.get(*field) else { return };
                self.fields.insert(field.name.clone());
                if matches!(field.kind, KeyType::F32 | KeyType::F64) {
                    self.floats();
                }
            }
            Operand::Attribute(attribute) => {
                self.per_call |=
                    !matches!(attribute, Attribute::Method | Attribute::Service | Attribute::Port);
            }
            Operand::Peer(peer) => {
                self.peer = true;
                match peer {
                    PeerValue::Identity | PeerValue::Namespace | PeerValue::Address => {}
                    PeerValue::Named(_) | PeerValue::Token | PeerValue::Sessions => {
                        self.obstacle("asks more of the peer than XDP knows together with a message");
                    }
                }
            }
            Operand::Metadata(_) => {
                self.per_call = true;
                self.obstacle("reads metadata, which XDP does not see");
            }
            Operand::Constant(_) | Operand::Slot(_) => {}
        }
    }

    fn changes(&mut self, field: FieldRef, policy: &Policy) {
        let (fields, field) = match field {
            FieldRef::Request(field) => (&policy.fields, field),
            FieldRef::Response(field) => (&policy.response_fields, field),
        };
        let Some(field) = fields.get(field) else { return };
        self.fields_written.insert(field.name.clone());
        if matches!(field.kind, KeyType::F32 | KeyType::F64) {
            self.floats();
        }
    }

    fn reads(&mut self, table: usize, policy: &Policy) {
        self.table(table, policy);
        self.tables_read.extend(table_name(policy, table));
    }

    fn writes(&mut self, table: usize, policy: &Policy) {
        self.table(table, policy);
        self.tables_written.extend(table_name(policy, table));
    }

    fn table(&mut self, table: usize, policy: &Policy) {
        let Some(spec) = policy.tables.get(table) else { return };
        if spec.value == ValueType::F64 {
            self.floats();
        }
        if let Some(why) = ebpf::map_obstacle(spec) {
            self.obstacle(&format!("uses {}, which {why}", spec.name));
        }
    }

    fn floats(&mut self) {
        self.obstacle("computes with floats, which XDP has not");
    }

    /// The first one is the one to tell.
    fn obstacle(&mut self, why: &str) {
        if self.obstacle.is_none() {
            self.obstacle = Some(why.to_owned());
        }
    }
}

/// Whether what a policy does depends on chance.
pub(crate) fn chances(policy: &Policy) -> bool {
    let mut found = false;
    let mut see = |node: Node<'_>| {
        // A nonce is one of many, too.
        found |= matches!(node, Node::Op(Op::Random | Op::Chance(_) | Op::Crypt { .. }));
    };
    for element in &policy.elements {
        if let Some(Body::Block(block)) = &element.request {
            visit(block, &mut see);
        }
        if let Some(block) = &element.response {
            visit(block, &mut see);
        }
    }
    found
}

fn table_name(policy: &Policy, table: usize) -> Option<String> {
    policy.tables.get(table).map(|table| table.name.clone())
}

/// How often statements read each slot.
pub(crate) fn slot_reads(block: &[Statement]) -> Vec<usize> {
    let mut reads = Vec::new();
    visit(block, &mut |node| {
        if let Node::Operand(Operand::Slot(slot)) = node {
            if reads.len() <= *slot {
                reads.resize(slot + 1, 0);
            }
            reads[*slot] += 1;
        }
    });
    reads
}

/// Shows every part of the statements, in their order.
pub(crate) fn visit<'a>(block: &'a [Statement], see: &mut dyn FnMut(Node<'a>)) {
    for Statement { span: _, action } in block {
        see(Node::Action(action));
        match action {
            Action::Let { into: _, op } => visit_op(op, see),
            Action::Match { subject, arms } => {
                see(Node::Operand(subject));
                for Arm { patterns, guard, body } in arms {
                    patterns.iter().for_each(|pattern| see(Node::Pattern(pattern)));
                    if let Some(Guard { statements, condition }) = guard {
                        visit(statements, see);
                        see(Node::Operand(condition));
                    }
                    visit(body, see);
                }
            }
            Action::Set { table: _, key, value } => operands(key.iter().chain([value]), see),
            Action::Delete { table: _, key } => operands(key, see),
            Action::SetField { field: _, value } => operands(value, see),
            Action::Effect(effect) => match effect {
                Effect::Delay(operand) | Effect::Timeout(operand) => see(Node::Operand(operand)),
                Effect::Route { selector: _, index } => operands(index, see),
                Effect::Mirror { selector: _ } => {}
                Effect::Eject { duration, max_ppm } => operands([duration, max_ppm], see),
                Effect::Log(values) => operands(values.iter().map(|(value, _)| value), see),
            },
            Action::Exit(Exit::Answer(fields)) => operands(fields.iter().map(|(_, value)| value), see),
            Action::Exit(_) => {}
        }
    }
}

fn visit_op<'a>(op: &'a Op, see: &mut dyn FnMut(Node<'a>)) {
    see(Node::Op(op));
    match op {
        Op::Copy(a) | Op::Not(a) | Op::Chance(a) => see(Node::Operand(a)),
        Op::Convert { value, .. } | Op::Narrow { value, .. } => see(Node::Operand(value)),
        Op::StartsWith { text, .. } => see(Node::Operand(text)),
        Op::Lookup { table: _, key } | Op::Hash(key) => operands(key, see),
        Op::Add { table: _, key, number: _, amount } => operands(key.iter().chain([amount]), see),
        Op::Take { table: _, key, count, period_ns: _, burst, cost } => {
            operands(key.iter().chain([count, burst, cost]), see);
        }
        Op::Arithmetic { a, b, .. }
        | Op::Compare { a, b, .. }
        | Op::Same { a, b }
        | Op::And(a, b)
        | Op::Or(a, b) => {
            operands([a, b], see);
        }
        Op::Random | Op::Backends(_) | Op::Ask(_) | Op::Crypt { .. } => {}
    }
}

fn operands<'a>(operands: impl IntoIterator<Item = &'a Operand>, see: &mut dyn FnMut(Node<'a>)) {
    operands.into_iter().for_each(|operand| see(Node::Operand(operand)));
}
