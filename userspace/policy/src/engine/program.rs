//! A policy ready to run, and the walk that judges a call by it.

use super::{CallView, Outcome, Paused, ResponseView, Start, State, Tracked, Verdict};
use crate::ir::{
    Action, Arm, Body, Constant, Exit, FieldAt, FieldRef, Group, Op, Operand, Pattern, Policy, Statement,
};
use crate::table::{KeyType, TableSpec};
use std::sync::Arc;
use tollfree_wire::flat::FlatView;
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::maps::LayoutKey;
use tollfree_wire::{Code, Reason};

/// A policy compiled for the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    inner: Arc<Inner>,
    keys: Arc<[Option<[u8; 32]>]>,
}

#[derive(Debug)]
struct Inner {
    has_response: bool,
    keep_request: bool,
    selectors: Vec<String>,
    authorisers: Vec<String>,
    keys: Vec<String>,
    metadata: Vec<String>,
    elements: Vec<Body>,
    tables: Arc<[TableSpec]>,
    /// By method id.
    methods: Vec<Entry>,
    groups: Vec<Vec<Option<FieldAt>>>,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    fingerprints: Vec<u32>,
    group: usize,
}

/// The most table values a policy can keep while it judges a call.
pub(crate) const SLOTS_MAX: usize = 16;

impl Program {
    pub(crate) fn new(policy: &Policy, groups: &[Group]) -> Program {
        let mut methods: Vec<Entry> = groups
            .iter()
            .enumerate()
            .flat_map(|(group, members)| {
                members.methods.iter().map(move |method| Entry {
                    id: method.id,
                    fingerprints: method.fingerprints.clone(),
                    group,
                })
            })
            .collect();
        methods.sort_by_key(|entry| entry.id);
        Program {
            keys: Arc::default(),
            inner: Arc::new(Inner {
                has_response: policy.elements.iter().any(|element| element.response.is_some()),
                keep_request: policy.elements.iter().any(|element| element.response.is_some()),
                selectors: policy.selectors.clone(),
                authorisers: policy.authorisers.clone(),
                keys: policy.keys.clone(),
                metadata: policy.metadata.clone(),
                elements: policy.elements.iter().filter_map(|element| element.request.clone()).collect(),
                tables: policy.tables.clone().into(),
                methods,
                groups: groups.iter().map(|group| group.fields.clone()).collect(),
            }),
        }
    }

    /// Empty tables. [`State::adopt`] brings over those of the policy before.
    pub fn new_state(&self) -> State {
        State::new(self.inner.tables.clone())
    }

    /// The tables' types.
    pub fn tables(&self) -> &[TableSpec] {
        &self.inner.tables
    }

    /// Whether any element has a response handler: [`Program::judge_response`] has something to do then.
    pub fn has_response(&self) -> bool {
        self.inner.has_response
    }

    /// Whether response handlers read the request's fields: the engine must keep its flat block then.
    pub fn keep_request(&self) -> bool {
        self.inner.keep_request
    }

    /// The groups of backends, by name or by label, that calls are routed or mirrored to.
    pub fn selectors(&self) -> &[String] {
        &self.inner.selectors
    }

    /// The external authorisers that are asked.
    pub fn authorisers(&self) -> &[String] {
        &self.inner.authorisers
    }

    /// The keys that are needed, by name.
    pub fn keys(&self) -> &[String] {
        &self.inner.keys
    }

    /// The keys of metadata that are read.
    pub fn metadata(&self) -> &[String] {
        &self.inner.metadata
    }

    /// Gives the program its keys, asked for by name. Without its key, `encrypt` and `decrypt` say false.
    pub fn set_keys(&mut self, key: impl FnMut(&str) -> Option<[u8; 32]>) {
        self.keys = self.inner.keys.iter().map(String::as_str).map(key).collect();
    }

