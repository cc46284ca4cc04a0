//! The calls under way, by the keys that stand for them in the transport and in the applications' rings.

use crate::apps::AppId;
use crate::bindings::Key;
use crate::remote::Remote;
use crate::window::Written;
use tollfree_ring::{Flags, Span};
use tollfree_transport::{CallHandle, IncomingCall};
use tollfree_wire::Code;

/// A call that an application on this host makes.
#[derive(Debug)]
pub struct Outgoing {
    pub origin: Origin,
    pub method: u32,
    /// What is to know of its first message.
    pub flags: Flags,
    pub deadline_ns: u64,
    /// The agreement it depends on; `None` for calls that stay on this host.
    pub binding: Option<Key>,
    pub progress: Progress,
    /// What waits for its response: a key of [`crate::core::Core::judged`].
    pub judged: Option<u64>,
    /// What the application has written of its request, where the method streams.
    pub requests: Option<Box<Written>>,
    /// What is kept of its stream, where that goes to another host.
    pub remote: Option<Box<Remote>>,
    /// The front of its body as policies have judged it, where they read metadata: it goes out in place of what the
    /// application's memory says by then.
    pub metadata: Option<Box<[u8]>>,
}

impl Outgoing {
    /// Whether it is a stream over this link, a place in `Exchanges::made`.
    pub fn is_streamed_by(&self, link: u64) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.link == link)
    }
}

/// Who is waiting for the result.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// An application's call: its cookie, and where its body is in the application's region.
    App { app: AppId, cookie: u64, body: Span },
    /// The engine's own question whether a layout fits.
    Bind,
    /// The engine's own, for streams to another host: a place in `Exchanges::made`, and the key of what it carries.
    Exchange { link: u64, batch: u64 },
}

/// How far an outgoing call has come.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Its layout is being agreed on; the flat block waits in [`crate::bindings`].
    Binding,
    /// The transport has it.
    Sent(CallHandle),
    /// Another host has taken the stream that it has opened: its end comes as the stream's last frame.
    Open,
    /// An application on this host is working on it: the key in `incoming`.
    Local { incoming: u64 },
    /// A policy holds it for a while.
    Delayed,
    /// A policy dropped it: to its caller it is lost, and ends with this status when its time is over.
    Dropped(Code),
}

/// A call that an application on this host serves.
#[derive(Debug)]
pub struct Incoming {
    /// Who serves it.
    pub app: AppId,
    pub method: u32,
    /// Who asked.
    pub caller: Caller,
    /// What waits for its response: a key of [`crate::core::Core::judged`].
    pub judged: Option<u64>,
    /// When it ends at the latest, where a policy says so.
    pub ends_ns: Option<u64>,
    /// What the application has written of its response, where the method streams.
    pub responses: Option<Box<Written>>,
    /// What is kept of its stream, where that comes from another host.
    pub remote: Option<Box<Remote>>,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// Another host.
    Remote(IncomingCall),
    /// Another host, by a stream.
    Stream,
    /// An application on this host: the key in `outgoing`.
    Local { outgoing: u64 },
}

/// A long reply that the transport still sends.
#[derive(Debug)]
pub enum HeldReply {
    /// From an application's region.
    App { app: AppId, handle: u64, body: Span },
    /// Of the engine's own: frames of streams, or an answer that a policy has held.
    Batch(Vec<u8>),
}

/// Marks a transport token as a [`HeldReply`]'s key rather than an [`Outgoing`]'s.
pub const REPLY_TOKEN: u64 = 1 << 63;
