//! What the engine's owner asks for: applications come and go, policies are replaced, the state is reported.

use super::{APPS_MAX, Engine};
use crate::apps::{App, AppId};
use crate::command::{AppStatus, Attach, Command, Gone, Reply, SessionStatus, Side, Status};
use crate::core::Core;
use crate::driver::Driver;
use std::collections::hash_map::Entry;
use tollfree_nic::Nic;
use tollfree_wire::Reason;
use tracing::{info, warn};

impl<N: Nic, D: Driver> Engine<N, D> {
    pub(super) fn obey(&mut self, now: u64, command: Command) {
        match command {
            Command::Attach(attach, reply) => self.attach(*attach, reply),
            Command::Detach(app) => self.detach(now, app),
            Command::Announce(side, policy, reply) => {
                self.core.gate(side).announce(policy.map(|policy| *policy));
                reply(());
            }
            Command::Policy(side, policy, reply) => {
                let gate = self.core.gate(side);
                gate.replace(now, policy.map(|policy| *policy));
                reply(gate.generation);
            }
            Command::Carry(side, named, reply) => {
                let carried = self.core.carriage.replace(side, named);
                reply(carried.map(|named| self.transport.set_specs(now, &named)));
            }
            Command::Tables(Side::Server, run) => run(self.core.server_gate.state()),
            Command::Tables(Side::Client, run) => run(self.core.client_gate.state()),
            Command::Status(reply) => reply(self.status(now)),
            Command::Stop => self.stopping = true,
        }
    }

    pub(crate) fn attach(&mut self, attach: Attach, reply: Reply<AppId>) {
        let mut app = App::new(attach);
        if self.ids.len() >= APPS_MAX {
            warn!(app = app.name, "refused: {APPS_MAX} applications are attached already");
            return app.dismiss(Gone::Crowded);
        }
        if let Err(error) = self.waiter.add(app.port.doorbell()) {
            warn!(app = app.name, %error, "refused: its doorbell cannot be listened to");
            return app.dismiss(Gone::Crowded);
        }
        let served: Vec<u32> = app
            .methods
            .iter()
            .filter(|(_, method)| app.serves.iter().any(|name| **name == *method.service))
            .map(|(id, _)| *id)
            .collect();
        info!(app = app.name, pid = app.pid, serves = ?app.serves, "application attached");
        let id = AppId(self.core.apps.insert(app));
        for method in served {
            match self.core.services.entry(method) {
                Entry::Occupied(mut several) => several.get_mut().push(id),
                Entry::Vacant(first) => {
                    first.insert(vec![id]);
                }
            }
        }
        self.ids.push(id);
        reply(id);
    }

    pub(crate) fn detach(&mut self, now: u64, id: AppId) {
        if let Some(app) = self.core.apps.get(id.0) {
            self.waiter.remove(app.port.doorbell());
        }
        self.ids.retain(|other| *other != id);
        self.core.detach(now, &mut self.transport, id);
    }

    fn status(&self, now: u64) -> Status {
        let Core { apps, reasons, outgoing, incoming, delayed, server_gate, client_gate, config, .. } =
            &self.core;
        let apps = apps.iter().filter(|(_, app)| !app.detached).map(|(_, app)| AppStatus {
            name: app.name.clone(),
            pid: app.pid,
            serves: app.serves.clone(),
            calls_made: app.calls_made,
            calls_served: app.calls_served,
            backlog: app.backlog(),
        });
        let counted = Reason::ALL.iter().zip(reasons).filter(|(_, count)| **count > 0);
        let counters = self.nic.counters();
        Status {
            apps: apps.collect(),
            sessions: self
                .transport
                .sessions()
                .map(|session| {
                    let tracked = self.core.tracked(session.index);
                    SessionStatus {
                        index: session.index,
                        peer: session.peer.to_string(),
                        role: session.role_name(),
                        calls: tracked.calls,
                        idle_ms: now.saturating_sub(tracked.last_seen_ns) / 1_000_000,
                    }
                })
                .collect(),
            reasons: counted.map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
            received: counters.rx_packets,
            transmitted: counters.tx_packets,
            calls_open: outgoing.len() + incoming.len(),
            calls_delayed: delayed.len(),
            server_policy: server_gate.generation,
            client_policy: client_gate.generation,
            waiting: Status::waiting_name(config.waiting),
        }
    }
}
