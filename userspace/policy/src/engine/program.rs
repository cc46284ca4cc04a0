//! A policy ready to run, and the way of a call through its elements.

use super::call::{CallView, ResponseView, Start, Tracked};
use super::code::{Code, Group, Handler, Layouts, Method, Stop};
use super::compile::compile;
use super::crypt::Cipher;
use super::evaluate::{End, Machine};
use super::outcome::{Outcome, Verdict};
use super::pause::Paused;
use super::registers::Register;
use super::state::State;
use super::view::View;
use crate::ir::{self, Policy};
use crate::table::TableSpec;
use std::sync::Arc;
use tollfree_wire::maps::LayoutKey;

/// A policy compiled for the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    code: Arc<Code>,
    keys: Arc<[Option<Cipher>]>,
    /// How many leading elements the XDP program runs.
    in_xdp: usize,
}

/// The most values that a handler can keep at a time.
pub(crate) const SLOTS_MAX: usize = 64;

impl Program {
    /// `in_xdp` leading elements run in XDP too; writes to the tables of `shared` are noted for it.
    pub(crate) fn new(policy: &Policy, groups: &[ir::Group], in_xdp: usize, shared: &[usize]) -> Program {
        let code = compile(policy, groups, shared);
        Program { keys: vec![None; code.keys.len()].into(), code: Arc::new(code), in_xdp }
    }

    /// Whether both were compiled at once.
    pub fn is(&self, other: &Program) -> bool {
        Arc::ptr_eq(&self.code, &other.code)
    }

    /// Empty tables. [`State::exchange`] brings over those of the policy before.
    pub fn new_state(&self) -> State {
        State::new(&self.code)
    }

    /// The tables' types.
    pub fn tables(&self) -> &[TableSpec] {
        &self.code.specs
    }

    /// Whether any element has a response handler: [`Program::judge_response`] has something to do then.
    pub fn has_response(&self) -> bool {
        self.code.uses.response
    }

    /// Whether response handlers read the request's fields: the engine must keep its flat block then.
    pub fn keep_request(&self) -> bool {
        self.code.uses.request_in_response
    }

    /// Whether response handlers read the request's metadata: it is to be given to them, too.
    pub fn keep_metadata(&self) -> bool {
        self.code.uses.metadata_in_response
    }

    /// Whether requests can leave otherwise than they came.
    pub fn changes_requests(&self) -> bool {
        self.code.uses.changes_request
    }

    /// Whether responses can leave otherwise than they came.
    pub fn changes_responses(&self) -> bool {
        self.code.uses.changes_response
    }

    /// The groups of backends, by name or by label, that calls are routed or mirrored to.
    pub fn selectors(&self) -> &[String] {
        &self.code.selectors
    }

    /// The external authorisers that are asked.
    pub fn authorisers(&self) -> &[String] {
        &self.code.authorisers
    }

    /// The keys that are needed, by name.
    pub fn keys(&self) -> &[String] {
        &self.code.keys
    }

    /// The keys of metadata that are read.
    pub fn metadata(&self) -> &[String] {
        &self.code.metadata
    }

    /// The elements' names, in the chain's order.
    pub fn elements(&self) -> &[String] {
        &self.code.names
    }

    /// Gives the program its keys, asked for by name. Without its key, `encrypt` and `decrypt` say false.
    pub fn set_keys(&mut self, mut key: impl FnMut(&str) -> Option<[u8; 32]>) {
        self.keys = self.code.keys.iter().map(|name| key(name).map(Cipher::new)).collect();
    }

    /// Judges a call. `state` must come from this program's [`Program::new_state`]; it keeps the outcome until the next
    /// call, so that it need not be moved.
    pub fn judge<'s>(&self, state: &'s mut State, call: &mut CallView<'_>) -> &'s mut Outcome {
        state.memory.retries.count_call();
        state.forget();
        match self.group_of_request(state, call) {
            Some(group) if group.requests.is_empty() => {}
            Some(group) => {
                let from = match call.start {
                    Start::Chain => 0,
                    Start::AfterXdp => group.requests.partition_point(|stop| stop.element < self.in_xdp),
                };
                self.request(&mut self.machine(state, call, group), from, None);
            }
            None => state.outcome.verdict = Verdict::UNKNOWN,
        }
        &mut state.outcome
    }

