//! Services' answers on their way back: judged, then to the transport, to a stream, or to an application on this host.

use crate::apps::{App, AppId, response};
use crate::body::copy_judged;
use crate::calls::{Caller, HeldReply, Incoming, Origin, Outgoing, Progress, REPLY_TOKEN};
use crate::core::Core;
use crate::delay::{Answered, Held};
use crate::driver::Driver;
use crate::inbound::{TOO_LATE, crowded};
use crate::verdict::Back;
use tollfree_ring::{DeliveryHeader, Span, Submission, VerdictAt};
use tollfree_transport::{IncomingCall, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::header::FLAT_MAX;

impl<D: Driver> Core<D> {
    /// A service answers a call.
    pub fn submit_reply(&mut self, now: u64, transport: &mut Transport, id: AppId, submission: &Submission) {
        let &Submission { status, layout, flat: flat_span, body, call: handle, .. } = submission;
        let mine = self.incoming.get(handle).is_some_and(|call| call.app == id);
        if mine && self.answer_stream(now, id, submission) {
            return;
        }
        let Some(call) = mine.then(|| self.remove_incoming(handle)).flatten() else {
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
        let Incoming { caller, judged, ends_ns, .. } = call;
        let mut back = Back { status, layout, flat, body_len: body.len };
        match (self.judge_back(now, judged, &mut back), caller) {
            (_, Caller::Stream) => return,
            // The transport may read from the room for a while.
            (Ok(0), Caller::Remote(call)) => {
                return self.reply_remote(now, transport, id, submission, call, flat);
            }
            (Ok(0), Caller::Local { outgoing }) => self.reply_local(now, id, submission, outgoing, flat),
            (Ok(delay_ns), caller) => {
                let due = now.saturating_add(delay_ns);
                self.hold_reply(now, (due, ends_ns), caller, id, submission, flat);
            }
            (Err(ended), caller) => self.end_caller(now, caller, ended),
        }
        self.release(id, handle);
    }

    /// What an application has answered, copied; `None` where there is no room to hold it.
    fn answered(&self, id: AppId, submission: &Submission, flat: &[u8]) -> Option<Answered> {
        let &Submission { status, flags, layout, body: span, .. } = submission;
        if !self.delayed.has_room(flat.len() + span.len as usize) {
            return None;
        }
        let mut body = vec![0; span.len as usize];
        if let Some(app) = self.apps.get(id.0) {
            app.port.read(span, 0, &mut body);
        }
        Some(Answered { status, at: decided_by(status), flags, layout, flat: flat.to_vec(), body })
    }

    /// Holds a judged answer of a service here, until it is due or the time is over that a policy allows the call.
    fn hold_reply(
        &mut self,
        now: u64,
        (due, ends_ns): (u64, Option<u64>),
        caller: Caller,
        id: AppId,
        submission: &Submission,
        flat: &[u8],
    ) {
        let Some(answer) = self.answered(id, submission, flat).map(Box::new) else {
            return self.end_caller(now, caller, crowded());
        };
        match (caller, ends_ns) {
            (Caller::Stream, _) => {}
            (Caller::Remote(call), Some(ends_ns)) if ends_ns < due => {
                let answer = Box::new(Answered::by_engine(Code::DeadlineExceeded, TOO_LATE.into()));
                self.delayed.hold(ends_ns, Held::Reply { call, answer });
            }
            (Caller::Remote(call), _) => self.delayed.hold(due, Held::Reply { call, answer }),
            // Its own deadline says when it ends.
            (Caller::Local { outgoing: token }, _) => {
                self.delayed.hold(due, Held::Response { token, answer })
            }
        }
    }

    /// Holds a judged answer on its way to an application here. The call stays in the books: it can still be cancelled, and
    /// its deadline ends it.
    pub fn hold_response(&mut self, now: u64, delay_ns: u64, call: Outgoing, answer: Answered) {
        let progress = Progress::Delayed;
        let call = Outgoing { progress, judged: None, binding: None, requests: None, remote: None, ..call };
        let (token, answer) = (self.insert_outgoing(call), Box::new(answer));
        self.delayed.hold(now.saturating_add(delay_ns), Held::Response { token, answer });
    }

    /// Sends an answer to another host whose body the engine has; says whether anybody there still waits for it.
    pub fn reply_with(
        &mut self,
        now: u64,
        transport: &mut Transport,
        call: IncomingCall,
        answer: Answered,
    ) -> bool {
        let Answered { status, at, flags, layout, flat, body } = answer;
        let body_len = body.len() as u32;
        let key = self.held.insert(HeldReply::Batch(body));
        let Some(HeldReply::Batch(body)) = self.held.get(key) else { return false };
        let mut copied = body.is_empty();
        let reply = Reply {
            status,
            by_engine: at == VerdictAt::Engine,
            layout,
            flat: &flat,
            metadata: flags.metadata,
            body_len,
            token: REPLY_TOKEN | key,
            copy_body: &mut |out| {
                out.copy_from_slice(body);
                copied = true;
            },
        };
        let accepted = transport.respond(now, call, reply);
        if copied || !accepted {
            self.release_batch(key);
        }
        accepted
    }

    /// Delivers an answer that was held, if anybody still waits for it.
    pub fn respond_held(&mut self, now: u64, token: u64, answer: &Answered) {
        let Answered { status, at, flags, layout, flat, body } = answer;
        if self.outgoing.get(token).is_some() {
            self.on_response(now, token, *status, *at, *flags, *layout, flat, body);
        }
    }

    /// A service ends a stream of another host's, behind everything that it has written. True if it was one.
    fn answer_stream(&mut self, now: u64, id: AppId, submission: &Submission) -> bool {
        let &Submission { status, layout, flat: span, body, call: handle, .. } = submission;
        let Some(Incoming { caller: Caller::Stream, judged, remote: Some(remote), .. }) =
            self.incoming.get_mut(handle)
        else {
            return false;
        };
        if remote.is_answered() {
            // The first answer counts.
            return true;
        }
        let judged = judged.take();
        let mut flat = [0; FLAT_MAX];
        let flat = &mut flat[..span.len as usize];
        let Some(app) = self.apps.get(id.0) else { return true };
        app.port.read(span, 0, flat);
        let mut back = Back { status, layout, flat, body_len: body.len };
        if let Err(ended) = self.judge_back(now, judged, &mut back) {
            let remote = self.remove_incoming(handle).and_then(|call| call.remote);
            self.end_stream(remote, ended);
            self.release(id, handle);
            return true;
        }
        if let Some(Incoming { remote: Some(remote), .. }) = self.incoming.get_mut(handle) {
            remote.finish_response(submission, flat);
        }
        self.list_response(handle);
        true
    }

    /// A reply's room is free again.
    fn release(&mut self, id: AppId, handle: u64) {
        if let Some(app) = self.apps.get_mut(id.0) {
            app.release(handle);
        }
    }

    fn reply_local(&mut self, now: u64, id: AppId, submission: &Submission, outgoing: u64, flat: &mut [u8]) {
        let &Submission { status, flags, layout, body, .. } = submission;
        let Some(call) = self.remove_outgoing(outgoing) else { return };
        let mut back = Back { status, layout, flat, body_len: body.len };
        match self.judge_back(now, call.judged, &mut back) {
            Ok(0) => {}
            Ok(delay_ns) => {
                return match self.answered(id, submission, flat) {
                    Some(answer) => self.hold_response(now, delay_ns, call, answer),
                    None => self.end_here(now, call, crowded()),
                };
            }
            Err(ended) => return self.end_here(now, call, ended),
        }
        let Outgoing { origin: Origin::App { app: caller, cookie, .. }, method, .. } = call else { return };
        let at = decided_by(status);
        let header = DeliveryHeader { flags, ..response(cookie, method, layout, status, at) };
        self.copy_between(id, caller, &header, flat, body, None);
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
        let &Submission { status, flags, layout, body, call: handle, .. } = submission;
        let key = self.held.insert(HeldReply::App { app: id, handle, body });
        let Some(app) = self.apps.get_mut(id.0) else { return };
        let mut copied = body.len == 0;
        let reply = Reply {
            status,
            by_engine: false,
            layout,
            flat,
            metadata: flags.metadata,
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
    /// The front of the body is as it was judged, where it was.
    pub fn copy_between(
        &mut self,
        from: AppId,
        to: AppId,
        header: &DeliveryHeader,
        flat: &[u8],
        body: Span,
        judged: Option<&[u8]>,
    ) {
        if from == to {
            let Some(app) = self.apps.get_mut(to.0) else { return };
            let mut copy = vec![0; body.len as usize];
            app.port.read(body, 0, &mut copy);
            copy_judged(judged, 0, &mut copy);
            return app.deliver(header, flat, &copy);
        }
        let [from, to] = self.apps.get_two_mut(from.0, to.0);
        if let (Some(from), Some(to)) = (from, to) {
            let from: &App = from;
            to.deliver_with(header, flat, body.len as usize, |at, out| {
                from.port.read(body, at, out);
                copy_judged(judged, at, out);
            });
        }
    }
}

/// Where a service's status was decided.
fn decided_by(status: Code) -> VerdictAt {
    if status == Code::Ok { VerdictAt::None } else { VerdictAt::Application }
}
