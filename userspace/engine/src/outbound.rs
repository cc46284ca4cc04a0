//! Calls that leave: from an application's descriptor to the transport, or to another application on this host.

use crate::apps::AppId;
use crate::bindings::{Answer, Key, WaitingCall};
use crate::calls::{Caller, Incoming, Origin, Outgoing, Progress};
use crate::core::Core;
use crate::driver::Driver;
use crate::inbound::request_header;
use std::sync::Arc;
use tollfree_policy::{CallView, PeerView, Start, Verdict};
use tollfree_ring::{AppOp, Submission, VerdictAt};
use tollfree_schema::BindRequest;
use tollfree_transport::{NewCall, Transport};
use tollfree_wire::Code;
use tollfree_wire::header::{FLAT_MAX, METHOD_CONTROL, NO_DEADLINE};

/// Time that the engine gives a peer to say whether it reads a layout, in ns.
const BIND_DEADLINE_NS: u64 = 5_000_000_000;

/// Why a call ends before it has left.
type Refused = (Code, String);

impl<D: Driver> Core<D> {
    /// Takes one descriptor of an application.
    pub fn submit(&mut self, now: u64, transport: &mut Transport, id: AppId, submission: &Submission) {
        match submission.op {
            AppOp::Call => {
                if let Err((status, why)) = self.submit_call(now, transport, id, submission)
                    && let Some(app) = self.apps.get_mut(id.0)
                {
                    app.fail(submission.call, submission.method, status, VerdictAt::Engine, &why);
                }
            }
            AppOp::Respond => self.submit_reply(now, transport, id, submission),
            AppOp::Cancel => {
                let it = |call: &Outgoing| matches!(call.origin, Origin::App { app, cookie, .. } if app == id && cookie == submission.call);
                let tokens = self.outgoing.keys_where(it);
                let withdrawn = !tokens.is_empty();
                for token in tokens {
                    self.withdraw(now, transport, token);
                }
                // The answer to a cancel frees the call's room. A response that crossed it has done so already.
                if let Some(app) = self.apps.get_mut(id.0)
                    && withdrawn
                {
                    app.cancelled(submission.call);
                }
            }
        }
    }

    fn submit_call(
        &mut self,
        now: u64,
        transport: &mut Transport,
        id: AppId,
        submission: &Submission,
    ) -> Result<(), Refused> {
        let &Submission { method, call: cookie, layout, deadline_us, flat: flat_span, body, .. } = submission;
        let Some(app) = self.apps.get_mut(id.0) else { return Ok(()) };
        app.calls_made += 1;
        let mut flat = [0; FLAT_MAX];
        let flat = &mut flat[..flat_span.len as usize];
        app.port.read(flat_span, 0, flat);
        let Some(known) = app.methods.get(&method).cloned() else {
            let why =
                format!("method {method:#010x} is in none of the schemas that the application attached with");
            return Err((Code::Unimplemented, why));
        };
        let request = &known.method.request;
        if request.fingerprint != layout || usize::from(request.flat_len) != flat.len() {
            let path = &known.method.path;
            let why = format!("the flat block of {path} is not in the layout the application attached with");
            return Err((Code::InvalidArgument, why));
        }
        request.validate(flat).map_err(|malformed| (Code::InvalidArgument, malformed.to_string()))?;

        let deadline_ns = deadline(now, deadline_us, transport.timeout_us(method));
        let mut view = view(method, layout, flat, body.len, deadline_ns, now);
        match self.client_gate.judge(&mut view).verdict {
            Verdict::Send | Verdict::Answer | Verdict::Retry | Verdict::Ask(_) => {}
            Verdict::Drop(reason) => {
                // What a lost call looks like: it ends when its deadline does.
                self.count(reason);
                let origin = Origin::App { app: id, cookie, body };
                let progress = Progress::Dropped;
                self.outgoing.insert(Outgoing { origin, method, deadline_ns, binding: None, progress });
                return Ok(());
            }
            Verdict::Reject(code, reason) => {
                self.count(reason);
                return Err((code, "refused by this host's policy for outgoing calls".to_owned()));
            }
        }

        let outgoing = Outgoing {
            origin: Origin::App { app: id, cookie, body },
            method,
            deadline_ns,
            binding: None,
            progress: Progress::Binding,
        };
        if self.services.contains_key(&method) {
            return self.call_local(now, outgoing, id, layout, flat);
        }
        let Some(&peer) = self.config.routes.get(known.service.as_ref()) else {
            let why = format!(
                "no application on this host serves {service} and no route leads to it; add [[route]] service = \
                 \"{service}\" to the daemon's configuration",
                service = known.service
            );
            return Err((Code::Unavailable, why));
        };
        let key = Key { peer, method, layout };
        let token = self.outgoing.insert(Outgoing { binding: Some(key), ..outgoing });
        let question = || BindRequest::new(&known.method).encode();
        let refused = match self.bindings.look_up(key, now, question) {
            Answer::Agreed => {
                self.send(now, transport, token, flat);
                return Ok(());
            }
            Answer::Wait { ask } => {
                self.bindings.wait(key, WaitingCall { token, flat: flat.to_vec() });
                if ask {
                    self.ask(now, transport, key);
                }
                return Ok(());
            }
            Answer::Refused(why) => (Code::FailedPrecondition, why.to_owned()),
            Answer::Crowded => {
                (Code::ResourceExhausted, format!("too many calls wait for {peer} to agree on a layout"))
            }
        };
        self.outgoing.remove(token);
        Err(refused)
    }

