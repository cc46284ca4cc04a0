//! What a process leaves behind that is killed while it applies a policy, or takes it out of force. Until the state file names
//! the new policy, the one before is in force again; from then on, and where a policy is gone already, what was left to do is
//! done.

use crate::paths::remove_tree;
use crate::policy::rename;
use crate::{Error, Interface, State};
use serde_json::value::RawValue;
use std::os::fd::AsFd;

impl Interface {
    /// Makes kernel, pins and state agree.
    ///
    /// # Errors
    /// The kernel or the file system refused.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        let pins = &self.pins;
        let state = State::read(&self.paths, &self.name)?.unwrap_or_default();
        if pins.staged_generation(state.generation).exists() {
            if pins.staged_policy().exists() {
                rename(&pins.staged_policy(), &pins.policy())?;
            }
            self.put_staged()?;
        }
        remove_tree(&pins.staging()).map_err(Error::file("remove", &pins.staging()))?;
        let policy = self.policy_in_force()?;
        self.set_policy_slot(policy.as_ref().map(AsFd::as_fd))?;
        let is_told = state.policy.get() != RawValue::NULL.get();
        if policy.is_none() && is_told { self.cleared(state) } else { Ok(()) }
    }
}
