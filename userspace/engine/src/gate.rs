//! The policies of one side: the one in force, and those before it that still have calls to judge.
//!
//! A policy that is split leaves a part of its chain to the engine, and a call is to be judged by both parts of one
//! generation. So the policies before the one in force stay for a while; they borrow its tables, which they had before.

use crate::slab::Slab;
use std::collections::VecDeque;
use tollfree_policy::{
    CallView, Change, LogLine, Outcome, Program, ResponseView, Start, State, TableSpec, Verdict,
};
use tollfree_wire::Metadata;
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::maps::JUDGED;

/// How long after its end a policy can still be met by packets on their way from XDP to the engine, in ns: those in
/// the sockets' rings, and messages whose fragments are still arriving.
const GRACE_NS: u64 = 5_000_000_000;
/// Policies kept besides the one in force. More than these in so short a time are forgotten early: calls that they had
/// half judged are judged by the one in force from the start.
const RETIRED_MAX: usize = 32;
/// Most authorisers that one call waits for.
const ASKED_MAX: usize = 64;

/// What runs of a policy in front of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Below {
    /// Nothing: the engine judges all of it.
    #[default]
    Nothing,
    /// An XDP program with this generation runs the chain's first elements, and leaves the rest to the engine.
    Part(u64),
    /// An XDP program with this generation judges requests to the end.
    Whole(u64),
}

/// A policy for the engine.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The whole chain.
    pub program: Program,
    /// What runs of it in front of the engine.
    pub below: Below,
}

impl From<Program> for Policy {
    fn from(program: Program) -> Policy {
        Policy { program, below: Below::Nothing }
    }
}

struct Judge {
    program: Program,
    state: State,
    below: Below,
    /// Calls under way whose responses it is to judge.
    open: usize,
    retired_at: u64,
}

impl Judge {
    fn new(Policy { program, below }: Policy) -> Judge {
        let state = program.new_state();
        Judge { program, state, below, open: 0, retired_at: 0 }
    }

    /// Whether this is that policy, with the same XDP program in front of it.
    fn is(&self, policy: &Policy) -> bool {
        self.below != Below::Nothing && self.below == policy.below && self.program.is(&policy.program)
    }
}

/// Who judges a call that has arrived, and from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody has to.
    Free,
    /// XDP has judged it by this policy, which may have to see the response.
    Judged(u64),
    /// This policy.
    Judge(u64, Start),
    /// A policy that is not known here: nobody can.
    Unknown,
}

/// One side's policies: for what arrives at services here, or what leaves from clients here.
#[derive(Default)]
pub struct Gate {
    judges: Slab<Judge>,
    in_force: Option<u64>,
    /// What is to come in force next: XDP may leave calls to it before this engine is told that it is.
    announced: Option<u64>,
    /// The newest last.
    retired: VecDeque<u64>,
    /// Counts the policies that have been in force.
    pub generation: u64,
}

impl Gate {
    /// Lets the policy be known that is to be in force next, or none: it judges only what XDP leaves to it.
    pub fn announce(&mut self, policy: Option<Policy>) {
        if let Some(key) = self.announced.take() {
            self.judges.remove(key);
        }
        self.announced = policy.map(|policy| self.judges.insert(Judge::new(policy)));
    }

    /// Replaces the policy; tables of unchanged type keep their content. The next call is judged by the new one.
    pub fn replace(&mut self, now: u64, policy: Option<Policy>) {
        if let Some(old) = self.in_force.take() {
            if let Some(judge) = self.judges.get_mut(old) {
                judge.retired_at = now;
            }
            self.retired.push_back(old);
        }
        if self.retired.len() > RETIRED_MAX
            && let Some(oldest) = self.retired.pop_front()
        {
            self.judges.remove(oldest);
        }
        self.generation += 1;
        let is_announced = |judge: &Judge| policy.as_ref().is_some_and(|policy| judge.is(policy));
        if !self.announced.and_then(|key| self.judges.get(key)).is_some_and(is_announced) {
            self.announce(policy);
        }
        self.in_force = self.announced.take();
        let Some(in_force) = self.in_force else { return };
        // The newest last: a table that several have is the newest one's.
        for key in &self.retired {
            if let [Some(judge), Some(retired)] = self.judges.get_two_mut(in_force, *key) {
                judge.state.exchange(&mut retired.state);
            }
        }
    }

