//! Jumps that lead to jumps lead to where those do; a jump to where an element sends on, drops or
//! rejects does so itself.

use super::super::code::{Code, Step};

pub fn tidy(code: &mut Code) {
    let steps = code.steps.clone();
    // Jumps lead forwards only.
    let last = |mut at: u32| {
        while let Some(Step::Jump(next)) = steps.get(at as usize) {
            at = *next;
        }
        at
    };
    for step in &mut code.steps {
        match step {
            Step::Jump(target) => {
                let target = last(*target);
                *step = match steps.get(target as usize) {
                    Some(end @ (Step::Send | Step::Drop | Step::Reject { .. })) => *end,
                    _ => Step::Jump(target),
                };
            }
            Step::Branch { otherwise, .. } | Step::Case { otherwise, .. } => *otherwise = last(*otherwise),
            _ => {}
        }
    }
    for test in &mut code.tests {
        test.target = last(test.target);
    }
}
