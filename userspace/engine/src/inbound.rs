//! Calls that arrive: agreeing on layouts, judging, handing to a service, sending its answer back.

use crate::apps::{App, AppId, response};
use crate::calls::{Caller, HeldReply, Incoming, Origin, Outgoing, REPLY_TOKEN};
use crate::core::{Core, Refusal};
use crate::driver::Driver;
use tollfree_policy::{CallView, PeerView, Start, Verdict};
use tollfree_ring::{DaemonOp, DeliveryHeader, Submission, VerdictAt};
use tollfree_schema::{BindRequest, Compat};
use tollfree_transport::{IncomingCall, IncomingRequest, Reply, Transport};
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAT_MAX, METHOD_CONTROL, NO_DEADLINE};
use tollfree_wire::maps::LayoutKey;
use tollfree_wire::{Code, Reason};
use tracing::{info, warn};

/// The longest text that goes with a status of the engine's own, in bytes.
const WHY_MAX: usize = 1024;

impl<D: Driver> Core<D> {
    /// A request from another host.
    pub fn on_request(&mut self, now: u64, request: &IncomingRequest<'_>) {
        if request.method == METHOD_CONTROL {
            let (status, why) = self.on_bind(request.peer, request.body);
            self.refusals.push(Refusal { call: request.call, status, why });
            return;
        }
        if let Err((status, why)) = self.serve(now, request) {
            self.refusals.push(Refusal { call: request.call, status, why });
        }
    }

    fn serve(&mut self, now: u64, request: &IncomingRequest<'_>) -> Result<(), (Code, String)> {
        let &IncomingRequest { call, session, method, layout, deadline_ns, flat, body, .. } = request;
        let id = self.server_of(method)?;
        let known = self.check_flat(id, request)?;
        if !self.judged_below {
            let mut copy = [0; FLAT_MAX];
            let copy = &mut copy[..flat.len()];
            copy.copy_from_slice(flat);
            let mut view = CallView {
                method,
                layout: known,
                flat: copy,
                size: (flat.len() + body.len()) as u32,
                deadline_ns: (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(now)),
                port: 0,
                session: self.tracked.get_mut(&session),
                now_ns: now,
                peer: &PeerView::default(),
                metadata: &[],
                backends: &[],
                start: Start::Chain,
            };
            match self.server_gate.judge(&mut view).verdict {
                Verdict::Send | Verdict::Answer | Verdict::Retry | Verdict::Ask(_) => {}
                // The caller hears nothing, as when the network had lost the call.
                Verdict::Drop(reason) => {
                    self.count(reason);
                    self.ignored.push(call);
                    return Ok(());
                }
                Verdict::Reject(code, reason) => {
                    self.count(reason);
                    return Err((code, "refused by the server's policy, in its engine".to_owned()));
                }
            }
        }
        self.admit(id, body.len())?;
        let handle = self.incoming.insert(Incoming { app: id, caller: Caller::Remote(call) });
        if let Some(app) = self.apps.get_mut(id.0) {
            app.deliver(&request_header(handle, method, layout, deadline_ns, now), flat, body);
        }
        Ok(())
    }

    /// Checks that a service can take one more request.
    pub fn admit(&mut self, id: AppId, body_len: usize) -> Result<(), (Code, String)> {
        let Some(app) = self.apps.get_mut(id.0) else {
            return Err((Code::Unavailable, "the service's process has just ended".to_owned()));
        };
        if !app.has_room() {
            return Err((Code::ResourceExhausted, format!("{} does not keep up with its calls", app.name)));
        }
        let largest = app.port.largest_body();
        if body_len > largest {
            let why = format!("the request has {body_len} bytes; {}'s ring takes {largest}", app.name);
            return Err((Code::ResourceExhausted, why));
        }
        app.calls_served += 1;
        Ok(())
    }

    /// The application that serves a method's next call.
    pub fn server_of(&self, method: u32) -> Result<AppId, (Code, String)> {
        let served = self.services.get(&method).map(Vec::as_slice).unwrap_or_default();
        match served {
            [] => Err((
                Code::Unimplemented,
                format!("no application on this host serves method {method:#010x}"),
            )),
            [only] => Ok(*only),
            several => Ok(several[self.turns as usize % several.len()]),
        }
    }

    /// Our name for the layout a request is written in: its own fingerprint where we know that layout, ours where its
    /// layout was found to extend ours. Every field that the service reads is checked to be what its type allows: the
    /// policy compares whole fields, so a value with two spellings would be two users to it and one to the service.
    fn check_flat(&self, id: AppId, request: &IncomingRequest<'_>) -> Result<u32, (Code, String)> {
        let &IncomingRequest { peer, method, layout, flat, .. } = request;
        let Some(known) = self.apps.get(id.0).and_then(|app| app.methods.get(&method)) else {
            return Err((Code::Unavailable, "the service's process has just ended".to_owned()));
        };
        let ours = &known.method.request;
        ours.validate(flat).map_err(|malformed| (Code::InvalidArgument, malformed.to_string()))?;
        if ours.fingerprint == layout {
            return Ok(layout);
        }
        self.accepted.get(peer, method, layout).ok_or_else(|| {
            let path = &known.method.path;
            (Code::FailedPrecondition, format!("layout {layout:#010x} of {path} has not been agreed on"))
        })
    }