    /// The policy in force.
    pub fn in_force(&self) -> Option<u64> {
        self.in_force
    }

    /// Who judges a call that has arrived; `judged` is what the transport says of it.
    pub fn arrival(&self, judged: u64) -> Arrival {
        let newest = |wanted: &dyn Fn(Below) -> bool| {
            self.in_force
                .iter()
                .chain(&self.announced)
                .chain(self.retired.iter().rev())
                .find(|key| self.judges.get(**key).is_some_and(|judge| wanted(judge.below)))
                .copied()
        };
        match judged {
            // No XDP program: it came before the one in force, or there is none.
            0 => match newest(&|below| below == Below::Nothing) {
                Some(key) if self.in_force.is_some() => Arrival::Judge(key, Start::Chain),
                _ => Arrival::Free,
            },
            JUDGED => match newest(&|below| below != Below::Nothing) {
                Some(key) => Arrival::Judged(key),
                None => Arrival::Free,
            },
            generation => {
                match newest(&|below| matches!(below, Below::Part(it) | Below::Whole(it) if it == generation))
                {
                    Some(key) => Arrival::Judge(key, Start::AfterXdp),
                    None => self.in_force.map_or(Arrival::Unknown, |key| Arrival::Judge(key, Start::Chain)),
                }
            }
        }
    }

    /// What becomes of one call. `None` where the policy is not known any more.
    #[inline]
    pub fn judge(&mut self, key: u64, call: &mut CallView<'_>) -> Option<&Outcome> {
        self.with(key, |program, state| {
            let mut outcome = program.judge(state, call);
            // No authoriser is configured anywhere yet, so none can be reached.
            for _ in 0..ASKED_MAX {
                let (Verdict::Ask(_), Some(paused)) = (outcome.verdict, outcome.paused.take()) else { break };
                outcome = program.resume(state, call, *paused, None);
            }
        })?;
        self.outcome(key)
    }

    /// What becomes of a response: `call` as it was judged.
    pub fn judge_response(
        &mut self,
        key: u64,
        call: &mut CallView<'_>,
        response: &mut ResponseView<'_>,
    ) -> Option<&Outcome> {
        self.with(key, |program, state| {
            program.judge_response(state, call, response);
        })?;
        self.outcome(key)
    }

    fn outcome(&self, key: u64) -> Option<&Outcome> {
        Some(self.judges.get(key)?.state.outcome())
    }

    /// What the policy has answered the last call with: the layout, and the bytes of the flat block put into `flat`.
    pub fn answer(&self, key: u64, flat: &mut [u8; FLAT_MAX]) -> Option<(u32, usize)> {
        let answer = self.judges.get(key)?.state.answer()?;
        flat.get_mut(..answer.flat.len())?.copy_from_slice(answer.flat);
        Some((answer.layout, answer.flat.len()))
    }

    /// Runs with a policy and its tables, which the one in force may have.
    fn with<R>(&mut self, key: u64, run: impl FnOnce(&Program, &mut State) -> R) -> Option<R> {
        let in_force = self.in_force.filter(|in_force| *in_force != key);
        let Some(in_force) = in_force else {
            let Judge { program, state, .. } = self.judges.get_mut(key)?;
            return Some(run(program, state));
        };
        let [judge, in_force] = self.judges.get_two_mut(key, in_force);
        let (Judge { program, state, .. }, lender) = (judge?, in_force?);
        state.exchange(&mut lender.state);
        let result = run(program, state);
        state.exchange(&mut lender.state);
        Some(result)
    }

    /// Whether the policy in force reads metadata.
    pub fn reads_metadata(&self) -> bool {
        let judge = self.in_force.and_then(|key| self.judges.get(key));
        judge.is_some_and(|judge| !judge.program.metadata().is_empty())
    }

