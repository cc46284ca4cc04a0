//! Where each element runs, and why.
//!
//! XDP runs the first elements of the chain, as many as it can; the engine runs the rest, and every response handler.
//! An element that only judges may come before others that do not notice ([`reorder`]).

mod reorder;
mod words;

use crate::decisions::Decisions;
use crate::ebpf::{self, Clock, Emitted, Runs, TooMuch};
use crate::effects::{self, Effects};
use crate::explain::{ElementPlace, Place};
use crate::ir::{Exit, Policy, Side};
use crate::{Source, cost};
use tollfree_schema::Manifest;
use tollfree_wire::Code;
use tollfree_wire::maps::SAYINGS_MAX;

/// The most bytes that are decided per session, of which the map has one entry for each that there can be.
const DECISIONS_MAX: usize = 4096;

/// A policy with its places.
pub(crate) struct Plan {
    /// In the order in which it runs.
    pub policy: Policy,
    pub emitted: Option<Emitted>,
    pub elements: Vec<ElementPlace>,
    /// How many leading elements XDP runs.
    pub in_xdp: usize,
    pub decisions: Option<Decisions>,
    /// Per table.
    pub homes: Vec<Home>,
}

/// Where a table is used, and so where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Only the object's program uses it: its map is the table.
    Xdp,
    /// Only the engine uses it: its state is the table. A map of the name exists where there is an object, and stays
    /// empty.
    Engine,
    /// XDP reads it and the engine uses it: the engine's state is the table, and every change is to be made in the map
    /// too.
    Both,
}

/// An element's handlers, and what keeps it out of XDP.
struct Candidate {
    request: Effects,
    response: Option<Effects>,
    /// In words that go on from its name.
    obstacle: Option<String>,
    /// Which element it was moved ahead of.
    ahead_of: Option<String>,
}

/// Places a policy's elements. `xdp` says whether XDP programs run in front of the engine.
pub(crate) fn plan(policy: Policy, schema: &Manifest, xdp: bool, clock: Clock, source: &Source<'_>) -> Plan {
    let mut policy = policy;
    let mut candidates: Vec<Candidate> = policy
        .elements
        .iter()
        .map(|element| {
            let request = effects::of_request(element, &policy);
            let response = effects::of_response(element, &policy);
            Candidate { request, response, obstacle: None, ahead_of: None }
        })
        .collect();
    let everywhere = if policy.side == Side::Client {
        Some("requests leave at the client's side, and XDP sees only what arrives")
    } else if !xdp {
        Some("no XDP program runs in front of this engine")
    } else {
        None
    };
    let decidable = decidable(&policy, &candidates, schema.methods().count());
    for (candidate, decided) in candidates.iter_mut().zip(&decidable) {
        // What is decided by the engine, XDP need not be able to do.
        let own = candidate.request.obstacle.clone().filter(|_| !decided);
        candidate.obstacle = everywhere.map(str::to_owned).or(own);
    }
    if everywhere.is_none() {
        reorder::hoist(&mut policy, &mut candidates);
    }

    let groups = policy.groups(schema);
    let methods = schema.methods().count();
    let mut emitted = None;
    let (count, runs) = loop {
        let count = prefix(&policy, &mut candidates);
        let runs = runs(&policy, &candidates, count, methods);
        if count == 0 {
            break (0, runs);
        }
        match ebpf::emit(&policy, &groups, count, &runs, clock, source) {
            Ok(object) => {
                emitted = Some(object);
                break (count, runs);
            }
            Err(TooMuch::Element(at, why)) if at < count => candidates[at].obstacle = Some(why),
            Err(TooMuch::Element(_, why) | TooMuch::Program(why)) => candidates[0].obstacle = Some(why),
        }
    };
    let homes = homes(&policy, &candidates, count);
    let per_element = emitted.as_ref().map_or(&[][..], |emitted| &emitted.per_element);
    let elements = describe(&policy, &candidates, count, &runs, per_element);
    let decisions = Decisions::new(&policy, schema, &runs);
    Plan { policy, emitted, elements, in_xdp: count, decisions, homes }
}

