//! A policy ready to run, and the way of a call through its elements.

use super::call::{CallView, ResponseView, Start, Tracked};
use super::code::{Code, Group, Handler, Method};
use super::compile::compile;
use super::crypt::Cipher;
use super::evaluate::{End, Machine};
use super::outcome::{Outcome, Verdict};
use super::pause::Paused;
use super::state::{Scratch, State};
use super::view::{Answered, Slot, View};
use crate::ir::{self, Policy};
use crate::table::TableSpec;
use std::ops::Range;
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

/// The most table values a policy can keep while it judges a call.
pub(crate) const SLOTS_MAX: usize = 16;

impl Program {
    /// `in_xdp` leading elements run in XDP too; writes to the tables of `shared` are noted for it.
    pub(crate) fn new(policy: &Policy, groups: &[ir::Group], in_xdp: usize, shared: &[usize]) -> Program {
        let code = compile(policy, groups, shared);
        Program { keys: vec![None; code.keys.len()].into(), code: Arc::new(code), in_xdp }
    }

    /// Empty tables. [`State::adopt`] brings over those of the policy before.
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

    /// Judges a call. `state` must come from this program's [`Program::new_state`].
    pub fn judge(&self, state: &mut State, call: &mut CallView<'_>) -> Outcome {
        state.retries.count_call();
        state.answer.forget();
        let Some(group) = self.group_of_request(state, call) else { return unknown() };
        let from = match call.start {
            Start::Chain => 0,
            Start::AfterXdp => self.in_xdp,
        };
        self.request(state, call, group, group.requests_in(from..usize::MAX), None)
    }

    /// Goes on judging a call with an authoriser's word, `None` where it could not be reached. A policy that came in force
    /// in between judges the call from the beginning.
    pub fn resume(
        &self,
        state: &mut State,
        call: &mut CallView<'_>,
        paused: Paused,
        word: Option<bool>,
    ) -> Outcome {
        if !Arc::ptr_eq(&self.code, &paused.code) {
            call.start = Start::Chain;
            return self.judge(state, call);
        }
        let Some(group) = self.group_of_request(state, call) else { return unknown() };
        self.request(state, call, group, paused.at..group.requests.len(), Some((paused, word)))
    }

    /// Judges what answered a call: `call` as it was judged, at the time of the response. The elements see it in reverse.
    pub fn judge_response(
        &self,
        state: &mut State,
        call: &mut CallView<'_>,
        response: &mut ResponseView<'_>,
    ) -> Outcome {
        state.answer.forget();
        let Some((method, group)) = self.method(call.method) else { return unknown() };
        if group.responses.is_empty() {
            return Outcome::default();
        }
        if !knows(&method.response_layouts, state, call.method, response.layout) {
            return unknown();
        }
        let ResponseView { status, layout: _, flat, size, latency_ns, backend, attempt, ended_at } = response;
        let before = ended_at.map_or(usize::MAX, |element| element);
        let skipped = group.responses.partition_point(|number| *number as usize >= before);
        let answered =
            Answered { status: *status as u8, latency_ns: *latency_ns, backend: *backend, attempt: *attempt };
        let (mut machine, _) = self.machine(state, call, group);
        machine.view.response = flat;
        machine.view.size = *size;
        machine.view.answered = Some(answered);
        for number in group.responses.get(skipped..).unwrap_or_default() {
            let Some(element) = self.code.elements.get(*number as usize) else { continue };
            let Some(start) = element.response else { continue };
            machine.element = *number as usize;
            let end = machine.run(start);
            if machine.ends(end, element.audit) {
                break;
            }
        }
        machine.outcome
    }

