//! Jumps that lead to jumps lead to where those do; a jump to where an element sends on, drops or rejects does so itself.

use super::super::code::{Code, Step};

pub fn tidy(code: &mut Code) {
    let Code { steps, tests, .. } = code;
    let behind = |steps: &[Step], target: u32| match steps.get(target as usize) {
        Some(Step::Jump(next)) => *next,
        _ => target,
    };
    // Jumps lead forwards only: from the end on, what a step leads to is tidy already.
    for at in (0..steps.len()).rev() {
        let Some(mut step) = steps.get(at).copied() else { continue };
        match &mut step {
            Step::Jump(target) => {
                if let Some(end @ (Step::Jump(_) | Step::Send | Step::Drop | Step::Reject { .. })) =
                    steps.get(*target as usize)
                {
                    step = *end;
                }
            }
            Step::Branch { otherwise, .. } | Step::Case { otherwise, .. } => {
                *otherwise = behind(steps, *otherwise);
            }
            _ => {}
        }
        if let Some(place) = steps.get_mut(at) {
            *place = step;
        }
    }
    for test in tests {
        test.target = behind(steps, test.target);
    }
}