/// How many leading elements XDP can run. Whatever ends them gets the reason noted.
fn prefix(policy: &Policy, candidates: &mut [Candidate]) -> usize {
    let mut count =
        candidates.iter().position(|candidate| candidate.obstacle.is_some()).unwrap_or(candidates.len());
    // What the engine runs depends on how many there are: with each one fewer, it is more.
    while let Some((at, why)) = (0..count).find_map(|at| Some((at, conflict(policy, candidates, at, count)?)))
    {
        candidates[at].obstacle = Some(why);
        count = at;
    }
    count
}

/// Why an element cannot be in XDP together with what is in the engine if `count` elements are in XDP.
fn conflict(policy: &Policy, candidates: &[Candidate], at: usize, count: usize) -> Option<String> {
    unseen(policy, candidates, at).or_else(|| divided(policy, candidates, at, count))
}

/// Elements before the one that ends a call see how, unless it was dropped; but what XDP answers, the engine never sees.
fn unseen(policy: &Policy, candidates: &[Candidate], at: usize) -> Option<String> {
    let element = policy.elements.get(at)?;
    let ends = |exit: &Exit| match exit {
        Exit::Reject(..) => !element.audit,
        Exit::Answer(_) => true,
        Exit::Send | Exit::Drop | Exit::Retry { .. } => false,
    };
    if !candidates.get(at)?.request.refusals.iter().any(ends) {
        return None;
    }
    let before = policy.elements.iter().take(at);
    let viewer = before.zip(candidates).find(|(before, candidate)| {
        candidate.response.is_some() && overlap(before.methods.as_deref(), element.methods.as_deref())
    });
    viewer.map(|(viewer, _)| {
        let name = &viewer.name;
        format!("answers calls itself, and the response handler of {name}() before it, in the engine, is to see how they end")
    })
}

/// Whether there is a method that both judge; `None`: all.
fn overlap(a: Option<&[u32]>, b: Option<&[u32]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|method| b.binary_search(method).is_ok()),
        _ => true,
    }
}

/// A table that XDP changes cannot be the engine's as well: one would not see what the other changes.
fn divided(policy: &Policy, candidates: &[Candidate], at: usize, count: usize) -> Option<String> {
    let written = &candidates.get(at)?.request.tables_written;
    let (table, user, in_response) = written.iter().find_map(|table| {
        candidates.iter().enumerate().find_map(|(user, candidate)| {
            let in_response = candidate.response.as_ref().is_some_and(|response| response.uses(table));
            let in_request = user >= count && candidate.request.uses(table);
            (in_response || in_request).then_some((table, user, in_response))
        })
    })?;
    let name = policy.elements.get(user).map_or("", |element| element.name.as_str());
    Some(match (user == at, in_response) {
        (true, _) => format!("changes {table}, which its response handler uses in the engine"),
        (false, true) => {
            format!("changes {table}, which the response handler of {name}() uses in the engine")
        }
        (false, false) => format!("changes {table}, which {name}() uses in the engine"),
    })
}

/// Where each table is.
fn homes(policy: &Policy, candidates: &[Candidate], count: usize) -> Vec<Home> {
    let home = |table: &str| {
        let in_xdp = candidates.iter().take(count).any(|candidate| candidate.request.uses(table));
        let in_engine = candidates.iter().enumerate().any(|(at, Candidate { request, response, .. })| {
            let in_response = response.as_ref().is_some_and(|response| response.uses(table));
            in_response || (at >= count && request.uses(table))
        });
        match (in_xdp, in_engine) {
            (true, true) => Home::Both,
            (true, false) => Home::Xdp,
            (false, true) => Home::Engine,
            // Nobody does: whoever looks finds what a user has put there.
            (false, false) if count > 0 => Home::Xdp,
            (false, false) => Home::Engine,
        }
    };
    policy.tables.iter().map(|table| home(&table.name)).collect()
}