    /// A peer asks whether a service here reads its layout.
    fn on_bind(&mut self, peer: Peer, body: &[u8]) -> (Code, String) {
        let question = match BindRequest::decode(body) {
            Ok(question) => question,
            Err(error) => {
                self.count(Reason::BadHandshake);
                return (Code::InvalidArgument, error.to_string());
            }
        };
        let method = tollfree_schema::method_id(&question.path);
        let known = match self.server_of(method) {
            Ok(id) => self.apps.get(id.0).and_then(|app| app.methods.get(&method)).cloned(),
            Err(_) => None,
        };
        let Some(known) = known else {
            return (Code::Unimplemented, format!("no application on this host serves {}", question.path));
        };
        let compat = match question.check(&known.method) {
            Ok((request, _)) => request,
            Err(incompatible) => {
                info!(path = question.path, %incompatible, "a client's layout was refused");
                return (Code::FailedPrecondition, format!("{}: {incompatible}", question.path));
            }
        };
        let (theirs, ours) = (question.request.fingerprint, known.method.request.fingerprint);
        // An older layout is one the policy compiler knows; a newer one it cannot, and reads as ours.
        let known_as = match compat {
            Compat::Same | Compat::TheirsIsOlder => theirs,
            Compat::TheirsIsNewer => {
                if let Err(error) = self.driver.layout_insert(LayoutKey { method, layout: theirs }, ours) {
                    warn!(error, "a newer layout could not be made known to the XDP policy");
                }
                ours
            }
        };
        if !self.accepted.accept(peer, method, theirs, known_as) {
            let why = "this host has accepted too many layouts of yours; open a new session";
            return (Code::ResourceExhausted, why.to_owned());
        }
        (Code::Ok, String::new())
    }

    /// Sends the engine's own answers, and forgets the calls that get none.
    pub fn send_refusals(&mut self, now: u64, transport: &mut Transport) {
        for call in self.ignored.drain(..) {
            transport.ignore(call);
        }
        for Refusal { call, status, why } in self.refusals.drain(..) {
            // One packet's worth: nobody holds these texts until a longer one is acknowledged.
            let mut end = why.len().min(WHY_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            let why = &why[..end];
            let reply = Reply {
                status,
                by_engine: true,
                layout: 0,
                flat: &[],
                body_len: why.len() as u32,
                token: REPLY_TOKEN | u64::MAX,
                copy_body: &mut |out| out.copy_from_slice(why.as_bytes()),
            };
            transport.respond(now, call, reply);
        }
    }

    /// A service answers a call.
    pub fn submit_reply(&mut self, now: u64, transport: &mut Transport, id: AppId, submission: &Submission) {
        let &Submission { status, layout, flat: flat_span, body, call: handle, .. } = submission;
        let mine = self.incoming.get(handle).is_some_and(|call| call.app == id);
        let Some(call) = mine.then(|| self.incoming.remove(handle)).flatten() else {
            // Cancelled, or never asked: nobody wants it, but its room is free again.
            if let Some(app) = self.apps.get_mut(id.0) {
                app.release(handle);
            }
            return;
        };
        let mut flat = [0; FLAT_MAX];
        let flat = &mut flat[..flat_span.len as usize];
        let Some(app) = self.apps.get(id.0) else { return };
        app.port.read(flat_span, 0, flat);
        match call.caller {
            Caller::Remote(call) => {
                self.reply_remote(now, transport, id, submission, call, flat);
            }
            Caller::Local { outgoing } => {
                let Some(Outgoing { origin: Origin::App { app: caller, cookie, .. }, method, .. }) =
                    self.outgoing.remove(outgoing)
                else {
                    return;
                };
                let at = if status == Code::Ok { VerdictAt::None } else { VerdictAt::Application };
                let header = response(cookie, method, layout, status, at);
                self.copy_between(id, caller, &header, flat, body);
                if let Some(app) = self.apps.get_mut(id.0) {
                    app.release(handle);
                }
            }
        }
    }

    fn reply_remote(
        &mut self,
        now: u64,
        transport: &mut Transport,
        id: AppId,
        submission: &Submission,
        call: IncomingCall,
        flat: &[u8],
    ) {
        let &Submission { status, layout, body, call: handle, .. } = submission;
        let key = self.held.insert(HeldReply { app: id, handle, body });
        let Some(app) = self.apps.get_mut(id.0) else { return };
        let mut copied = body.len == 0;
        let reply = Reply {
            status,
            by_engine: false,
            layout,
            flat,
            body_len: body.len,
            token: REPLY_TOKEN | key,
            copy_body: &mut |out| {
                app.port.read(body, 0, out);
                copied = true;
            },
        };
        let accepted = transport.respond(now, call, reply);
        if copied || !accepted {
            self.held.remove(key);
            app.release(handle);
        } else {
            app.held_replies += 1;
        }
    }

    /// Delivers a message of one application to another on this host: one copy, from region to region.
    pub fn copy_between(
        &mut self,
        from: AppId,
        to: AppId,
        header: &DeliveryHeader,
        flat: &[u8],
        body: tollfree_ring::Span,
    ) {
        if from == to {
            let Some(app) = self.apps.get_mut(to.0) else { return };
            let mut copy = vec![0; body.len as usize];
            app.port.read(body, 0, &mut copy);
            return app.deliver(header, flat, &copy);
        }
        let [from, to] = self.apps.get_two_mut(from.0, to.0);
        if let (Some(from), Some(to)) = (from, to) {
            let from: &App = from;
            to.deliver_with(header, flat, body.len as usize, |out| from.port.read(body, 0, out));
        }
    }
}

/// The header of a delivered request: what is left of the deadline travels on.
pub fn request_header(handle: u64, method: u32, layout: u32, deadline_ns: u64, now: u64) -> DeliveryHeader {
    let deadline_us = match deadline_ns {
        u64::MAX => NO_DEADLINE,
        deadline => u32::try_from(deadline.saturating_sub(now) / 1000).unwrap_or(NO_DEADLINE - 1),
    };
    DeliveryHeader {
        op: DaemonOp::Request,
        status: Code::Ok,
        method,
        call: handle,
        layout,
        deadline_us,
        verdict_at: VerdictAt::None,
    }
}
