//! The applications attached to this engine: their rings, the methods they know, what waits for them.

use crate::command::{Attach, Gone, Reply};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tollfree_ring::daemon::Port;
use tollfree_ring::{DaemonOp, DeliveryHeader, VerdictAt};
use tollfree_schema::Method;
use tollfree_wire::Code;

/// Names an attached application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppId(pub(crate) u64);

/// Requests that may wait for room in one application's ring; further ones wait where they come from, so that a stuck service
/// costs this host a bounded amount of memory.
const BACKLOG_MAX: usize = 1024;
/// Deliveries of any kind that may wait before nothing more is taken from an application: what it asks for comes back as
/// deliveries.
const OWED_MAX: usize = 4 * BACKLOG_MAX;
/// Bytes of messages that may wait for room beside one application's ring, at least; else as many as the room for long
/// messages has.
const BACKLOG_BYTES: usize = 32 << 20;
/// A body up to this length may wait in any case, in bytes: statuses are never lost.
const TEXT_MAX: usize = 1024;

/// A method as one application knows it.
#[derive(Debug)]
pub struct KnownMethod {
    /// The method with its layouts.
    pub method: Method,
    /// Full name of its service.
    pub service: Arc<str>,
}

impl KnownMethod {
    /// Checks a flat block that an application writes in its request.
    pub fn check_request(&self, layout: u32, flat: &[u8]) -> Result<(), (Code, String)> {
        let request = &self.method.request;
        if request.fingerprint != layout || usize::from(request.flat_len) != flat.len() {
            let path = &self.method.path;
            let why = format!("the flat block of {path} is not in the layout the application attached with");
            return Err((Code::InvalidArgument, why));
        }
        request.validate(flat).map_err(|malformed| (Code::InvalidArgument, malformed.to_string()))
    }
}

/// A delivery that found the ring full.
struct Waiting {
    header: DeliveryHeader,
    flat: Vec<u8>,
    body: Vec<u8>,
}

/// One attached application.
pub struct App {
    pub port: Port,
    pub name: String,
    pub pid: u32,
    pub serves: Vec<String>,
    pub methods: HashMap<u32, Arc<KnownMethod>>,
    pub calls_made: u64,
    pub calls_served: u64,
    /// The keys, in the table of outgoing calls, of the streams it has opened, by cookie.
    pub streams: HashMap<u64, u64>,
    /// Its process is gone; the rings stay mapped until the transport has sent the last long reply from them.
    pub detached: bool,
    /// Long replies that the transport still sends from its region.
    pub held_replies: usize,
    /// Calls of applications on this host that wait until it can take them.
    pub awaited_by: usize,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    unpublished: bool,
    on_gone: Option<Reply<Gone>>,
}

impl App {
    pub fn new(attach: Attach) -> App {
        let Attach { port, name, pid, manifest, serves, on_gone } = attach;
        let mut methods = HashMap::new();
        for service in manifest.services {
            let service_name: Arc<str> = service.name.into();
            for method in service.methods {
                let known = KnownMethod { method, service: service_name.clone() };
                methods.insert(known.method.id, Arc::new(known));
            }
        }
        App {
            port,
            name,
            pid,
            serves,
            methods,
            calls_made: 0,
            calls_served: 0,
            streams: HashMap::new(),
            detached: false,
            held_replies: 0,
            awaited_by: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            unpublished: false,
            on_gone: Some(on_gone),
        }
    }

    /// Whether another request may be queued for this application.
    pub fn has_room(&self) -> bool {
        self.backlog.len() < BACKLOG_MAX && self.backlog_bytes < self.backlog_bytes_max()
    }

    /// Whether a message that nobody can hold back may be queued for this application. It may not where that does not read
    /// what it has asked for.
    pub fn takes(&self, len: usize) -> bool {
        len <= TEXT_MAX || self.backlog_bytes + len <= self.backlog_bytes_max()
    }

    /// Checks that a stream's message can be delivered.
    pub fn check_message(&self, len: usize) -> Result<(), (Code, String)> {
        let largest = self.port.largest_body();
        let why = if len > largest {
            format!("a message of the stream has {len} bytes; {}'s rings take {largest}", self.name)
        } else if !self.takes(len) {
            format!("{} does not keep up with its streams", self.name)
        } else {
            return Ok(());
        };
        Err((Code::ResourceExhausted, why))
    }

