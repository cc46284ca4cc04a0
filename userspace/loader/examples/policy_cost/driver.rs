//! A policy's cost in the network card's driver, above that of delivering without one.

use crate::common::packet::{Packet, SERVER, STACKS, sessions};
use crate::common::{Action, Program, Sandbox, xdp_socket};
use crate::subject::Subject;
use std::os::fd::{AsFd, OwnedFd};
use tollfree_loader::{Interface, NewPolicy, TableInfo};
use tollfree_policy::Home;
use tollfree_wire::Kind;
use tollfree_wire::maps::{Decision, IDENTITY_MAX, PeerEntry};

/// Who calls: the peer of the tests' sessions.
pub const ADDRESS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 1];
/// Runs of a round, and rounds.
const RUNS: u32 = 100_000;
const ROUNDS: u32 = 40;

/// An attached interface, with a session that requests come by.
pub struct Driver<'s> {
    sandbox: &'s Sandbox,
    interface: Interface,
    /// For the programs to redirect to.
    _socket: OwnedFd,
}

/// What a policy's program takes.
pub struct Cost {
    /// ns per run above those of the stage that it ends in: delivering, which the root program goes on in without a policy,
    /// or rejecting.
    pub above_ns: u32,
    /// The stage's alone, with what the kernel adds to each run.
    pub stage_ns: u32,
}

impl<'s> Driver<'s> {
    pub fn new(sandbox: &'s Sandbox) -> Driver<'s> {
        let interface = sandbox.attach();
        interface.session_insert(&sessions()[0]).expect("the session table can be written");
        let socket = xdp_socket();
        interface.register_socket(0, socket.as_fd()).expect("the socket can be registered");
        Driver { sandbox, interface, _socket: socket }
    }

    /// `None` where nothing of the policy runs here.
    pub fn measure(&mut self, subject: &Subject<'_>) -> Option<Cost> {
        let object = subject.compiled.object.as_deref()?;
        self.apply(subject, object);
        let mut packet = Packet::new(STACKS[0], Kind::Request);
        packet.header.method = subject.method.id;
        packet.header.layout = subject.method.request.fingerprint;
        packet.flat.clone_from(&subject.flat);
        packet.body = b"the body".to_vec();
        let frame = packet.frame();
        // Leaves for the stages, on this CPU, where the header is and which session; a repetition of the frame it would
        // refuse, so that only what comes behind it can be measured.
        let (action, _) = self.sandbox.program("tf_root").run(&frame);
        let stage = match action {
            Action::Redirect => "tf_deliver",
            Action::Tx => "tf_reject",
            Action::Drop => "tf_drop",
            Action::Pass => panic!("{}: the request is none of ours", subject.name),
        };
        let measure = if action == Action::Redirect { repeated } else { singly };
        let (stage, policy) = (self.sandbox.program(stage), self.sandbox.program("policy"));
        let (mut alone, mut whole) = (u32::MAX, u32::MAX);
        for _ in 0..ROUNDS {
            for (program, least) in [(&policy, &mut whole), (&stage, &mut alone)] {
                let (ended, ns) = measure(program, &frame);
                assert_eq!(ended, action, "{}: every run ends alike", subject.name);
                *least = ns.min(*least);
            }
        }
        Some(Cost { above_ns: whole.saturating_sub(alone), stage_ns: alone })
    }

    /// Puts the policy into force, with its entries, and every decision per session made to let calls through: what was
    /// decided does not change the cost.
    fn apply(&mut self, subject: &Subject<'_>, object: &[u8]) {
        let Subject { name, compiled, entries, identity, .. } = subject;
        let mut peer = PeerEntry {
            session: SERVER,
            reserved: 0,
            address: ADDRESS,
            identity: [0; 1 + IDENTITY_MAX],
            namespace: [0; 1 + IDENTITY_MAX],
        };
        peer.identity[0] = identity.len() as u8;
        peer.identity[1..=identity.len()].copy_from_slice(identity.as_bytes());
        self.interface.peer_insert(&peer).expect("the peers' table can be written");

        let tables = compiled.tables.iter().map(|table| TableInfo {
            name: table.name.clone(),
            key_size: table.key_size,
            value_size: table.value_size,
            capacity: table.capacity,
            meaning: table.meaning(),
            initial: table.initial_bytes(),
        });
        let tables: Vec<TableInfo> = tables.collect();
        let new = NewPolicy { object, tables: &tables, meta: serde_json::value::RawValue::NULL };
        let prepared = self.interface.prepare(new).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(decisions) = prepared.decisions() {
            let decided = vec![Decision::Send.to_byte(); decisions.size()];
            decisions.set(SERVER, &decided).expect("decisions can be written");
        }
        for [table, key, value] in entries {
            let specs = compiled.tables.iter().zip(&compiled.homes);
            let Some((spec, _)) =
                specs.into_iter().find(|(spec, home)| spec.name == *table && **home != Home::Engine)
            else {
                continue;
            };
            let key = spec.parse_key(key).expect("the test's key is one");
            let value = spec.parse_value(value).expect("the test's value is one");
            let table = prepared.table(table).expect("the object has the table");
            table.set(&key, &value).expect("the table takes the entry");
        }
        self.interface.commit(prepared).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// ns per run, many times on one frame, which the programs leave as they want to find it.
fn repeated(program: &Program, frame: &[u8]) -> (Action, u32) {
    program.timed(frame, RUNS)
}

/// ns of the quickest run of many, each on a frame of its own: for programs that turn frames around.
fn singly(program: &Program, frame: &[u8]) -> (Action, u32) {
    let runs = (0..RUNS / 10).map(|_| program.timed(frame, 1));
    runs.min_by_key(|(_, ns)| *ns).expect("more than none")
}
