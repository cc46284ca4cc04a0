//! Streams to and from other hosts: frames in control calls of the client (WIRE.md §13). A client pushes frames, one call
//! at a time, and keeps one call at the server that asks for some.

use crate::apps::AppId;
use crate::calls::{Caller, HeldReply, Incoming, Origin, Outgoing, Progress, REPLY_TOKEN};
use crate::core::{Core, Refusal};
use crate::driver::Driver;
use crate::frames::{Frame, FrameKind, Remote, Wants, control, read_control};
use crate::verdict::Ended;
use tollfree_ring::{DaemonOp, DeliveryHeader, Flags, Submission};
use tollfree_transport::{IncomingCall, IncomingRequest, NewCall, Reply, Transport};
use tollfree_wire::header::METHOD_CONTROL;
use tollfree_wire::{Code, Metadata};

/// What breaks a stream to a peer that does not keep to the protocol.
const BROKEN: &str = "the peer's stream breaks the protocol";

impl<D: Driver> Core<D> {
    /// A control call of a peer, if it is about a stream.
    pub fn on_stream_control(&mut self, now: u64, request: &IncomingRequest<'_>) -> bool {
        let &IncomingRequest { call, peer, body, .. } = request;
        let Some(asked) = read_control(body) else { return false };
        let ended = match asked {
            None => Some((Code::InvalidArgument, BROKEN)),
            Some((wants, stream, frames)) => match self.peer_streams.get(&(peer, stream)).copied() {
                None => Some((Code::NotFound, "")),
                Some(handle) => match wants {
                    Wants::Pull => self.on_pull(handle, call),
                    Wants::Push => {
                        if self.on_requests(handle, frames).is_none() {
                            self.break_incoming(now, handle, Code::Internal, BROKEN);
                        }
                        Some((Code::Ok, ""))
                    }
                },
            },
        };
        if let Some((status, why)) = ended {
            self.refusals.push(Refusal { call, ended: Ended::Status(status, why.to_owned()) });
        }
        true
    }

    /// The client asks for frames, and has those it was sent before.
    fn on_pull(&mut self, handle: u64, call: IncomingCall) -> Option<(Code, &'static str)> {
        let Some(Incoming { remote: Some(remote), .. }) = self.incoming.get_mut(handle) else {
            return Some((Code::NotFound, ""));
        };
        remote.unconfirmed = false;
        let before = remote.asked.replace(call);
        if let Some(call) = before {
            self.refusals.push(Refusal { call, ended: Ended::Status(Code::Aborted, String::new()) });
        }
        self.relays.push(Relay::Answer(handle));
        None
    }

    /// Frames of a request. `None`: they cannot be.
    fn on_requests(&mut self, handle: u64, mut frames: &[u8]) -> Option<()> {
        while !frames.is_empty() {
            let (frame, rest) = Frame::split(frames)?;
            frames = rest;
            let Incoming { app, method, remote: Some(remote), responses: Some(written), .. } =
                self.incoming.get_mut(handle)?
            else {
                return None;
            };
            let (id, method) = (*app, *method);
            let app = self.apps.get_mut(id.0)?;
            match frame.kind {
                FrameKind::Message => {
                    let len = (frame.flat.len() + frame.body.len()) as u32;
                    let sound = frame.body.len() <= app.port.largest_body()
                        && app.methods.get(&method)?.method.request.validate(frame.flat).is_ok();
                    if !sound || frame.metadata || !remote.arrived.add(len) {
                        return None;
                    }
                    let op = DaemonOp::RequestMessage;
                    let header =
                        DeliveryHeader { method, layout: frame.layout, ..DeliveryHeader::new(op, handle) };
                    app.deliver(&header, frame.flat, frame.body);
                }
                FrameKind::End => {
                    if std::mem::replace(&mut remote.arrived.ended, true) {
                        return None;
                    }
                    app.deliver(&DeliveryHeader::new(DaemonOp::RequestEnd, handle), &[], &[]);
                }
                FrameKind::Credit => {
                    let count = written.credit(frame.count);
                    self.tell_count(id, DaemonOp::ResponseCredit, handle, count);
                }
                FrameKind::ResponseHead => return None,
            }
        }
        Some(())
    }

