//! Calls that arrive: agreeing on layouts, judging, handing to a service. Their way back is in `answers`.

use crate::apps::AppId;
use crate::calls::{Caller, Incoming, REPLY_TOKEN};
use crate::clients::WHY_MAX;
use crate::command::Side;
use crate::core::{Core, Refusal};
use crate::delay::{Arrived, Held};
use crate::driver::Driver;
use crate::frames::{self, Head};
use crate::remote::Remote;
use crate::verdict::{Asked, Ended, Passed};
use crate::window::Written;
use tollfree_ring::{DaemonOp, DeliveryHeader, Flags};
use tollfree_schema::{BindRequest, Compat};
use tollfree_transport::{IncomingCall, IncomingRequest, Reply, Transport};
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAT_MAX, METHOD_CONTROL, NO_DEADLINE};
use tollfree_wire::maps::LayoutKey;
use tollfree_wire::{Code, Metadata, Reason};
use tracing::{info, warn};

/// What a caller reads whose call took longer than a policy allows.
pub const TOO_LATE: &str = "the deadline, or the time that a policy allows, passed before an answer came";

/// A judged request from another host.
struct Request<'a> {
    call: IncomingCall,
    method: u32,
    layout: u32,
    deadline_ns: u64,
    /// The deadline is a policy's.
    capped: bool,
    flat: &'a [u8],
    flags: Flags,
    /// The stream that it opens: whose, and its client's number.
    stream: Option<(u64, u64)>,
    body: &'a [u8],
    judged: Option<u64>,
}

impl<D: Driver> Core<D> {
    /// A request from another host.
    pub fn on_request(&mut self, now: u64, request: &IncomingRequest<'_>) {
        let call = request.call;
        if request.method == METHOD_CONTROL {
            if self.on_exchange(now, request) {
                return;
            }
            let ended = self.on_bind(request.peer, request.body).into();
            self.refusals.push(Refusal { call, ended });
        } else if let Err(ended) = self.take(now, request) {
            self.refusals.push(Refusal { call, ended });
        }
    }

    /// Judges a request, and serves it or holds it.
    fn take(&mut self, now: u64, request: &IncomingRequest<'_>) -> Result<(), Ended> {
        let &IncomingRequest { call, session, method, layout, deadline_ns, judged, flat, metadata, .. } =
            request;
        let id = self.server_of(method)?;
        if self.apps.get(id.0).is_some_and(|app| !app.has_room()) {
            // Before it is judged: it will be when it comes again.
            self.deferred.push(call);
            return Ok(());
        }
        let known = self.check_flat(id, request)?;
        let (stream, last, bare, body) = self.stream_head(now, id, request)?;
        let flags = Flags { metadata, last, bare };
        let metadata = match metadata {
            true => Metadata::split(body).map_err(|bad| (Code::InvalidArgument, bad.to_string()))?.0,
            false => Metadata::default(),
        };
        let arrival = self.server_gate.arrival(judged);
        let mut copy = [0; FLAT_MAX];
        let copy = &mut copy[..flat.len()];
        copy.copy_from_slice(flat);
        let asked = Asked {
            side: Side::Server,
            method,
            layout: known,
            flat: copy,
            body_len: body.len() as u32,
            deadline_ns,
            session: Some(session),
            metadata,
        };
        let passed = self.judge(now, arrival, asked)?;
        let Passed { judged, delay_ns, deadline_ns: ends_ns } = passed;
        let capped = ends_ns < deadline_ns;
        let request = Request {
            call,
            method,
            layout,
            deadline_ns: ends_ns,
            capped,
            flat: copy,
            flags,
            stream,
            body,
            judged,
        };
        if delay_ns == 0 {
            return self.serve(now, &request);
        }
        if !self.delayed.has_room(copy.len() + body.len()) {
            return Err(self.end_back(now, judged, crowded()));
        }
        let Request { flat, body, .. } = request;
        let (flat, body) = (flat.to_vec(), body.to_vec());
        let arrived =
            Arrived { call, method, layout, deadline_ns: ends_ns, capped, flat, flags, stream, body, judged };
        self.delayed.hold(now.saturating_add(delay_ns), Held::Arrived(Box::new(arrived)));
        Ok(())
    }