    /// Leads a request past the elements at these places of the group's list, through the first from where it had paused.
    fn request(
        &self,
        state: &mut State,
        call: &mut CallView<'_>,
        group: &Group,
        places: Range<usize>,
        resumed: Option<(Paused, Option<bool>)>,
    ) -> Outcome {
        let now_ns = call.now_ns;
        let (mut machine, mut session) = self.machine(state, call, group);
        let mut resume_at = resumed.map(|(paused, word)| {
            let Paused { code: _, at: _, next, into, slots, arena, outcome } = paused;
            machine.view.slots.iter_mut().zip(slots).for_each(|(to, from)| *to = from);
            machine.view.arena.iter_mut().zip(arena).for_each(|(to, from)| *to = from);
            machine.set_slot(into, word.map_or(Slot::Absent, |word| Slot::Number(word.into())));
            machine.outcome = outcome;
            next
        });
        for at in places {
            let Some(number) = group.requests.get(at) else { break };
            let Some(element) = self.code.elements.get(*number as usize) else { continue };
            machine.element = *number as usize;
            let end = match (resume_at.take(), element.request) {
                (Some(next), _) => machine.run(next),
                (None, Some(Handler::Steps(start))) => machine.run(start),
                (None, Some(Handler::SessionTracker)) => track(now_ns, session.as_deref_mut()),
                (None, None) => continue,
            };
            if let End::Ask { next, into, .. } = end {
                machine.outcome.paused = Some(Box::new(Paused {
                    code: self.code.clone(),
                    at,
                    next,
                    into,
                    slots: machine.view.slots.into(),
                    arena: machine.view.arena.into(),
                    outcome: machine.outcome.clone(),
                }));
            }
            if machine.ends(end, element.audit) {
                break;
            }
        }
        machine.outcome
    }

    /// The method's fields, where the policy was compiled for it and the request's layout.
    fn group_of_request(&self, state: &State, call: &CallView<'_>) -> Option<&Group> {
        let (method, group) = self.method(call.method)?;
        let known = method.layout == call.layout || knows(&method.layouts, state, call.method, call.layout);
        known.then_some(group)
    }

    fn method(&self, id: u32) -> Option<(&Method, &Group)> {
        let method = self.code.methods.get(self.code.method_ids.binary_search(&id).ok()?)?;
        Some((method, self.code.groups.get(method.group as usize)?))
    }

    fn machine<'a>(
        &'a self,
        state: &'a mut State,
        call: &'a mut CallView<'_>,
        group: &'a Group,
    ) -> (Machine<'a>, Option<&'a mut Tracked>) {
        let CallView {
            method,
            layout: _,
            flat,
            size,
            deadline_ns,
            port,
            now_ns,
            session,
            peer,
            metadata,
            backends,
            ..
        } = call;
        let State { tables, scratch, random, nonces, log, retries, answer, .. } = state;
        let Scratch { slots, arena, key, value } = scratch;
        let view = View {
            code: &self.code,
            request_places: &group.request,
            response_places: &group.response,
            request: flat,
            response: &mut [],
            method: *method,
            service: group.service,
            size: *size,
            port: *port,
            now_ns: *now_ns,
            deadline_ns: *deadline_ns,
            answered: None,
            peer,
            metadata,
            backends,
            slots,
            arena,
        };
        let machine = Machine {
            view,
            group,
            keys: &self.keys,
            tables,
            key,
            value,
            random,
            nonces,
            log,
            retries,
            answer,
            outcome: Outcome::default(),
            element: 0,
        };
        (machine, session.as_deref_mut())
    }
}

fn unknown() -> Outcome {
    Outcome { verdict: Verdict::UNKNOWN, ..Outcome::default() }
}

/// Whether a layout, or what it is known as here, is one of these.
fn knows(layouts: &[u32], state: &State, method: u32, layout: u32) -> bool {
    layouts.binary_search(&layout).is_ok()
        || state
            .layout(LayoutKey { method, layout })
            .is_some_and(|known| layouts.binary_search(&known).is_ok())
}

/// `session_tracker()`.
fn track(now_ns: u64, session: Option<&mut Tracked>) -> End {
    let Some(Tracked { last_seen_ns, idle_ns, calls }) = session else { return End::Send };
    if *idle_ns != 0 && now_ns.saturating_sub(*last_seen_ns) > *idle_ns {
        return End::Idle;
    }
    *last_seen_ns = now_ns;
    *calls = calls.wrapping_add(1);
    End::Send
}