/// Which elements can be decided per session. A dry run counts calls, so it cannot.
fn decidable(policy: &Policy, candidates: &[Candidate], methods: usize) -> Vec<bool> {
    let most = Runs { runs: vec![0..1; policy.elements.len().div_ceil(2)], methods, sayings: Vec::new() };
    let fits = most.size() <= DECISIONS_MAX;
    let elements = policy.elements.iter().zip(candidates);
    elements
        .map(|(element, candidate)| {
            fits && !element.audit
                && element.request.is_some()
                && candidate.request.is_decidable()
                && candidate.request.peer
        })
        .collect()
}

/// What the rejects of some elements say; of more than a byte can tell apart, the rest is not said.
fn sayings(policy: &Policy, runs: &[std::ops::Range<usize>]) -> Vec<(Code, String)> {
    let mut sayings = Vec::new();
    for element in runs.iter().flat_map(|run| policy.elements.get(run.clone()).unwrap_or_default()) {
        for exit in effects::of_request(element, policy).refusals {
            if let Exit::Reject(code, Some(why)) = exit
                && !why.is_empty()
                && sayings.len() < SAYINGS_MAX
                && !sayings.contains(&(code, why.clone()))
            {
                sayings.push((code, why));
            }
        }
    }
    sayings
}

/// The runs of elements that are decided per session among the first `count`. An element that does not ask who calls is
/// as quick to run, unless it is between two that do.
fn runs(policy: &Policy, candidates: &[Candidate], count: usize, methods: usize) -> Runs {
    let decided = decidable(policy, candidates, methods);
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..count).filter(|at| decided.get(*at).copied().unwrap_or(false)) {
        match runs.last_mut() {
            Some(run)
                if (run.end..at).all(|between| {
                    candidates[between].request.is_decidable() && !policy.elements[between].audit
                }) =>
            {
                run.end = at + 1
            }
            _ => runs.push(at..at + 1),
        }
    }
    let sayings = sayings(policy, &runs);
    Runs { runs, methods, sayings }
}

fn describe(
    policy: &Policy,
    candidates: &[Candidate],
    count: usize,
    runs: &Runs,
    per_element: &[usize],
) -> Vec<ElementPlace> {
    let first_outside = policy.elements.get(count).map(|element| element.name.as_str());
    let elements = policy.elements.iter().zip(candidates).enumerate();
    elements
        .map(|(at, (element, candidate))| {
            let Candidate { request, response, obstacle, ahead_of } = candidate;
            let decided = runs.of(at).is_some();
            let (place, mut why) = match obstacle {
                _ if at < count && decided => (Place::Session, words::decided(request)),
                _ if at < count => (Place::XdpIngress, words::reason(element, request)),
                Some(why) => (Place::Engine, why.clone()),
                None => {
                    let before = first_outside.unwrap_or_default();
                    (Place::Engine, format!("comes after {before}(), which is in the engine"))
                }
            };
            if let Some(name) = ahead_of {
                why.push_str(&format!("; moved ahead of {name}(), which does not notice"));
            }
            ElementPlace {
                name: element.name.clone(),
                methods: element.methods.clone(),
                place,
                why,
                instructions: per_element.get(at).copied().unwrap_or(0),
                cost_ns: match place {
                    Place::Session => cost::DECIDED_NS,
                    Place::XdpIngress => cost::of_request(element, policy, cost::At::Xdp),
                    Place::Engine => cost::of_request(element, policy, cost::At::Engine),
                },
                response: response.as_ref().map(|effects| words::response(element, effects, policy)),
                reads: request.fields.iter().cloned().collect(),
                tables_read: request.tables_read.iter().cloned().collect(),
                tables_written: request.tables_written.iter().cloned().collect(),
            }
        })
        .collect()
}