    /// Frames of a response. `None`: they cannot be.
    fn on_responses(&mut self, token: u64, mut frames: &[u8]) -> Option<()> {
        while !frames.is_empty() {
            let (frame, rest) = Frame::split(frames)?;
            frames = rest;
            let Outgoing {
                origin: Origin::App { app, cookie, .. },
                method,
                remote: Some(remote),
                requests: Some(written),
                ..
            } = self.outgoing.get_mut(token)?
            else {
                return None;
            };
            let (id, cookie) = (*app, *cookie);
            let op = match frame.kind {
                FrameKind::Message => DaemonOp::ResponseMessage,
                FrameKind::ResponseHead => DaemonOp::ResponseHead,
                FrameKind::Credit => {
                    let count = written.credit(frame.count);
                    self.tell_count(id, DaemonOp::RequestCredit, cookie, count);
                    continue;
                }
                FrameKind::End => return None,
            };
            let app = self.apps.get_mut(id.0)?;
            let len = (frame.flat.len() + frame.body.len()) as u32;
            let sound =
                !frame.metadata || (op == DaemonOp::ResponseHead && Metadata::split(frame.body).is_ok());
            if !sound || frame.body.len() > app.port.largest_body() || !remote.arrived.add(len) {
                return None;
            }
            let flags = Flags { metadata: frame.metadata, ..Flags::default() };
            let (method, layout) = (*method, frame.layout);
            let header = DeliveryHeader { flags, method, layout, ..DeliveryHeader::new(op, cookie) };
            app.deliver(&header, frame.flat, frame.body);
        }
        Some(())
    }

    /// A push or a pull of an application's stream has been answered.
    pub fn on_relayed(&mut self, token: u64, wants: Wants, status: Code, body: &[u8]) {
        let Some(Outgoing { remote: Some(remote), .. }) = self.outgoing.get_mut(token) else { return };
        match (wants, status) {
            (Wants::Push, _) => remote.push = None,
            (Wants::Pull, _) => remote.pull = None,
        }
        match (wants, status) {
            (Wants::Push, Code::Ok) => {
                remote.pushed.clear();
                self.relays.push(Relay::Pump(token));
            }
            (Wants::Pull, Code::Ok) => match self.on_responses(token, body) {
                Some(()) => self.relays.push(Relay::Pump(token)),
                None => self.broken.push((token, Code::Internal, BROKEN.to_owned())),
            },
            // It has come before the call that opens the stream, or after the one that ended it: that will be heard.
            (_, Code::NotFound) => self.retries.push(token),
            // The call itself will say what has become of it where the peer is gone; where not, the stream can't go on.
            (_, status) => {
                let why = "the stream's messages can no longer be carried".to_owned();
                self.broken.push((token, status, why));
            }
        }
    }

    /// Tries again what came too early.
    pub fn retry_relays(&mut self) {
        let retries = std::mem::take(&mut self.retries);
        self.relays.extend(retries.into_iter().map(Relay::Pump));
    }

    /// Carries frames, as far as there is anything new.
    pub fn relay(&mut self, now: u64, transport: &mut Transport) {
        for call in std::mem::take(&mut self.abandoned) {
            transport.cancel(now, call);
        }
        while let Some(relay) = self.relays.pop() {
            match relay {
                Relay::Pump(token) => self.pump(now, transport, token),
                Relay::Answer(handle) => self.answer_pull(now, transport, handle),
            }
        }
    }

