//! Calls between two applications on this host: the same policies and statuses, and no wire.

use crate::apps::AppId;
use crate::body::metadata;
use crate::calls::{Caller, Incoming, Origin, Outgoing, Progress};
use crate::command::Side;
use crate::core::Core;
use crate::delay::Held;
use crate::driver::Driver;
use crate::gate::Arrival;
use crate::inbound::{crowded, request_header};
use crate::outbound::Refused;
use crate::streams::Direction;
use crate::verdict::{Asked, Back, Passed};
use std::sync::Arc;
use tollfree_policy::Start;
use tollfree_schema::BindRequest;
use tollfree_wire::Code;

/// How often a call looks whether the application here that it is for has room, in ns.
const LOOK_AGAIN_NS: u64 = 500_000;

/// Whether a call for an application here has others before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It comes after those that wait already.
    Next,
    /// It is one of those, and the first.
    Waited,
}

impl<D: Driver> Core<D> {
    /// Hands a call to an application on this host. Same policies, same statuses, no wire.
    pub fn call_local(
        &mut self,
        now: u64,
        token: u64,
        client: AppId,
        layout: u32,
        flat: &mut [u8],
    ) -> Result<(), Refused> {
        let Some(&Outgoing { origin: Origin::App { body, .. }, method, flags, deadline_ns, .. }) =
            self.outgoing.get(token)
        else {
            return Ok(());
        };
        let server = self.server_of(method)?;
        self.check_local_layouts(client, server, method)?;
        let arrival = self.server_gate.in_force();
        let arrival = arrival.map_or(Arrival::Free, |key| Arrival::Judge(key, Start::Chain));
        let body_len = body.len;
        let said = match self.outgoing.get_mut(token).and_then(|call| call.metadata.take()) {
            Some(said) => Some(said),
            // A policy that reads it may have come in force since the call was made.
            None => self.read_metadata(client, flags, body)?,
        };
        let asked = Asked {
            side: Side::Server,
            method,
            layout,
            flat,
            body_len,
            deadline_ns,
            session: None,
            metadata: metadata(said.as_deref()),
        };
        let Passed { judged, delay_ns, deadline_ns } = match self.judge(now, arrival, asked) {
            Ok(passed) => passed,
            Err(ended) => {
                self.fail_as(now, token, ended);
                return Ok(());
            }
        };
        if let Some(call) = self.outgoing.get_mut(token) {
            (call.deadline_ns, call.progress, call.metadata) = (deadline_ns, Progress::Delayed, said);
        }
        if delay_ns == 0 {
            self.serve_local(now, token, flat, judged, Turn::Next);
        } else if self.delayed.has_room(flat.len()) {
            let flat = flat.to_vec();
            self.delayed
                .hold(now.saturating_add(delay_ns), Held::Local { token, flat, judged, awaits: None });
        } else {
            let ended = self.end_back(now, judged, crowded());
            self.fail_as(now, token, ended);
        }
        Ok(())
    }

    /// Hands a judged call to an application on this host, or has it wait until that has room.
    pub fn serve_local(&mut self, now: u64, token: u64, flat: &[u8], judged: Option<u64>, turn: Turn) {
        let Some(&Outgoing {
            origin: Origin::App { app: client, body, .. },
            method,
            flags,
            deadline_ns,
            ref requests,
            ..
        }) = self.outgoing.get(token)
        else {
            // It ended while it was held.
            return drop(self.judge_back(now, judged, &mut Back::status(Code::Cancelled)));
        };
        let responses = requests.is_some().then(Box::default);
        if let Ok(id) = self.server_of(method)
            && let Some(app) = self.apps.get_mut(id.0)
            && (!app.has_room() || (turn == Turn::Next && app.awaited_by > 0))
            && self.delayed.has_room(flat.len())
        {
            // Its body stays where it is, in its caller's region: that is what gets full, and has the caller wait.
            app.awaited_by += 1;
            let (flat, awaits) = (flat.to_vec(), Some(id));
            let held = Held::Local { token, flat, judged, awaits };
            return self.delayed.hold(now.saturating_add(LOOK_AGAIN_NS), held);
        }
        let admitted = self.server_of(method).and_then(|id| self.admit(id, body.len as usize).map(|()| id));
        let server = match admitted {
            Ok(id) => id,
            Err(refused) => {
                let ended = self.end_back(now, judged, refused.into());
                return self.fail_as(now, token, ended);
            }
        };
        let caller = Caller::Local { outgoing: token };
        let handle = self.incoming.insert(Incoming {
            app: server,
            method,
            caller,
            judged,
            ends_ns: None,
            responses,
            remote: None,
        });
        let mut said = None;
        if let Some(call) = self.outgoing.get_mut(token) {
            call.progress = Progress::Local { incoming: handle };
            said = call.metadata.take();
        }
        let known = self.apps.get(client.0).and_then(|app| app.methods.get(&method));
        let layout = known.map_or(0, |known| known.method.request.fingerprint);
        let header = request_header(handle, method, flags, layout, deadline_ns, now);
        self.copy_between(client, server, &header, flat, body, said.as_deref());
        self.take_room(Direction::Request(token), 1);
        self.send_early(client, token);
    }

    fn check_local_layouts(&self, client: AppId, server: AppId, method: u32) -> Result<(), Refused> {
        let known = |id: AppId| self.apps.get(id.0).and_then(|app| app.methods.get(&method));
        let (Some(theirs), Some(ours)) = (known(client), known(server)) else { return Ok(()) };
        if Arc::ptr_eq(theirs, ours) {
            return Ok(());
        }
        let checked = BindRequest::new(&theirs.method).check(&ours.method);
        checked.map(|_| ()).map_err(|incompatible| {
            (Code::FailedPrecondition, format!("{}: {incompatible}", theirs.method.path))
        })
    }
}