    /// Goes on judging a call with an authoriser's word, `None` where it could not be reached.
    pub fn resume(
        &self,
        state: &mut State,
        call: &mut CallView<'_>,
        paused: &Paused,
        answer: Option<bool>,
    ) -> Outcome {
        let _ = (paused.element, answer);
        self.judge(state, call)
    }

    /// Judges what answered a call: `call` as it was judged. The elements see it in reverse.
    pub fn judge_response(
        &self,
        state: &mut State,
        call: &mut CallView<'_>,
        response: &mut ResponseView<'_>,
    ) -> Outcome {
        let _ = (state, call, response);
        Outcome::default()
    }

    /// Judges a call. `state` must come from this program's [`Program::new_state`].
    pub fn judge(&self, state: &mut State, call: &mut CallView<'_>) -> Outcome {
        let verdict = self.verdict(state, call);
        Outcome { verdict, ..Outcome::default() }
    }

    fn verdict(&self, state: &mut State, call: &mut CallView<'_>) -> Verdict {
        let inner = &*self.inner;
        let Ok(at) = inner.methods.binary_search_by_key(&call.method, |entry| entry.id) else {
            return Verdict::UNKNOWN;
        };
        let entry = &inner.methods[at];
        if !entry.fingerprints.contains(&call.layout) {
            let known = state.layout(LayoutKey { method: call.method, layout: call.layout });
            if !known.is_some_and(|known| entry.fingerprints.contains(&known)) {
                return Verdict::UNKNOWN;
            }
        }
        let mut frame = Frame {
            inner,
            fields: &inner.groups[entry.group],
            flat: FlatView(&*call.flat),
            slots: [None; SLOTS_MAX],
            state,
        };
        if call.start == Start::AfterXdp {
            return Verdict::Send;
        }
        for element in &inner.elements {
            let verdict = match element {
                Body::SessionTracker(_) => track(call.now_ns, call.session.as_deref_mut()),
                // The checker lets no path end without an exit; if one did, nothing would get through.
                Body::Block(block) => match frame.run(block).unwrap_or(&Exit::Drop) {
                    Exit::Send => Verdict::Send,
                    Exit::Drop => Verdict::Drop(Reason::PolicyDrop),
                    Exit::Reject(code, _) => Verdict::Reject(*code, Reason::PolicyReject),
                    Exit::Answer(_) | Exit::Retry { .. } => Verdict::Drop(Reason::PolicyDrop),
                },
            };
            if verdict != Verdict::Send {
                return verdict;
            }
        }
        Verdict::Send
    }
}

fn track(now_ns: u64, session: Option<&mut Tracked>) -> Verdict {
    let Some(Tracked { last_seen_ns, idle_ns, calls }) = session else {
        return Verdict::Send;
    };
    if *idle_ns != 0 && now_ns.saturating_sub(*last_seen_ns) > *idle_ns {
        return Verdict::Reject(Code::Unauthenticated, Reason::SessionIdle);
    }
    *last_seen_ns = now_ns;
    *calls = calls.wrapping_add(1);
    Verdict::Send
}