    /// Whether anything may be taken from this application.
    pub fn keeps_up(&self) -> bool {
        self.backlog.len() < OWED_MAX
    }

    fn backlog_bytes_max(&self) -> usize {
        BACKLOG_BYTES.max(self.port.geometry().long_bytes as usize)
    }

    /// Deliveries waiting for room in the ring.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Hands a message over, or keeps it until there is room. Order is kept.
    pub fn deliver(&mut self, header: &DeliveryHeader, flat: &[u8], body: &[u8]) {
        self.deliver_with(header, flat, body.len(), |at, out| copy_part(body, at, out));
    }

    /// Like [`App::deliver`], with the body written straight into the application's region by `fill`, from a place on.
    pub fn deliver_with(
        &mut self,
        header: &DeliveryHeader,
        flat: &[u8],
        body_len: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) {
        if self.detached {
            return;
        }
        let largest = self.port.largest_body();
        if body_len > largest {
            let why = format!("the response has {body_len} bytes; this application's rings take {largest}");
            return self.refuse(header, &why);
        }
        if self.backlog.is_empty() && self.port.deliver(header, flat, &mut fill, body_len).is_ok() {
            self.unpublished = true;
            return;
        }
        if header.op == DaemonOp::Response && !self.takes(body_len) {
            let why = "this application does not read the responses that it has asked for";
            return self.refuse(header, why);
        }
        let mut body = vec![0; body_len];
        fill(0, &mut body);
        self.backlog_bytes += body.len();
        self.backlog.push_back(Waiting { header: *header, flat: flat.to_vec(), body });
    }

    /// A response that cannot be delivered ends its call with a status. Requests and messages are checked before.
    fn refuse(&mut self, header: &DeliveryHeader, why: &str) {
        self.fail(header.call, header.method, Code::ResourceExhausted, VerdictAt::Engine, why);
    }

    /// Moves waiting deliveries into the ring as far as there is room. True if any moved.
    pub fn drain_backlog(&mut self) -> bool {
        let mut moved = false;
        while let Some(Waiting { header, flat, body }) = self.backlog.front() {
            let write = |at: usize, out: &mut [u8]| copy_part(body, at, out);
            let Ok(()) = self.port.deliver(header, flat, write, body.len()) else {
                break;
            };
            self.backlog_bytes -= body.len();
            self.backlog.pop_front();
            self.unpublished = true;
            moved = true;
        }
        moved
    }

    /// Ends an application's call with a status of the engine's or the transport's own.
    pub fn fail(&mut self, cookie: u64, method: u32, status: Code, at: VerdictAt, why: &str) {
        self.deliver(&response(cookie, method, 0, status, at), &[], why.as_bytes());
    }

    /// Lets an application reuse the room of a reply.
    pub fn release(&mut self, handle: u64) {
        self.deliver(&DeliveryHeader::new(DaemonOp::Released, handle), &[], &[]);
    }

    /// Tells an application that a call it made or serves was cancelled.
    pub fn cancelled(&mut self, call: u64) {
        let header =
            DeliveryHeader { status: Code::Cancelled, ..DeliveryHeader::new(DaemonOp::Cancelled, call) };
        self.deliver(&header, &[], &[]);
    }

    /// Shows the application what was delivered since the last time; true if there was anything.
    pub fn publish(&mut self) -> bool {
        let published = self.unpublished;
        if published {
            self.port.publish();
            self.unpublished = false;
        }
        published
    }

    /// Ends the connection from this side.
    pub fn dismiss(&mut self, why: Gone) {
        if let Some(on_gone) = self.on_gone.take() {
            on_gone(why);
        }
    }
}

/// Copies a part of some bytes; what they do not have is left as it is.
pub fn copy_part(bytes: &[u8], at: usize, out: &mut [u8]) {
    if let Some(part) = bytes.get(at..).and_then(|rest| rest.get(..out.len())) {
        out.copy_from_slice(part);
    }
}

/// The header of a delivered response.
pub fn response(call: u64, method: u32, layout: u32, status: Code, verdict_at: VerdictAt) -> DeliveryHeader {
    DeliveryHeader { status, method, layout, verdict_at, ..DeliveryHeader::new(DaemonOp::Response, call) }
}
