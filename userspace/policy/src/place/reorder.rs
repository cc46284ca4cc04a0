//! Moving an element ahead, so that it can run in XDP, where nobody can tell the difference.

use super::Candidate;
use crate::ir::{Element, Exit, Policy};

/// Moves elements that only judge, and that XDP could run, ahead of elements in the engine, as far as that is safe.
pub(super) fn hoist(policy: &mut Policy, candidates: &mut [Candidate]) {
    let Some(mut front) = candidates.iter().position(|candidate| candidate.obstacle.is_some()) else {
        return;
    };
    for at in front + 1..candidates.len() {
        if candidates[at].obstacle.is_some() {
            continue;
        }
        let passes = |before: usize| may_pass(&policy.elements, candidates, at, before);
        if !(front..at).all(passes) {
            continue;
        }
        let name = policy.elements[front].name.clone();
        policy.elements[front..=at].rotate_right(1);
        candidates[front..=at].rotate_right(1);
        candidates[front].ahead_of = Some(name);
        front += 1;
    }
}

/// Whether the element at `late` may come before the one at `early` without anybody noticing: neither changes what the
/// other reads or changes, what the later one keeps from the earlier one leaves no trace in it, and a call that both
/// would refuse gets the same verdict.
fn may_pass(elements: &[Element], candidates: &[Candidate], late: usize, early: usize) -> bool {
    let (Some(mover), Some(passed)) = (candidates.get(late), candidates.get(early)) else { return false };
    let audited = [late, early].iter().any(|at| elements.get(*at).is_none_or(|element| element.audit));
    // Responses pass the chain in reverse: two handlers of responses would change places too, and a call that the mover
    // ends has no response that the other would have seen.
    if audited || mover.response.is_some() || passed.response.is_some() {
        return false;
    }
    let (mover, passed) = (&mover.request, &passed.request);
    // The mover must leave no trace, and it must not matter to the other one whether it has run: that it has counted,
    // logged, asked, or drawn a number.
    if !mover.is_pure() || passed.session || !passed.tables_written.is_empty() || passed.acts {
        return false;
    }
    if !passed.fields_written.is_disjoint(&mover.fields) {
        return false;
    }
    same_refusal(&mover.refusals, &passed.refusals)
}

/// Whether a call that either refuses gets the same verdict from both.
fn same_refusal(a: &[Exit], b: &[Exit]) -> bool {
    let mut all = a.iter().chain(b);
    let Some(first) = all.next() else { return true };
    b.is_empty() || a.is_empty() || all.all(|exit| exit == first)
}
