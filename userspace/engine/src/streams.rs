//! Streams between two applications: messages after the first, credit, ends. How a stream begins and how it ends are
//! those of a call (`outbound`, `inbound`); how it travels between hosts is said in `exchange` and `hosting`.

use crate::apps::{AppId, KnownMethod, response};
use crate::calls::{Caller, Incoming, Origin, Outgoing, Progress};
use crate::core::Core;
use crate::driver::Driver;
use tollfree_ring::{AppOp, DaemonOp, DeliveryHeader, Flags, Submission, VerdictAt};
use tollfree_schema::{Method, Streaming};
use tollfree_transport::Transport;
use tollfree_wire::Code;
use tollfree_wire::header::FLAT_MAX;

/// Streams that one application may have open as a caller.
pub const STREAMS_MAX: usize = 4096;

/// What a well-behaved library never does to a stream, as its caller hears it.
const OVERRUN: &str = "more of the stream was written than there was credit for";

/// One direction of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// The request of the call with this key in `outgoing`.
    Request(u64),
    /// The response of the call with this key in `incoming`.
    Response(u64),
}

impl<D: Driver> Core<D> {
    /// Takes note that the room of the oldest messages of a direction is free.
    pub fn take_room(&mut self, direction: Direction, count: u32) {
        let written = match direction {
            Direction::Request(token) => self.outgoing.get_mut(token).and_then(|call| call.requests.as_mut()),
            Direction::Response(handle) => {
                self.incoming.get_mut(handle).and_then(|call| call.responses.as_mut())
            }
        };
        if let Some(written) = written {
            if written.taken == 0 {
                self.taken.push(direction);
            }
            written.taken += count;
        }
    }

    /// Tells writers, once a turn, whose room is free.
    pub fn tell_taken(&mut self) {
        while let Some(direction) = self.taken.pop() {
            let (app, op, call, written) = match direction {
                Direction::Request(token) => match self.outgoing.get_mut(token) {
                    Some(Outgoing {
                        origin: Origin::App { app, cookie, .. },
                        requests: Some(written),
                        ..
                    }) => (*app, DaemonOp::RequestTaken, *cookie, written),
                    _ => continue,
                },
                Direction::Response(handle) => match self.incoming.get_mut(handle) {
                    Some(Incoming { app, responses: Some(written), .. }) => {
                        (*app, DaemonOp::ResponseTaken, handle, written)
                    }
                    _ => continue,
                },
            };
            let count = std::mem::take(&mut written.taken);
            self.tell_count(app, op, call, count);
        }
    }

    /// Takes a descriptor that concerns a stream.
    pub fn submit_stream(&mut self, now: u64, transport: &mut Transport, id: AppId, submission: &Submission) {
        match submission.op {
            AppOp::RequestMessage | AppOp::RequestEnd | AppOp::ResponseCredit => {
                // The call may have ended while this was under way.
                let Some(app) = self.apps.get(id.0) else { return };
                let Some(&token) = app.streams.get(&submission.call) else { return };
                let done = match submission.op {
                    AppOp::ResponseCredit => self.response_credit(token, submission.count),
                    _ => self.request_message(id, token, submission),
                };
                if let Err((status, why)) = done {
                    self.break_call(now, transport, token, status, &why);
                }
            }
            AppOp::ResponseHead | AppOp::ResponseMessage => {
                let handle = submission.call;
                if let Err((status, why)) = self.response_message(id, handle, submission) {
                    self.break_incoming(now, handle, status, &why);
                }
            }
            AppOp::RequestCredit => self.request_credit(id, submission.call, submission.count),
            AppOp::Call | AppOp::Respond | AppOp::Cancel => {}
        }
    }

    fn request_message(
        &mut self,
        id: AppId,
        token: u64,
        submission: &Submission,
    ) -> Result<(), (Code, String)> {
        let Some(Outgoing { requests: Some(written), .. }) = self.outgoing.get_mut(token) else {
            return Ok(());
        };
        if submission.op == AppOp::RequestEnd {
            if std::mem::replace(&mut written.ended, true) {
                return Ok(());
            }
        } else if !written.add(submission.flat.len + submission.body.len) {
            return Err((Code::ResourceExhausted, OVERRUN.to_owned()));
        }
        self.forward_request(id, token, submission)
    }