    /// Goes on judging a call with an authoriser's word, `None` where it could not be reached. A policy that came in force
    /// in between judges the call from the beginning.
    pub fn resume<'s>(
        &self,
        state: &'s mut State,
        call: &mut CallView<'_>,
        paused: Paused,
        word: Option<bool>,
    ) -> &'s mut Outcome {
        let Paused { code, at, next, into, registers, outcome } = paused;
        if !Arc::ptr_eq(&self.code, &code) {
            call.start = Start::Chain;
            return self.judge(state, call);
        }
        state.forget();
        match self.group_of_request(state, call) {
            Some(group) => {
                state.outcome = outcome;
                let mut machine = self.machine(state, call, group);
                *machine.view.registers = registers;
                machine.view.registers.set_number(into, word.map(u64::from));
                self.request(&mut machine, at, Some(next));
            }
            None => state.outcome.verdict = Verdict::UNKNOWN,
        }
        &mut state.outcome
    }

    /// Judges what answered a call: `call` as it was judged, at the time of the response. The elements see it in reverse.
    pub fn judge_response<'s>(
        &self,
        state: &'s mut State,
        call: &mut CallView<'_>,
        response: &mut ResponseView<'_>,
    ) -> &'s mut Outcome {
        state.forget();
        match self.method(state, call.method) {
            Some((_, group)) if group.responses.is_empty() => {}
            Some((method, group)) if knows(&method.response, state, call.method, response.layout) => {
                self.response(&mut self.machine(state, call, group), response);
            }
            _ => state.outcome.verdict = Verdict::UNKNOWN,
        }
        &mut state.outcome
    }

    /// Leads a request past the elements from this place of the group's list on, through the first from this step on.
    fn request(&self, machine: &mut Machine<'_, '_, '_>, from: usize, mut resumed: Option<u32>) {
        let stops = machine.view.group.requests.get(from..).unwrap_or_default();
        for (at, stop) in (from..).zip(stops) {
            let end = meet(machine, stop, resumed.take());
            if let End::Ask { next, into, .. } = end {
                self.pause(machine, at, next, into);
            }
            if machine.ends(end, stop.audit) {
                break;
            }
        }
    }

    /// Keeps where judging stands. What is kept is large: not a matter of calls that ask nobody.
    #[cold]
    #[inline(never)]
    fn pause(&self, machine: &mut Machine<'_, '_, '_>, at: usize, next: u32, into: Register) {
        machine.outcome.paused = Some(Box::new(Paused {
            code: self.code.clone(),
            at,
            next,
            into,
            registers: machine.view.registers.clone(),
            outcome: machine.outcome.clone(),
        }));
    }

    /// Leads a response past the elements that are to see it.
    fn response<'a, 'r>(&self, machine: &mut Machine<'a, '_, 'r>, response: &'a mut ResponseView<'r>) {
        let group = machine.view.group;
        let skipped = match response.ended_at {
            Some(before) => group.responses.partition_point(|stop| stop.element >= before),
            None => 0,
        };
        machine.view.response = Some(response);
        for stop in group.responses.get(skipped..).unwrap_or_default() {
            let end = meet(machine, stop, None);
            if machine.ends(end, stop.audit) {
                break;
            }
        }
    }

    /// The method's fields, where the policy was compiled for it and the request's layout.
    fn group_of_request(&self, state: &mut State, call: &CallView<'_>) -> Option<&Group> {
        let (method, group) = self.method(state, call.method)?;
        knows(&method.request, state, call.method, call.layout).then_some(group)
    }

    /// A method, mostly that of the call before.
    #[inline]
    fn method(&self, state: &mut State, id: u32) -> Option<(&Method, &Group)> {
        let methods = &self.code.methods;
        let method = match methods.get(state.method).filter(|method| method.id == id) {
            Some(method) => method,
            None => {
                state.method = methods.binary_search_by_key(&id, |method| method.id).ok()?;
                methods.get(state.method)?
            }
        };
        Some((method, self.code.groups.get(method.group as usize)?))
    }

    fn machine<'a, 'c, 'r>(
        &'a self,
        state: &'a mut State,
        call: &'a mut CallView<'c>,
        group: &'a Group,
    ) -> Machine<'a, 'c, 'r> {
        let State { memory, registers, outcome, .. } = state;
        let view = View { code: &self.code, group, call, response: None, registers };
        Machine { view, keys: &self.keys, memory, outcome, element: 0 }
    }
}

/// Runs an element's handler, from its first step or from the one to go on with.
#[inline(always)]
fn meet(machine: &mut Machine<'_, '_, '_>, stop: &Stop, resumed: Option<u32>) -> End {
    machine.element = stop.element;
    match (resumed, stop.handler) {
        (Some(next), _) => machine.run(next),
        (None, Handler::Steps(start)) => machine.run(start),
        (None, Handler::SessionTracker) => track(machine.view.call),
    }
}

/// Whether a layout, or what it is known as here, is one of these.
#[inline]
fn knows(layouts: &Layouts, state: &State, method: u32, layout: u32) -> bool {
    let is_one = |layout| layouts.all.binary_search(&layout).is_ok();
    layouts.usual == layout
        || is_one(layout)
        || state.layout(LayoutKey { method, layout }).is_some_and(is_one)
}

/// `session_tracker()`.
fn track(call: &mut CallView<'_>) -> End {
    let Some(Tracked { last_seen_ns, idle_ns, calls }) = call.session.as_deref_mut() else {
        return End::Send;
    };
    if *idle_ns != 0 && call.now_ns.saturating_sub(*last_seen_ns) > *idle_ns {
        return End::Idle;
    }
    *last_seen_ns = call.now_ns;
    *calls = calls.wrapping_add(1);
    End::Send
}