    /// Gives an agreed call to the transport.
    fn send(&mut self, now: u64, transport: &mut Transport, token: u64, flat: &[u8]) {
        let Some(Outgoing {
            origin: Origin::App { body, .. },
            binding: Some(key),
            method,
            deadline_ns,
            progress,
        }) = self.outgoing.get_mut(token)
        else {
            return;
        };
        let (method, layout, deadline_ns) = (*method, key.layout, *deadline_ns);
        let call = NewCall { method, layout, flat, body_len: body.len, deadline_ns, token };
        *progress = Progress::Sent(transport.call(now, key.peer, call));
    }

    /// Asks a peer whether it reads a layout.
    fn ask(&mut self, now: u64, transport: &mut Transport, key: Key) {
        let body_len = self.bindings.question(&key).map_or(0, <[u8]>::len) as u32;
        let deadline_ns = now.saturating_add(BIND_DEADLINE_NS);
        let token = self.outgoing.insert(Outgoing {
            origin: Origin::Bind,
            method: METHOD_CONTROL,
            deadline_ns,
            binding: Some(key),
            progress: Progress::Binding,
        });
        let call = NewCall { method: METHOD_CONTROL, layout: 0, flat: &[], body_len, deadline_ns, token };
        let handle = transport.call(now, key.peer, call);
        if let Some(call) = self.outgoing.get_mut(token) {
            call.progress = Progress::Sent(handle);
        }
    }

    /// Sends the calls whose layouts have been agreed on since the last time.
    pub fn send_ready(&mut self, now: u64, transport: &mut Transport) {
        // In the order in which they were made.
        for WaitingCall { token, flat } in std::mem::take(&mut self.ready) {
            self.send(now, transport, token, &flat);
        }
    }

    /// Hands a call to an application on this host. Same policies, same statuses, no wire.
    fn call_local(
        &mut self,
        now: u64,
        mut call: Outgoing,
        client: AppId,
        layout: u32,
        flat: &mut [u8],
    ) -> Result<(), Refused> {
        let Outgoing { method, deadline_ns, .. } = call;
        let server = self.server_of(method)?;
        self.check_local_layouts(client, server, method)?;
        let Origin::App { body, .. } = call.origin else { return Ok(()) };
        let mut view = view(method, layout, flat, body.len, deadline_ns, now);
        match self.server_gate.judge(&mut view).verdict {
            Verdict::Send | Verdict::Answer | Verdict::Retry | Verdict::Ask(_) => {}
            Verdict::Reject(code, reason) => {
                self.count(reason);
                return Err((code, "refused by this host's policy, in its engine".to_owned()));
            }
            Verdict::Drop(reason) => {
                self.count(reason);
                call.progress = Progress::Dropped;
                self.outgoing.insert(call);
                return Ok(());
            }
        }
        self.admit(server, body.len as usize)?;
        let outgoing = self.outgoing.insert(call);
        let handle = self.incoming.insert(Incoming { app: server, caller: Caller::Local { outgoing } });
        if let Some(call) = self.outgoing.get_mut(outgoing) {
            call.progress = Progress::Local { incoming: handle };
        }
        self.copy_between(
            client,
            server,
            &request_header(handle, method, layout, deadline_ns, now),
            flat,
            body,
        );
        Ok(())
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

    /// Ends calls that stay on this host, or wait for an agreement, when their time is over. The transport looks after
    /// the others.
    pub fn expire_local(&mut self, now: u64) {
        let over = |call: &Outgoing| call.deadline_ns <= now && !matches!(call.progress, Progress::Sent(_));
        for token in self.outgoing.keys_where(over) {
            match self.outgoing.get(token).map(|call| call.progress) {
                Some(Progress::Local { incoming }) => self.tell_cancelled(incoming),
                Some(Progress::Binding) => self.bindings.withdraw(token),
                Some(Progress::Sent(_) | Progress::Dropped) | None => {}
            }
            self.fail(
                token,
                Code::DeadlineExceeded,
                VerdictAt::Engine,
                "the deadline passed before an answer came",
            );
        }
    }
}

/// A call of an application on this host, as policies see it.
fn view<'a>(
    method: u32,
    layout: u32,
    flat: &'a mut [u8],
    body_len: u32,
    deadline_ns: u64,
    now_ns: u64,
) -> CallView<'a> {
    CallView {
        method,
        layout,
        size: flat.len() as u32 + body_len,
        flat,
        deadline_ns: (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(now_ns)),
        port: 0,
        now_ns,
        session: None,
        peer: &PeerView {
            address: [0; 16],
            identity: None,
            namespace: None,
            token: None,
            named: &[],
            sessions: 0,
        },
        metadata: &[],
        backends: &[],
        start: Start::Chain,
    }
}

/// When a call ends at the latest: as its caller asks, or as its method's transport allows.
fn deadline(now: u64, deadline_us: u32, timeout_us: Option<u32>) -> u64 {
    let asked = if deadline_us == NO_DEADLINE { None } else { Some(deadline_us) };
    match asked.into_iter().chain(timeout_us).min() {
        None => u64::MAX,
        Some(us) => now.saturating_add(u64::from(us) * 1000),
    }
}