    /// Sends a message, or the end, of a streaming request to where its call has gone; keeps it until that is known.
    fn forward_request(
        &mut self,
        id: AppId,
        token: u64,
        submission: &Submission,
    ) -> Result<(), (Code, String)> {
        let Some(Outgoing { requests: Some(written), progress, method, .. }) = self.outgoing.get_mut(token)
        else {
            return Ok(());
        };
        let (progress, method) = (*progress, *method);
        if let Progress::Delayed | Progress::Binding = progress {
            written.early.push(*submission);
            return Ok(());
        }
        match progress {
            Progress::Local { incoming } => {
                let mut flat = [0; FLAT_MAX];
                let flat = &mut flat[..submission.flat.len as usize];
                let Some(app) = self.apps.get(id.0) else { return Ok(()) };
                app.port.read(submission.flat, 0, flat);
                if submission.op == AppOp::RequestMessage
                    && let Some(known) = app.methods.get(&method)
                {
                    known.check_request(submission.layout, flat)?;
                }
                let Some(&Incoming { app: server, .. }) = self.incoming.get(incoming) else { return Ok(()) };
                if submission.op == AppOp::RequestEnd {
                    if let Some(app) = self.apps.get_mut(server.0) {
                        app.deliver(&DeliveryHeader::new(DaemonOp::RequestEnd, incoming), &[], &[]);
                    }
                    return Ok(());
                }
                self.check_message(server, submission)?;
                let header = message(DaemonOp::RequestMessage, incoming, submission);
                self.copy_between(id, server, &header, flat, submission.body, None);
                self.take_room(Direction::Request(token), 1);
            }
            Progress::Sent(_) | Progress::Open => {
                let Some(Outgoing { remote: Some(remote), .. }) = self.outgoing.get_mut(token) else {
                    return Ok(());
                };
                match submission.op {
                    AppOp::RequestEnd => remote.finish_request(),
                    _ => remote.push(submission)?,
                }
                self.list_request(token);
            }
            Progress::Dropped(_) | Progress::Delayed | Progress::Binding => {}
        }
        Ok(())
    }

    /// Sends on what was written before it was known where to.
    pub fn send_early(&mut self, id: AppId, token: u64) {
        let Some(Outgoing { requests: Some(written), .. }) = self.outgoing.get_mut(token) else { return };
        for submission in std::mem::take(&mut written.early) {
            if let Err((status, why)) = self.forward_request(id, token, &submission) {
                self.broken.push((token, status, why));
                return;
            }
        }
    }

    /// The caller has consumed messages of the response: its callee may write as many more.
    fn response_credit(&mut self, token: u64, count: u32) -> Result<(), (Code, String)> {
        match self.outgoing.get(token).map(|call| call.progress) {
            Some(Progress::Local { incoming }) => {
                let Some(Incoming { app, responses: Some(written), .. }) = self.incoming.get_mut(incoming)
                else {
                    return Ok(());
                };
                let (app, count) = (*app, written.credit(count));
                self.tell_count(app, DaemonOp::ResponseCredit, incoming, count);
            }
            Some(Progress::Sent(_) | Progress::Open) => {
                if let Some(Outgoing { remote: Some(remote), .. }) = self.outgoing.get_mut(token) {
                    remote.consume(count);
                }
                self.list_request(token);
            }
            Some(Progress::Delayed | Progress::Binding | Progress::Dropped(_)) | None => {}
        }
        Ok(())
    }

    fn response_message(
        &mut self,
        id: AppId,
        handle: u64,
        submission: &Submission,
    ) -> Result<(), (Code, String)> {
        let call = self.incoming.get_mut(handle).filter(|call| call.app == id);
        let Some(Incoming { responses: Some(written), caller, .. }) = call else { return Ok(()) };
        if !written.add(submission.flat.len + submission.body.len) {
            return Err((Code::Internal, OVERRUN.to_owned()));
        }
        let op = match submission.op {
            AppOp::ResponseHead => DaemonOp::ResponseHead,
            _ => DaemonOp::ResponseMessage,
        };
        match *caller {
            Caller::Local { outgoing } => {
                let Some(&Outgoing { origin: Origin::App { app, cookie, .. }, .. }) =
                    self.outgoing.get(outgoing)
                else {
                    return Ok(());
                };
                let mut flat = [0; FLAT_MAX];
                let flat = &mut flat[..submission.flat.len as usize];
                if let Some(app) = self.apps.get(id.0) {
                    app.port.read(submission.flat, 0, flat);
                }
                self.check_message(app, submission)?;
                self.copy_between(id, app, &message(op, cookie, submission), flat, submission.body, None);
                self.take_room(Direction::Response(handle), 1);
            }
            Caller::Stream => {
                if let Some(Incoming { remote: Some(remote), .. }) = self.incoming.get_mut(handle) {
                    remote.push(submission)?;
                }
                self.list_response(handle);
            }
            // Its method does not stream.
            Caller::Remote(_) => {}
        }
        Ok(())
    }

    /// The callee has consumed messages of the request: its caller may write as many more.
    fn request_credit(&mut self, id: AppId, handle: u64, count: u32) {
        let Some(call) = self.incoming.get(handle).filter(|call| call.app == id) else { return };
        match call.caller {
            Caller::Local { outgoing } => {
                let Some(Outgoing {
                    origin: Origin::App { app, cookie, .. }, requests: Some(written), ..
                }) = self.outgoing.get_mut(outgoing)
                else {
                    return;
                };
                let (app, cookie, count) = (*app, *cookie, written.credit(count));
                self.tell_count(app, DaemonOp::RequestCredit, cookie, count);
            }
            Caller::Stream => {
                if let Some(Incoming { remote: Some(remote), .. }) = self.incoming.get_mut(handle) {
                    remote.consume(count);
                }
                self.list_response(handle);
            }
            Caller::Remote(_) => {}
        }
    }