    /// Whether a policy is to see the responses of the calls it lets through, and if so what of a call it reads then.
    pub fn sees_responses(&self, key: u64, metadata: Metadata<'_>) -> Option<Kept> {
        let Judge { program, .. } = self.judges.get(key)?;
        let keys = if program.keep_metadata() { program.metadata() } else { &[] };
        let value = |key: &String| {
            let mut values =
                metadata.iter().filter(|(known, _)| known == key).filter_map(|(_, value)| text(value));
            Some((key.clone(), values.next()?.to_owned()))
        };
        program.has_response().then(|| Kept {
            request: program.keep_request(),
            metadata: keys.iter().filter_map(value).collect(),
        })
    }

    /// A call is under way whose response this policy is to judge.
    pub fn open(&mut self, key: u64) {
        if let Some(judge) = self.judges.get_mut(key) {
            judge.open += 1;
        }
    }

    /// It no longer is.
    pub fn close(&mut self, key: u64) {
        if let Some(judge) = self.judges.get_mut(key) {
            judge.open = judge.open.saturating_sub(1);
        }
    }

    /// Forgets policies that no call can meet any more. The newest stays, so that going back to it finds its tables.
    pub fn release(&mut self, now: u64) {
        while self.retired.len() > 1
            && let Some(&oldest) = self.retired.front()
            && self
                .judges
                .get(oldest)
                .is_none_or(|judge| judge.open == 0 && now.saturating_sub(judge.retired_at) > GRACE_NS)
        {
            self.judges.remove(oldest);
            self.retired.pop_front();
        }
    }

    /// The tables, where a policy is in force.
    pub fn state(&mut self) -> Option<&mut State> {
        Some(&mut self.judges.get_mut(self.in_force?)?.state)
    }

