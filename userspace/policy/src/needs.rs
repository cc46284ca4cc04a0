//! What a policy needs besides calls, so that a daemon can refuse what it could not honour.

use crate::effects::{Node, visit};
use crate::ir::{Action, Body, Effect, Exit, Group, Policy, Statement};
use tollfree_schema::Manifest;

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
    /// A streaming method, by its path, whose response it holds.
    pub delayed_stream: Option<String>,
}

pub(crate) fn of(policy: &Policy, groups: &[Group], schema: &Manifest) -> Needs {
    let mut needs = Needs {
        backends: policy.selectors.clone(),
        authorisers: policy.authorisers.clone(),
        keys: policy.keys.clone(),
        peer: policy.peer_names.clone(),
        metadata: policy.metadata.clone(),
        retry: false,
        eject: false,
        delayed_stream: None,
    };
    for (at, element) in policy.elements.iter().enumerate() {
        if let Some(Body::Block(block)) = &element.request {
            needs.block(block);
        }
        let Some(block) = &element.response else { continue };
        needs.block(block);
        if delays(block) {
            let covered = groups.iter().filter(|group| group.covered.get(at) == Some(&true));
            let ids: Vec<u32> = covered.flat_map(|group| &group.methods).map(|method| method.id).collect();
            let mut streams = schema.methods().filter(|method| !method.streaming.is_unary());
            let stream = streams.find(|method| ids.contains(&method.id));
            needs.delayed_stream = needs.delayed_stream.or(stream.map(|method| method.path.clone()));
        }
    }
    needs
}

fn delays(block: &[Statement]) -> bool {
    let mut delays = false;
    visit(block, &mut |node| delays |= matches!(node, Node::Action(Action::Effect(Effect::Delay(_)))));
    delays
}

impl Needs {
    fn block(&mut self, block: &[Statement]) {
        for statement in block {
            match &statement.action {
                Action::Match { subject: _, arms } => {
                    arms.iter().for_each(|arm| self.block(&arm.body));
                }
                Action::Effect(Effect::Eject { .. }) => self.eject = true,
                Action::Exit(Exit::Retry { .. }) => self.retry = true,
                _ => {}
            }
        }
    }
}
