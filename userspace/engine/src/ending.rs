//! How calls end otherwise than by their answers: statuses of the engine's own, cancellations, applications that go.

use crate::apps::{AppId, response};
use crate::calls::{Caller, Incoming, Origin, Outgoing, Progress};
use crate::core::{Core, Refusal};
use crate::driver::Driver;
use crate::remote::Remote;
use crate::verdict::{Back, Ended};
use tollfree_ring::VerdictAt;
use tollfree_transport::{IncomingCall, Transport};
use tollfree_wire::Code;
use tracing::info;

/// How long a call without a deadline waits for an answer that its policy has dropped, in ns: about as long as the
/// transport takes to find a peer dead.
const LOST_NS: u64 = 10_000_000_000;

impl<D: Driver> Core<D> {
    /// Ends an outgoing call that the transport does not have (any more).
    pub fn fail(&mut self, now: u64, token: u64, status: Code, at: VerdictAt, why: &str) {
        let Some(call) = self.remove_outgoing(token) else { return };
        let mut back = Back { body_len: why.len() as u32, ..Back::status(status) };
        if let Err(ended) = self.judge_back(now, call.judged, &mut back) {
            return self.end_here(now, call, ended);
        }
        if let Origin::App { app, cookie, .. } = call.origin
            && let Some(app) = self.apps.get_mut(app.0)
        {
            app.fail(cookie, call.method, status, at, why);
        }
    }

    /// Ends a call of an application here as a policy wants it.
    pub fn end_here(&mut self, now: u64, call: Outgoing, ended: Ended) {
        let Outgoing { origin: Origin::App { app: id, cookie, .. }, method, .. } = call else { return };
        let Some(app) = self.apps.get_mut(id.0) else { return };
        match ended {
            Ended::Status(status, why) => app.fail(cookie, method, status, VerdictAt::Engine, &why),
            Ended::Answer(answer) => {
                let header = response(cookie, method, answer.layout, Code::Ok, VerdictAt::Engine);
                app.deliver(&header, answer.flat(), &[]);
            }
            // What a lost call looks like: it ends when its deadline does, or when its peer would count as dead.
            Ended::Dropped => {
                let lost_ns = now.saturating_add(LOST_NS);
                let (deadline_ns, status) = match call.deadline_ns {
                    deadline_ns if deadline_ns <= lost_ns => (deadline_ns, Code::DeadlineExceeded),
                    _ => (lost_ns, Code::Unavailable),
                };
                let (progress, judged) = (Progress::Dropped(status), None);
                self.insert_outgoing(Outgoing { deadline_ns, progress, judged, ..call });
            }
        }
    }

    pub fn on_cancelled(&mut self, now: u64, call: IncomingCall) {
        if self.on_exchange_cancelled(now, call) {
            return;
        }
        if let Some(arrived) = self.delayed.withdraw(call) {
            // Nobody waits for what its policy makes of the end.
            drop(self.judge_back(now, arrived.judged, &mut Back::status(Code::Cancelled)));
        }
        let is_it = |incoming: &Incoming| matches!(incoming.caller, Caller::Remote(other) if other == call);
        for handle in self.incoming.keys_where(is_it) {
            self.tell_cancelled(now, handle, Code::Cancelled);
        }
    }

    /// Tells an application that nobody waits for its answer any more, because the call has ended with this status.
    pub fn tell_cancelled(&mut self, now: u64, handle: u64, status: Code) {
        self.dismiss(handle);
        let Some(Incoming { judged, .. }) = self.remove_incoming(handle) else { return };
        // Nobody waits for what its policy makes of the end.
        drop(self.judge_back(now, judged, &mut Back::status(status)));
    }

    /// Tells an application that its answer is not wanted any more, or that its room is free if it has come already.
    pub fn dismiss(&mut self, handle: u64) {
        let Some(Incoming { app, remote, .. }) = self.incoming.get(handle) else { return };
        let answered = remote.as_ref().is_some_and(|remote| remote.is_answered());
        if let Some(app) = self.apps.get_mut(app.0) {
            match answered {
                true => app.release(handle),
                false => app.cancelled(handle),
            }
        }
    }

