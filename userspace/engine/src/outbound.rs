//! Calls that leave: from an application's descriptor to the transport. Those that stay on this host are in `local`.

use crate::apps::AppId;
use crate::bindings::{Answer, Key, WaitingCall};
use crate::body::metadata;
use crate::calls::{Origin, Outgoing, Progress};
use crate::command::Side;
use crate::core::Core;
use crate::delay::Held;
use crate::driver::Driver;
use crate::frames::HEAD_LEN;
use crate::gate::Arrival;
use crate::inbound::crowded;
use crate::local::Turn;
use crate::remote::Remote;
use crate::verdict::{Asked, Passed};
use crate::window::Written;
use tollfree_policy::Start;
use tollfree_ring::{AppOp, Flags, Submission, VerdictAt};
use tollfree_schema::BindRequest;
use tollfree_transport::{NewCall, Transport};
use tollfree_wire::Code;
use tollfree_wire::header::{FLAT_MAX, METHOD_CONTROL, NO_DEADLINE};

/// Time that the engine gives a peer to say whether it reads a layout, in ns.
const BIND_DEADLINE_NS: u64 = 5_000_000_000;

/// Why a call ends before it has left.
pub type Refused = (Code, String);

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
            AppOp::RequestMessage
            | AppOp::RequestEnd
            | AppOp::ResponseCredit
            | AppOp::ResponseHead
            | AppOp::ResponseMessage
            | AppOp::RequestCredit => self.submit_stream(now, transport, id, submission),
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
        let flags = self.opening_flags(id, &known, submission)?;
        // A streaming request without a message has no block to be judged by: all its fields are absent.
        let layout = if flags.bare { known.method.request.fingerprint } else { layout };
        if !flags.bare {
            known.check_request(layout, flat)?;
        }
        let said = self.read_metadata(id, flags, body)?;
        let requests = Written::opening(known.method.streaming, flat_span.len + body.len, flags.last);

        let deadline_ns = deadline(now, deadline_us, transport.timeout_us(method));
        let mut call = Outgoing {
            origin: Origin::App { app: id, cookie, body },
            method,
            flags,
            deadline_ns,
            binding: None,
            progress: Progress::Delayed,
            judged: None,
            requests,
            remote: None,
            metadata: None,
        };
        let asked = Asked {
            side: Side::Client,
            method,
            layout,
            flat,
            body_len: body.len,
            deadline_ns,
            session: None,
            metadata: metadata(said.as_deref()),
        };
        let Passed { judged, delay_ns, deadline_ns } = match self.judge(now, self.leaving(), asked) {
            Ok(passed) => passed,
            Err(ended) => {
                self.end_here(now, call, ended);
                return Ok(());
            }
        };
        (call.judged, call.deadline_ns, call.metadata) = (judged, deadline_ns, said);
        let token = self.insert_outgoing(call);
        if delay_ns == 0 {
            self.route(now, transport, token, flat);
        } else if self.delayed.has_room(flat.len()) {
            let flat = flat.to_vec();
            self.delayed.hold(now.saturating_add(delay_ns), Held::Leaving { token, flat });
        } else {
            self.fail_as(now, token, crowded());
        }
        Ok(())
    }

    /// Who judges a call that leaves.
    fn leaving(&self) -> Arrival {
        self.client_gate.in_force().map_or(Arrival::Free, |key| Arrival::Judge(key, Start::Chain))
    }

    /// Sends a judged call on its way: to an application here, or to another host.
    fn route(&mut self, now: u64, transport: &mut Transport, token: u64, flat: &mut [u8]) {
        if let Err((status, why)) = self.try_route(now, transport, token, flat) {
            self.fail(now, token, status, VerdictAt::Engine, &why);
        }
    }

    fn try_route(
        &mut self,
        now: u64,
        transport: &mut Transport,
        token: u64,
        flat: &mut [u8],
    ) -> Result<(), Refused> {
        let Some(call) = self.outgoing.get(token) else { return Ok(()) };
        let (Origin::App { app: id, .. }, method) = (call.origin, call.method) else { return Ok(()) };
        let Some(known) = self.apps.get(id.0).and_then(|app| app.methods.get(&method)).cloned() else {
            return Ok(());
        };
        let layout = known.method.request.fingerprint;
        if self.services.contains_key(&method) {
            return self.call_local(now, token, id, layout, flat);
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
        if let Some(call) = self.outgoing.get_mut(token) {
            (call.binding, call.progress) = (Some(key), Progress::Binding);
        }
        let question = || BindRequest::new(&known.method).encode();
        match self.bindings.look_up(key, now, question) {
            Answer::Agreed => {
                self.send(now, transport, token, flat);
                Ok(())
            }
            Answer::Wait { ask } => {
                self.bindings.wait(key, WaitingCall { token, flat: flat.to_vec() });
                if ask {
                    self.ask(now, transport, key);
                }
                Ok(())
            }
            Answer::Refused(why) => Err((Code::FailedPrecondition, why.to_owned())),
            Answer::Crowded => {
                Err((Code::ResourceExhausted, format!("too many calls wait for {peer} to agree on a layout")))
            }
        }
    }

    /// Goes on with the calls that were held long enough. True if there were any.
    pub fn go_on(&mut self, now: u64, transport: &mut Transport) -> bool {
        let mut any = false;
        while let Some(held) = self.delayed.pop(now) {
            any = true;
            match held {
                Held::Arrived(arrived) => self.serve_held(now, &arrived),
                Held::Leaving { token, mut flat } => self.route(now, transport, token, &mut flat),
                Held::Local { token, flat, judged, awaits } => {
                    let mut turn = Turn::Next;
                    if let Some(app) = awaits.and_then(|id| self.apps.get_mut(id.0)) {
                        app.awaited_by -= 1;
                        turn = Turn::Waited;
                    }
                    self.serve_local(now, token, &flat, judged, turn);
                }
                Held::Reply { call, answer } => {
                    self.reply_with(now, transport, call, *answer);
                }
                Held::Response { token, answer } => self.respond_held(now, token, &answer),
            }
        }
        any
    }

    /// Gives an agreed call to the transport.
    fn send(&mut self, now: u64, transport: &mut Transport, token: u64, flat: &[u8]) {
        let Some(Outgoing {
            origin: Origin::App { app, body, .. },
            binding: Some(key),
            method,
            flags,
            deadline_ns,
            progress,
            requests,
            remote,
            ..
        }) = self.outgoing.get_mut(token)
        else {
            return;
        };
        let (app, streams) = (*app, requests.is_some());
        if streams {
            *remote = Some(Remote::new(self.exchanges.link_to(key.peer), token, Written::default()));
        }
        let body_len = body.len + if streams { HEAD_LEN as u32 } else { 0 };
        let (method, layout, deadline_ns, metadata) = (*method, key.layout, *deadline_ns, flags.metadata);
        let call = NewCall { method, layout, flat, metadata, body_len, deadline_ns, token };
        *progress = Progress::Sent(transport.call(now, key.peer, call));
        if streams {
            self.send_early(app, token);
        }
    }

    /// Asks a peer whether it reads a layout.
    fn ask(&mut self, now: u64, transport: &mut Transport, key: Key) {
        let body_len = self.bindings.question(&key).map_or(0, <[u8]>::len) as u32;
        let deadline_ns = now.saturating_add(BIND_DEADLINE_NS);
        let token = self.outgoing.insert(Outgoing {
            origin: Origin::Bind,
            method: METHOD_CONTROL,
            flags: Flags::default(),
            deadline_ns,
            binding: Some(key),
            progress: Progress::Binding,
            judged: None,
            requests: None,
            remote: None,
            metadata: None,
        });
        let (method, flat, metadata) = (METHOD_CONTROL, &[][..], false);
        let call = NewCall { method, layout: 0, flat, metadata, body_len, deadline_ns, token };
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

    /// Ends calls that stay on this host, or wait for an agreement, when their time is over. The transport looks after
    /// the others.
    pub fn expire_local(&mut self, now: u64) {
        let over = |call: &Outgoing| call.deadline_ns <= now && !matches!(call.progress, Progress::Sent(_));
        for token in self.outgoing.keys_where(over) {
            let (mut status, mut why) = (Code::DeadlineExceeded, "the deadline passed before an answer came");
            match self.outgoing.get(token).map(|call| call.progress) {
                Some(Progress::Local { incoming }) => {
                    self.delayed.withdraw_response(token);
                    self.tell_cancelled(now, incoming, status);
                }
                Some(Progress::Binding) => self.bindings.withdraw(token),
                Some(Progress::Dropped(lost)) => {
                    status = lost;
                    if lost == Code::Unavailable {
                        why = "the peer does not answer";
                    }
                }
                Some(Progress::Open) => self.cancel_remote(token),
                Some(Progress::Delayed) => self.delayed.withdraw_response(token),
                Some(Progress::Sent(_)) | None => {}
            }
            self.fail(now, token, status, VerdictAt::Engine, why);
        }
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