    pub fn tell_count(&mut self, id: AppId, op: DaemonOp, call: u64, count: u32) {
        if count > 0
            && let Some(app) = self.apps.get_mut(id.0)
        {
            app.deliver(&DeliveryHeader { count, ..DeliveryHeader::new(op, call) }, &[], &[]);
        }
    }

    fn check_message(&self, reader: AppId, submission: &Submission) -> Result<(), (Code, String)> {
        self.apps.get(reader.0).map_or(Ok(()), |app| app.check_message(submission.body.len as usize))
    }

    /// Ends a call of an application here that can't go on.
    pub fn break_call(&mut self, now: u64, transport: &mut Transport, token: u64, status: Code, why: &str) {
        match self.outgoing.get(token).map(|call| call.progress) {
            Some(Progress::Binding) => self.bindings.withdraw(token),
            Some(Progress::Sent(handle)) => transport.cancel(now, handle),
            Some(Progress::Local { incoming }) => self.tell_cancelled(now, incoming, status),
            Some(Progress::Open | Progress::Delayed | Progress::Dropped(_)) | None => {}
        }
        self.cancel_remote(token);
        self.fail(now, token, status, VerdictAt::Engine, why);
    }

    /// Has the server forget the stream of a call made here, where there is one.
    pub fn cancel_remote(&mut self, token: u64) {
        if let Some(Outgoing { remote: Some(remote), .. }) = self.outgoing.get(token) {
            self.exchanges.cancel(remote.link, remote.stream);
        }
    }

    /// Ends a call that an application here serves and that can't go on.
    pub fn break_incoming(&mut self, now: u64, handle: u64, status: Code, why: &str) {
        self.dismiss(handle);
        self.give_up(now, handle, status, why);
    }

    /// What is to know of a call's first message, checked against what the method is.
    pub fn opening_flags(
        &self,
        id: AppId,
        known: &KnownMethod,
        submission: &Submission,
    ) -> Result<Flags, (Code, String)> {
        let Method { streaming, ref path, .. } = known.method;
        let Flags { metadata, last, bare } = submission.flags;
        let requests_stream = matches!(streaming, Streaming::Client | Streaming::Bidirectional);
        if bare && !(requests_stream && last && submission.flat.len == 0) {
            let why = format!("a call of {path} without a message must end its streaming request at once");
            return Err((Code::InvalidArgument, why));
        }
        if let Some(app) = self.apps.get(id.0).filter(|_| !streaming.is_unary()) {
            if app.streams.contains_key(&submission.call) {
                let why = format!("a call of {path} has the cookie of a stream that is open");
                return Err((Code::InvalidArgument, why));
            }
            if app.streams.len() >= STREAMS_MAX {
                let why = format!("{} has {STREAMS_MAX} streams open; end some first", app.name);
                return Err((Code::ResourceExhausted, why));
            }
        }
        Ok(Flags { metadata, last: last || !requests_stream, bare })
    }

    /// Takes a call into the books.
    pub fn insert_outgoing(&mut self, call: Outgoing) -> u64 {
        let stream = match call.origin {
            Origin::App { app, cookie, .. } if call.requests.is_some() => Some((app, cookie)),
            _ => None,
        };
        let token = self.outgoing.insert(call);
        if let Some((app, cookie)) = stream
            && let Some(app) = self.apps.get_mut(app.0)
        {
            app.streams.insert(cookie, token);
        }
        token
    }

    /// Takes a call out of the books.
    pub fn remove_outgoing(&mut self, token: u64) -> Option<Outgoing> {
        let call = self.outgoing.remove(token)?;
        if let Some(remote) = &call.remote {
            self.exchanges.kept -= remote.kept();
            match call.progress {
                Progress::Open => self.exchanges.closed(remote.link),
                // Its end has overtaken the word that it has begun.
                Progress::Sent(handle) => self.abandoned.push(handle),
                _ => {}
            }
        }
        if let Origin::App { app, cookie, .. } = call.origin
            && call.requests.is_some()
            && let Some(app) = self.apps.get_mut(app.0)
        {
            app.streams.remove(&cookie);
        }
        Some(call)
    }
}

/// The header of a stream's message.
fn message(op: DaemonOp, call: u64, submission: &Submission) -> DeliveryHeader {
    let &Submission { flags, layout, method, .. } = submission;
    DeliveryHeader { op, flags, ..response(call, method, layout, Code::Ok, VerdictAt::None) }
}