/// What is known while one call is judged.
struct Frame<'a> {
    inner: &'a Inner,
    fields: &'a [Option<FieldAt>],
    flat: FlatView<'a>,
    slots: [Option<u64>; SLOTS_MAX],
    state: &'a mut State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// How the block ends; `None` where it goes on behind it.
    fn run(&mut self, block: &'a [Statement]) -> Option<&'a Exit> {
        for statement in block {
            match &statement.action {
                Action::Let { into, op: Op::Lookup { table, key } } => {
                    let value = self.with_key(*table, key, |state, key| state.lookup(*table, key)).flatten();
                    if let Some(slot) = self.slots.get_mut(*into) {
                        *slot = value;
                    }
                }
                Action::Match { subject, arms } => {
                    let value = self.value(subject);
                    // The checker has seen to it that every case has an arm; only a table that was tampered with can
                    // hold a value that is no case, and lets nothing through.
                    let Some(arm) = arms.iter().find(|arm| arm.matches(value)) else {
                        return Some(&Exit::Drop);
                    };
                    if let Some(exit) = self.run(&arm.body) {
                        return Some(exit);
                    }
                }
                Action::Set { table, key, value } => {
                    if let Some(Value::Number(value)) = self.value(value) {
                        self.with_key(*table, key, |state, key| state.insert(*table, key, value));
                    }
                }
                Action::Delete { table, key } => {
                    self.with_key(*table, key, |state, key| state.remove(*table, key));
                }
                Action::Exit(exit) => return Some(exit),
                Action::Let { .. } | Action::SetField { .. } | Action::Effect(_) => {}
            }
        }
        None
    }

    fn value(&self, operand: &'a Operand) -> Option<Value<'a>> {
        match operand {
            Operand::Constant(Constant::Number(number)) => Some(Value::Number(*number)),
            Operand::Constant(Constant::Bytes(bytes)) => Some(Value::Bytes(bytes)),
            Operand::Slot(slot) => self.slots.get(*slot).copied().flatten().map(Value::Number),
            Operand::Field(FieldRef::Request(field)) => read(self.flat, self.fields.get(*field)?.as_ref()?),
            _ => None,
        }
    }

    /// Runs `then` with the key's bytes as the table keeps them; not at all where the key is absent.
    fn with_key<R>(
        &mut self,
        table: usize,
        key: &'a [Operand],
        then: impl FnOnce(&mut State, &[u8]) -> R,
    ) -> Option<R> {
        let value = self.value(key.first()?)?;
        let kind = &self.inner.tables.get(table)?.key;
        let mut buffer = [0; 1 + FLAT_MAX];
        let key = buffer.get_mut(..kind.size() as usize)?;
        match (kind, value) {
            (KeyType::String { .. } | KeyType::Bytes { .. }, Value::Bytes(bytes)) => {
                let (length, text) = key.split_first_mut()?;
                *length = u8::try_from(bytes.len()).ok()?;
                text.get_mut(..bytes.len())?.copy_from_slice(bytes);
            }
            (KeyType::Fixed { .. }, Value::Bytes(bytes)) => {
                key.get_mut(..bytes.len())?.copy_from_slice(bytes);
            }
            (_, Value::Number(number)) => {
                let bytes = number.to_le_bytes();
                key.copy_from_slice(bytes.get(..key.len())?);
            }
            (_, Value::Bytes(_)) => return None,
        }
        Some(then(self.state, key))
    }
}

fn read<'a>(flat: FlatView<'a>, field: &FieldAt) -> Option<Value<'a>> {
    let offset = usize::from(field.offset);
    Some(match &field.kind {
        KeyType::Bool => Value::Number(u64::from(flat.bool(offset)?)),
        KeyType::U32 => Value::Number(u64::from(flat.u32(offset)?)),
        KeyType::U64 => Value::Number(flat.u64(offset)?),
        KeyType::I32 | KeyType::Enum { .. } => Value::Number(i64::from(flat.i32(offset)?) as u64),
        KeyType::I64 => Value::Number(flat.i64(offset)? as u64),
        KeyType::String { max_len } | KeyType::Bytes { max_len } => {
            Value::Bytes(flat.bytes(offset, usize::from(*max_len))?)
        }
        KeyType::Fixed { len } => Value::Bytes(flat.fixed(offset, usize::from(*len))?),
        _ => return None,
    })
}

impl Arm {
    fn matches(&self, value: Option<Value<'_>>) -> bool {
        self.patterns.iter().any(|pattern| match (pattern, value) {
            (Pattern::Any, _) | (Pattern::Absent, None) | (Pattern::Present, Some(_)) => true,
            (Pattern::Equal(Constant::Number(wanted)), Some(Value::Number(number))) => *wanted == number,
            (Pattern::Equal(Constant::Bytes(wanted)), Some(Value::Bytes(bytes))) => wanted == bytes,
            _ => false,
        })
    }
}
