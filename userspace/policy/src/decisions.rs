//! What depends on nothing but who calls which method is decided once per session, not per call.
//!
//! The object reads a byte per run of elements and method from its map [`tollfree_wire::maps::DECISIONS`]; what to put
//! there, the engine's evaluator says. Not here: when (the engine's).

use crate::ebpf::Runs;
use crate::engine::{CallView, Outcome, PeerView, Program, Start, State, Verdict};
use crate::ir::Policy;
use tollfree_schema::Manifest;
use tollfree_wire::Code;
use tollfree_wire::maps::Decision;

/// What has to be decided per session for a policy's object.
#[derive(Clone, Debug)]
pub struct Decisions {
    /// The elements of each run as a policy of their own.
    runs: Vec<Program>,
    /// In the order of their bytes.
    methods: Vec<u32>,
    value_size: usize,
    /// What their rejects say.
    sayings: Vec<(Code, String)>,
}

impl Decisions {
    /// `None` where nothing is.
    pub(crate) fn new(policy: &Policy, schema: &Manifest, runs: &Runs) -> Option<Decisions> {
        if runs.is_empty() {
            return None;
        }
        let alone = |run: &std::ops::Range<usize>| {
            let elements = policy.elements.get(run.clone()).unwrap_or_default().to_vec();
            let policy = Policy { elements, ..policy.clone() };
            Program::new(&policy, &policy.groups(schema), 0, &[])
        };
        let groups = policy.groups(schema);
        let methods = groups.iter().flat_map(|group| group.methods.iter().map(|method| method.id));
        Some(Decisions {
            runs: runs.runs.iter().map(alone).collect(),
            methods: methods.collect(),
            value_size: runs.size(),
            sayings: runs.sayings.clone(),
        })
    }

    /// Bytes of a value of the map.
    pub fn value_size(&self) -> usize {
        self.value_size
    }

    /// The map's value for a session of this peer, from behind the session's index on:
    /// [`Decisions::value_size`] less four bytes. `port` is this host's Tollfree port.
    pub fn decide(&self, peer: &PeerView<'_>, port: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.value_size);
        for program in &self.runs {
            let mut state = program.new_state();
            bytes.extend(
                self.methods
                    .iter()
                    .map(|method| self.judge(program, &mut state, *method, peer, port).to_byte()),
            );
        }
        bytes.resize(self.value_size - size_of::<u32>(), 0);
        bytes
    }

    fn judge(
        &self,
        program: &Program,
        state: &mut State,
        method: u32,
        peer: &PeerView<'_>,
        port: u16,
    ) -> Decision {
        let Outcome { verdict, why, .. } = judge(program, state, method, peer, port);
        match *verdict {
            Verdict::Send => Decision::Send,
            Verdict::Reject(code, _) => {
                let said = |saying: &(Code, String)| saying.0 == code && why.as_deref() == Some(&*saying.1);
                let index = self.sayings.iter().position(said).and_then(|index| u8::try_from(index).ok());
                index.map_or(Decision::Reject(code), Decision::RejectSaying)
            }
            // Nothing else ends what is decided so.
            Verdict::Drop(_) | Verdict::Answer | Verdict::Retry | Verdict::Ask(_) => Decision::Drop,
        }
    }
}

fn judge<'s>(
    program: &Program,
    state: &'s mut State,
    method: u32,
    peer: &PeerView<'_>,
    port: u16,
) -> &'s Outcome {
    let mut call = CallView {
        method,
        layout: 0,
        flat: &mut [],
        size: 0,
        deadline_ns: None,
        port,
        now_ns: 0,
        session: None,
        peer,
        metadata: &[],
        backends: &[],
        start: Start::Chain,
    };
    program.judge(state, &mut call)
}