    /// Gives every write to a table that XDP reads too, with the generation of the XDP program, and forgets it. A whole
    /// table that has changed comes as [`Written::Clear`] and its entries.
    pub fn take_changes(&mut self, mut write: impl FnMut(u64, &TableSpec, Written<'_>)) {
        for place in 0..self.retired.len() + 2 {
            let key = match place {
                0 => self.in_force,
                1 => self.announced,
                _ => self.retired.get(place - 2).copied(),
            };
            let judge = key.and_then(|key| Some((key, self.judges.get_mut(key)?)));
            let Some((key, judge)) = judge.filter(|(_, judge)| judge.state.has_changes()) else { continue };
            let (Below::Part(generation) | Below::Whole(generation)) = judge.below else { continue };
            let mut whole = Vec::new();
            let specs = judge.program.tables();
            judge.state.take_changes(|change| match change {
                Change::Entry { table, key, value } => {
                    if let Some(spec) = specs.get(table) {
                        let written = value.map_or(Written::Delete(key), |value| Written::Set(key, value));
                        write(generation, spec, written);
                    }
                }
                Change::All { table } => whole.push(table),
            });
            for table in whole {
                self.with(key, |program, state| {
                    let Some(spec) = program.tables().get(table) else { return };
                    write(generation, spec, Written::Clear);
                    state.each_entry(table, |key, value| write(generation, spec, Written::Set(key, value)));
                });
            }
        }
    }

    /// Gives every line that policies have logged and forgets it; says how many found no room.
    pub fn take_log(&mut self, mut line: impl FnMut(LogLine<'_>)) -> u64 {
        let mut lost = 0;
        for key in self.in_force.iter().chain(&self.announced).chain(&self.retired) {
            if let Some(judge) = self.judges.get_mut(*key) {
                lost += judge.state.take_log(&mut line);
            }
        }
        lost
    }
}

/// What is kept of a call for its response handlers.
#[derive(Debug)]
pub struct Kept {
    /// The request's flat block.
    pub request: bool,
    /// What they ask for of the metadata.
    pub metadata: Vec<(String, String)>,
}

/// Values of bytes are nothing that a policy compares with text.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// A write to a table that XDP reads too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// The key has this value now.
    Set(&'a [u8], &'a [u8]),
    /// The key is gone.
    Delete(&'a [u8]),
    /// Every key is gone.
    Clear,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tollfree_policy::{Options, PeerView, Side, Source, compile};
    use tollfree_schema::Manifest;

    fn schema() -> Manifest {
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        Manifest::from_proto(&[schemas.join("shop.proto")], &[schemas]).unwrap()
    }

    /// Counts calls, in steps of so many.
    fn counting(step: u64, generation: u64) -> Policy {
        let text =
            format!("count()\nstate:\n    calls: u64\ncount():\n    add(calls, {step})\n    send(rpc)\n");
        let options = Options { side: Some(Side::Server), ..Options::default() };
        let compiled = compile(&Source { name: "count", text: &text }, &schema(), options).unwrap();
        Policy { program: compiled.program, below: Below::Part(generation) }
    }

    /// Judges a call that XDP has left to the policy of this generation.
    fn judge(gate: &mut Gate, generation: u64) {
        let schema = schema();
        let method = schema.methods().find(|method| method.path == "/shop.Catalog/Get").unwrap();
        let Arrival::Judge(key, _) = gate.arrival(generation) else { panic!("nobody judges it") };
        let mut flat = vec![0; usize::from(method.request.flat_len)];
        let mut call = CallView {
            method: method.id,
            layout: method.request.fingerprint,
            size: flat.len() as u32,
            flat: &mut flat,
            deadline_ns: None,
            port: 0,
            now_ns: 1,
            session: None,
            peer: &PeerView::default(),
            metadata: &[],
            backends: &[],
            start: Start::Chain,
        };
        assert_eq!(gate.judge(key, &mut call).map(|outcome| outcome.verdict), Some(Verdict::Send));
    }

    fn calls(gate: &mut Gate) -> String {
        gate.state().unwrap().table_get("calls", "").unwrap().unwrap()
    }

    #[test]
    fn what_is_announced_judges_what_xdp_leaves_to_it_and_then_all() {
        let mut gate = Gate::default();
        gate.replace(0, Some(counting(1, 1)));
        let (old, next) = (gate.in_force().unwrap(), counting(10, 2));
        judge(&mut gate, 1);
        assert_eq!(gate.arrival(2), Arrival::Judge(old, Start::Chain), "of a policy that is not known");

        gate.announce(Some(next.clone()));
        let Arrival::Judge(new, Start::AfterXdp) = gate.arrival(2) else { panic!("it is known now") };
        assert_ne!(new, old);
        assert_eq!(gate.in_force(), Some(old));
        assert_eq!(gate.arrival(1), Arrival::Judge(old, Start::AfterXdp));
        judge(&mut gate, 2);
        judge(&mut gate, 1);
        assert_eq!(calls(&mut gate), "12", "by both, in one table");

        gate.replace(1, Some(next));
        assert_eq!((gate.in_force(), gate.generation), (Some(new), 2));
        assert_eq!(gate.arrival(1), Arrival::Judge(old, Start::AfterXdp), "one that was on its way");
        judge(&mut gate, 1);
        judge(&mut gate, 2);
        assert_eq!(calls(&mut gate), "23");
    }

    #[test]
    fn what_is_announced_in_vain_changes_nothing() {
        let mut gate = Gate::default();
        gate.replace(0, Some(counting(1, 1)));
        let old = gate.in_force();
        judge(&mut gate, 1);
        gate.announce(Some(counting(10, 2)));
        gate.announce(None);
        assert_eq!((gate.in_force(), gate.generation), (old, 1));
        assert_eq!(gate.arrival(2), Arrival::Judge(old.unwrap(), Start::Chain));
        assert_eq!(calls(&mut gate), "1");

        // Another one than what was announced comes in force.
        gate.announce(Some(counting(10, 2)));
        gate.replace(1, Some(counting(100, 3)));
        judge(&mut gate, 3);
        assert_eq!(calls(&mut gate), "101");
        assert_eq!(gate.arrival(2), Arrival::Judge(gate.in_force().unwrap(), Start::Chain));
    }

    #[test]
    fn the_first_policy_is_announced_before_there_is_any() {
        let mut gate = Gate::default();
        assert_eq!(gate.arrival(0), Arrival::Free);
        gate.announce(Some(counting(1, 1)));
        assert_eq!(gate.arrival(0), Arrival::Free);
        assert!(matches!(gate.arrival(1), Arrival::Judge(_, Start::AfterXdp)));
        judge(&mut gate, 1);
        assert!(gate.state().is_none(), "none is in force");
        gate.replace(0, Some(counting(1, 1)));
        assert_eq!(calls(&mut gate), "0", "compiled anew, it is another one");
    }
}
