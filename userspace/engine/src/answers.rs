//! Services' answers on their way back: judged, then to the transport, to a stream, or to an application on this host.

use crate::apps::{App, AppId, response};
use crate::body::copy_judged;
use crate::calls::{Caller, HeldReply, Incoming, Origin, Outgoing, REPLY_TOKEN};
use crate::core::{Core, Refusal};
use crate::driver::Driver;
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
        let Incoming { caller, judged, .. } = call;
        let mut back = Back { status, layout, flat, body_len: body.len };
        let ended = self.judge_back(now, judged, &mut back).err();
        match (caller, ended) {
            (Caller::Stream, _) => {}
            (Caller::Remote(call), None) => self.reply_remote(now, transport, id, submission, call, flat),
            (Caller::Remote(call), Some(ended)) => {
                self.refusals.push(Refusal { call, ended });
                self.release(id, handle);
            }
            (Caller::Local { outgoing }, None) => {
                self.reply_local(now, id, submission, outgoing, flat);
                self.release(id, handle);
            }
            (Caller::Local { outgoing }, Some(ended)) => {
                self.fail_as(now, outgoing, ended);
                self.release(id, handle);
            }
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
        if let Err(ended) = self.judge_back(now, call.judged, &mut back) {
            return self.end_here(now, call, ended);
        }
        let Outgoing { origin: Origin::App { app: caller, cookie, .. }, method, .. } = call else { return };
        let at = if status == Code::Ok { VerdictAt::None } else { VerdictAt::Application };
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