    /// Takes a call that is served here out of the books.
    pub fn remove_incoming(&mut self, handle: u64) -> Option<Incoming> {
        let call = self.incoming.remove(handle)?;
        if let Some(remote) = &call.remote {
            self.exchanges.kept -= remote.kept();
            self.exchanges.served.close(remote.link, remote.stream, handle);
        }
        Some(call)
    }

    /// Removes an application: its own calls are withdrawn, the calls it served end `UNAVAILABLE`.
    pub fn detach(&mut self, now: u64, transport: &mut Transport, id: AppId) {
        let Some(app) = self.apps.get_mut(id.0) else { return };
        app.detached = true;
        info!(app = app.name, pid = app.pid, "application detached");
        for served in self.services.values_mut() {
            served.retain(|other| *other != id);
        }
        self.services.retain(|_, served| !served.is_empty());

        let mine = |call: &Outgoing| matches!(call.origin, Origin::App { app, .. } if app == id);
        for token in self.outgoing.keys_where(mine) {
            self.withdraw(now, transport, token);
        }
        for handle in self.incoming.keys_where(|call| call.app == id) {
            let why = "the service's process ended before it answered";
            self.give_up(now, handle, Code::Unavailable, why);
        }
        self.bury(id);
    }

    /// Drops an application that is detached once nothing needs its memory.
    pub fn bury(&mut self, id: AppId) {
        if self.apps.get(id.0).is_some_and(|app| app.detached && app.held_replies == 0) {
            self.apps.remove(id.0);
        }
    }

    /// Ends a call that an application here was given to serve, without its word.
    pub fn give_up(&mut self, now: u64, handle: u64, status: Code, why: &str) {
        let Some(Incoming { caller, judged, remote, .. }) = self.remove_incoming(handle) else { return };
        let ended = self.end_back(now, judged, Ended::Status(status, why.to_owned()));
        match caller {
            Caller::Stream => self.end_stream(remote, ended),
            caller => self.end_caller(now, caller, ended),
        }
    }

    /// Ends a call that was served here, other than a stream, as the engine or a policy wants it.
    pub fn end_caller(&mut self, now: u64, caller: Caller, ended: Ended) {
        match caller {
            Caller::Stream => {}
            Caller::Remote(call) => self.refusals.push(Refusal { call, ended }),
            Caller::Local { outgoing } => self.fail_as(now, outgoing, ended),
        }
    }

    /// Ends a client's stream as the engine or a policy wants it.
    pub fn end_stream(&mut self, remote: Option<Box<Remote>>, ended: Ended) {
        let Some(remote) = remote else { return };
        let (status, why) = match &ended {
            Ended::Status(status, why) => (*status, why.as_str()),
            // A response cannot be replaced or lost once its stream has begun.
            Ended::Answer(_) | Ended::Dropped => {
                (Code::Unavailable, "a policy has dropped the stream's response")
            }
        };
        let sequence = remote.next_sequence();
        self.exchanges.served.end(remote.link, remote.stream, sequence, status, why);
    }

    /// Ends an outgoing call as the server's policy on this host wants it.
    pub fn fail_as(&mut self, now: u64, token: u64, ended: Ended) {
        match ended {
            Ended::Status(status, why) => self.fail(now, token, status, VerdictAt::Engine, &why),
            ended => {
                let Some(call) = self.remove_outgoing(token) else { return };
                let ended = self.end_back(now, call.judged, ended);
                self.end_here(now, call, ended);
            }
        }
    }

    /// Forgets an outgoing call whose caller no longer wants the result.
    pub fn withdraw(&mut self, now: u64, transport: &mut Transport, token: u64) {
        self.cancel_remote(token);
        let Some(call) = self.remove_outgoing(token) else { return };
        // Nobody waits for what the policy makes of the end.
        drop(self.judge_back(now, call.judged, &mut Back::status(Code::Cancelled)));
        match call.progress {
            Progress::Binding => self.bindings.withdraw(token),
            Progress::Sent(handle) => transport.cancel(now, handle),
            Progress::Local { incoming } => {
                self.delayed.withdraw_response(token);
                self.tell_cancelled(now, incoming, Code::Cancelled);
            }
            Progress::Delayed => self.delayed.withdraw_response(token),
            Progress::Open | Progress::Dropped(_) => {}
        }
    }
}
