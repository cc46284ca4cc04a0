//! What a policy needs besides calls, so that a daemon can refuse what it could not honour.

use crate::ir::{Action, Body, Effect, Exit, Policy, Statement};

/// What a policy needs besides calls: names from the daemon's configuration, and abilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Groups of backends, by name or as `label=value`, that calls are routed or mirrored to.
    pub backends: Vec<String>,
    /// External authorisers that are asked.
    pub authorisers: Vec<String>,
    /// Keys of encryption.
    pub keys: Vec<String>,
    /// What is asked of peers' tokens and labels: `label.app`, `claim.role`, `issuer`, `audience`, `token`.
    pub peer: Vec<String>,
    /// Keys of metadata.
    pub metadata: Vec<String>,
    /// Makes calls once more.
    pub retry: bool,
    /// Takes backends out of service.
    pub eject: bool,
    /// Holds responses.
    pub delayed_response: bool,
}

pub(crate) fn of(policy: &Policy) -> Needs {
    let mut needs = Needs {
        backends: policy.selectors.clone(),
        authorisers: policy.authorisers.clone(),
        keys: policy.keys.clone(),
        peer: policy.peer_names.clone(),
        metadata: policy.metadata.clone(),
        retry: false,
        eject: false,
        delayed_response: false,
    };
    for element in &policy.elements {
        if let Some(Body::Block(block)) = &element.request {
            needs.block(block, false);
        }
        if let Some(block) = &element.response {
            needs.block(block, true);
        }
    }
    needs
}

impl Needs {
    fn block(&mut self, block: &[Statement], response: bool) {
        for statement in block {
            match &statement.action {
                Action::Match { subject: _, arms } => {
                    arms.iter().for_each(|arm| self.block(&arm.body, response));
                }
                Action::Effect(Effect::Eject { .. }) => self.eject = true,
                Action::Effect(Effect::Delay(_)) => self.delayed_response |= response,
                Action::Exit(Exit::Retry { .. }) => self.retry = true,
                _ => {}
            }
        }
    }
}