    /// Pushes what there is, and sees to it that the server is asked for more.
    fn pump(&mut self, now: u64, transport: &mut Transport, token: u64) {
        let Some(call) = self.outgoing.get_mut(token) else { return };
        let (Progress::Sent(_), Some(remote), Some(key)) = (call.progress, &mut call.remote, call.binding)
        else {
            return;
        };
        let (deadline_ns, stream) = (call.deadline_ns, remote.stream);
        let pulls = remote.pull.is_none();
        let pushes = remote.push.is_none() && (remote.has_pending() || !remote.pushed.is_empty());
        if pushes && remote.pushed.is_empty() {
            remote.pushed = control(Wants::Push, stream);
            let mut pushed = std::mem::take(&mut remote.pushed);
            remote.fill(&mut pushed);
            remote.pushed = pushed;
        }
        let pushed_len = remote.pushed.len();
        for (wants, wanted, body_len) in
            [(Wants::Push, pushes, pushed_len), (Wants::Pull, pulls, control(Wants::Pull, stream).len())]
        {
            if !wanted {
                continue;
            }
            let carrier = self.outgoing.insert(Outgoing {
                origin: Origin::Relay { stream: token, wants },
                method: METHOD_CONTROL,
                flags: Flags::default(),
                deadline_ns,
                binding: None,
                progress: Progress::Binding,
                judged: None,
                requests: None,
                remote: None,
            });
            let call = NewCall {
                method: METHOD_CONTROL,
                layout: 0,
                flat: &[],
                metadata: false,
                body_len: body_len as u32,
                deadline_ns,
                token: carrier,
            };
            let handle = transport.call(now, key.peer, call);
            if let Some(call) = self.outgoing.get_mut(carrier) {
                call.progress = Progress::Sent(handle);
            }
            if let Some(Outgoing { remote: Some(remote), .. }) = self.outgoing.get_mut(token) {
                match wants {
                    Wants::Push => remote.push = Some((carrier, handle)),
                    Wants::Pull => remote.pull = Some((carrier, handle)),
                }
            }
        }
    }

    /// Answers a client that asks for frames, if there are any; ends the stream once all have arrived.
    fn answer_pull(&mut self, now: u64, transport: &mut Transport, handle: u64) {
        let Some(Incoming { app, remote: Some(remote), .. }) = self.incoming.get_mut(handle) else { return };
        let id = *app;
        if remote.is_confirmed() {
            if let Some(finish) = remote.finish.take() {
                self.submit_reply(now, transport, id, &finish);
            }
            return;
        }
        if !remote.has_pending() {
            return;
        }
        let Some(call) = remote.asked.take() else { return };
        let mut batch = Vec::new();
        remote.fill(&mut batch);
        remote.unconfirmed = true;
        let body_len = batch.len() as u32;
        let key = self.held.insert(HeldReply::Batch(batch));
        let Some(HeldReply::Batch(batch)) = self.held.get(key) else { return };
        let mut copied = false;
        let reply = Reply {
            status: Code::Ok,
            by_engine: true,
            layout: 0,
            flat: &[],
            metadata: false,
            body_len,
            token: REPLY_TOKEN | key,
            copy_body: &mut |out| {
                out.copy_from_slice(batch);
                copied = true;
            },
        };
        let accepted = transport.respond(now, call, reply);
        if copied || !accepted {
            self.held.remove(key);
        }
    }

    /// Holds an application's answer back until all frames before it have arrived. True if it has to wait.
    pub fn hold_finish(&mut self, id: AppId, submission: &Submission) -> bool {
        let handle = submission.call;
        let call = self.incoming.get_mut(handle).filter(|call| call.app == id);
        let Some(Incoming { remote: Some(remote), .. }) = call else { return false };
        if remote.is_confirmed() {
            return false;
        }
        // The first answer counts.
        remote.finish.get_or_insert(*submission);
        self.relays.push(Relay::Answer(handle));
        true
    }

    /// Takes a call that is served here out of the books.
    pub fn remove_incoming(&mut self, handle: u64) -> Option<Incoming> {
        let mut call = self.incoming.remove(handle)?;
        if let (Some(remote), Caller::Remote(_)) = (&mut call.remote, call.caller) {
            self.peer_streams.retain(|_, other| *other != handle);
            if let Some(asked) = remote.asked.take() {
                self.refusals
                    .push(Refusal { call: asked, ended: Ended::Status(Code::NotFound, String::new()) });
            }
            if remote.finish.take().is_some()
                && let Some(app) = self.apps.get_mut(call.app.0)
            {
                app.release(handle);
            }
        }
        Some(call)
    }
}

/// What a stream to another host has to do.
#[derive(Clone, Copy, Debug)]
pub enum Relay {
    /// Push frames of the request of the call with this key in `outgoing`, and ask for frames of its response.
    Pump(u64),
    /// Answer the client of the call with this key in `incoming`.
    Answer(u64),
}

impl Remote {
    /// Whether everything that was sent has arrived.
    fn is_confirmed(&self) -> bool {
        !self.unconfirmed && !self.has_pending()
    }
}
