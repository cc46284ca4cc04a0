//! A policy in force in the engine, with its tables and its generation.

use tollfree_policy::{CallView, Outcome, Program, State};

/// One side's policy: what arrives at services here, or what leaves from clients here.
#[derive(Default)]
pub struct Gate {
    in_force: Option<(Program, State)>,
    /// Counts the policies that have been in force.
    pub generation: u64,
}

impl Gate {
    /// Replaces the policy; tables of unchanged type keep their content. The next call is judged by the new one.
    pub fn replace(&mut self, program: Option<Program>) {
        let old = self.in_force.take();
        self.in_force = program.map(|program| {
            let mut state = program.new_state();
            if let Some((_, old)) = old {
                state.adopt(old);
            }
            (program, state)
        });
        self.generation += 1;
    }

    /// The verdict on one call; without a policy every call may pass.
    #[inline]
    pub fn judge(&mut self, call: &mut CallView<'_>) -> Outcome {
        match &mut self.in_force {
            Some((program, state)) => program.judge(state, call),
            None => Outcome::default(),
        }
    }

    /// The tables, where a policy is in force.
    pub fn state(&mut self) -> Option<&mut State> {
        self.in_force.as_mut().map(|(_, state)| state)
    }
}