    /// What a request of a method that streams says of its stream, whether it is the last or no message at all, and the
    /// body behind.
    #[expect(clippy::type_complexity, reason = "the parts of one head")]
    fn stream_head<'a>(
        &mut self,
        now: u64,
        id: AppId,
        request: &IncomingRequest<'a>,
    ) -> Result<(Option<(u64, u64)>, bool, bool, &'a [u8]), (Code, String)> {
        let &IncomingRequest { method, body, .. } = request;
        let known = self.apps.get(id.0).and_then(|app| app.methods.get(&method));
        let Some(known) = known.filter(|known| !known.method.streaming.is_unary()) else {
            return Ok((None, true, false, body));
        };
        let malformed =
            || (Code::InvalidArgument, format!("the head of a stream of {} is malformed", known.method.path));
        let (head, body) = Head::split(body).ok_or_else(malformed)?;
        let link = self.client_of(now, request, head)?;
        Ok((Some((link, head.stream)), head.flags & frames::LAST != 0, head.flags & frames::BARE != 0, body))
    }

    /// Hands a judged request to a service.
    fn serve(&mut self, now: u64, request: &Request<'_>) -> Result<(), Ended> {
        let &Request { call, method, layout, deadline_ns, capped, flat, flags, stream, body, judged } =
            request;
        let admitted = self.server_of(method).and_then(|id| self.admit(id, body.len()).map(|()| id));
        let id = match admitted {
            Ok(id) => id,
            Err(refused) => return Err(self.end_back(now, judged, refused.into())),
        };
        if stream.is_some_and(|(link, stream)| self.exchanges.served.is_forbidden(link, stream)) {
            let ended = Ended::Status(Code::Cancelled, "the caller no longer waits".to_owned());
            return Err(self.end_back(now, judged, ended));
        }
        // A stream's call is answered when it opens: it is here that its deadline ends it.
        let ends_ns = (capped || (stream.is_some() && deadline_ns != u64::MAX)).then_some(deadline_ns);
        self.capped += usize::from(ends_ns.is_some());
        let handle = self.incoming.insert(Incoming {
            app: id,
            method,
            caller: if stream.is_some() { Caller::Stream } else { Caller::Remote(call) },
            judged,
            ends_ns,
            responses: stream.map(|_| Box::default()),
            remote: stream.map(|(link, stream)| {
                let arrived = Written::after_first((flat.len() + body.len()) as u32, flags.last);
                Remote::new(link, stream, arrived)
            }),
        });
        if let Some((link, stream)) = stream
            && let Some(before) = self.exchanges.served.open(link, stream, handle, call, flags.last)
        {
            // No library and no engine of ours does that: numbers are not used twice.
            self.tell_cancelled(now, before, Code::Cancelled);
        }
        if let Some(app) = self.apps.get_mut(id.0) {
            app.deliver(&request_header(handle, method, flags, layout, deadline_ns, now), flat, body);
        }
        Ok(())
    }

    /// Goes on with a request that was held.
    pub fn serve_held(&mut self, now: u64, arrived: &Arrived) {
        let &Arrived { call, method, layout, deadline_ns, capped, ref flat, flags, stream, ref body, judged } =
            arrived;
        let request =
            Request { call, method, layout, deadline_ns, capped, flat, flags, stream, body, judged };
        let served = if deadline_ns <= now {
            Err(self.end_back(now, judged, expired()))
        } else {
            self.serve(now, &request)
        };
        if let Err(ended) = served {
            self.refusals.push(Refusal { call, ended });
        }
    }

    /// Ends calls that take longer than a policy allows.
    pub fn expire_served(&mut self, now: u64) {
        if self.capped == 0 {
            return;
        }
        let over = |call: &Incoming| call.ends_ns.is_some_and(|ends_ns| ends_ns <= now);
        for handle in self.incoming.keys_where(over) {
            self.dismiss(handle);
            self.give_up(now, handle, Code::DeadlineExceeded, TOO_LATE);
        }
        self.capped = self.incoming.iter().filter(|(_, call)| call.ends_ns.is_some()).count();
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
            let why = format!("the request has {body_len} bytes; {}'s rings take {largest}", app.name);
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
        for call in self.deferred.drain(..) {
            if !transport.defer(now, call) {
                let why = "the service does not keep up with its calls".to_owned();
                self.refusals.push(Refusal { call, ended: Ended::Status(Code::ResourceExhausted, why) });
            }
        }
        for Refusal { call, ended } in self.refusals.drain(..) {
            let (status, layout, flat, why) = match &ended {
                Ended::Dropped => {
                    transport.ignore(call);
                    continue;
                }
                Ended::Status(status, why) => (*status, 0, &[][..], why.as_str()),
                Ended::Answer(answer) => (Code::Ok, answer.layout, answer.flat(), ""),
            };
            // One packet's worth: nobody holds these texts until a longer one is acknowledged.
            let mut end = why.len().min(WHY_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            let why = &why[..end];
            let reply = Reply {
                status,
                by_engine: true,
                layout,
                flat,
                metadata: false,
                body_len: why.len() as u32,
                token: REPLY_TOKEN | u64::MAX,
                copy_body: &mut |out| out.copy_from_slice(why.as_bytes()),
            };
            transport.respond(now, call, reply);
        }
    }
}

/// How a call ends that there is no room to hold.
pub fn crowded() -> Ended {
    Ended::Status(Code::ResourceExhausted, "a policy holds too many calls already".to_owned())
}

/// How a call ends that was held for too long.
pub fn expired() -> Ended {
    Ended::Status(Code::DeadlineExceeded, "the deadline passed while a policy held the call".to_owned())
}

/// The header of a delivered request: what is left of the deadline travels on.
pub fn request_header(
    handle: u64,
    method: u32,
    flags: Flags,
    layout: u32,
    deadline_ns: u64,
    now: u64,
) -> DeliveryHeader {
    let deadline_us = match deadline_ns {
        u64::MAX => NO_DEADLINE,
        deadline => u32::try_from(deadline.saturating_sub(now) / 1000).unwrap_or(NO_DEADLINE - 1),
    };
    DeliveryHeader { method, flags, layout, deadline_us, ..DeliveryHeader::new(DaemonOp::Request, handle) }
}
