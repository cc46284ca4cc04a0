//! How the engine's owner speaks to it from other threads.

use crate::apps::AppId;
use crate::carriage::TooMany;
use crate::config::Waiting;
use crate::gate::Policy;
use rustix::fd::OwnedFd;
use serde::Serialize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tollfree_policy::State;
use tollfree_ring::daemon::Port;
use tollfree_schema::Manifest;
use tollfree_wire::spec::MethodSpec;

/// Called on the poll thread with a command's result; must not block.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// What to do with a policy's tables, on the poll thread; must not block.
pub type TablesFn = Box<dyn FnOnce(Option<&mut State>) + Send>;

/// Which calls a policy in the engine judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Calls that arrive at services on this host.
    Server,
    /// Calls that leave clients on this host.
    Client,
}

/// Why an application's connection ended although the application did not end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its rings hold what no working library writes.
    Corrupt,
    /// The engine serves as many applications as it can.
    Crowded,
}

/// A new application connection.
pub struct Attach {
    /// The daemon's end of its rings.
    pub port: Port,
    /// What it calls itself, for people.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Every service it knows, as caller or callee.
    pub manifest: Manifest,
    /// Full names of the services that it serves.
    pub serves: Vec<String>,
    /// Called when the engine ends the connection: close the socket.
    pub on_gone: Reply<Gone>,
}

/// What the engine's owner can ask for. Each takes effect between two turns of the poll loop.
pub enum Command {
    /// Adds an application.
    Attach(Box<Attach>, Reply<AppId>),
    /// Removes an application that has closed its connection or died; its peers' calls end with a status.
    Detach(AppId),
    /// One side's policy that is to come in force next, or after all none: from here on the calls that its XDP program
    /// leaves to the engine can arrive. Its generation in [`crate::Below`] tells them.
    Announce(Side, Option<Box<Policy>>, Reply<()>),
    /// Replaces (or, with `None`, removes) one side's policy; answers with the side's new generation.
    Policy(Side, Option<Box<Policy>>, Reply<u64>),
    /// Replaces what one side's policy says of how methods are carried. New calls are carried so; calls under way end
    /// as they began.
    Carry(Side, Vec<(u32, MethodSpec)>, Reply<Result<(), TooMany>>),
    /// Looks at or changes the tables of one side's policy; `None` where no policy is in force.
    Tables(Side, TablesFn),
    /// Reports.
    Status(Reply<Status>),
    /// Ends the poll loop; open sessions are closed in order.
    Stop,
}

/// One application in a report.
#[derive(Clone, Debug, Serialize)]
pub struct AppStatus {
    /// What it calls itself.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// The services it serves.
    pub serves: Vec<String>,
    /// Calls it has made.
    pub calls_made: u64,
    /// Calls it has been given to serve.
    pub calls_served: u64,
    /// Deliveries that wait because its ring is full.
    pub backlog: usize,
}

/// One session in a report.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// The index this host chose.
    pub index: u32,
    /// The peer's address and port.
    pub peer: String,
    /// `client` or `server`.
    pub role: &'static str,
    /// Calls that `session_tracker()` has admitted; 0 while no policy in force has one.
    pub calls: u64,
    /// Time since the last of them, or since the session was opened, in ms.
    pub idle_ms: u64,
}

/// A report of the engine's state.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Applications, by attachment.
    pub apps: Vec<AppStatus>,
    /// Sessions.
    pub sessions: Vec<SessionStatus>,
    /// Counts by reason, those above zero: what became of packets that reached the engine.
    pub reasons: Vec<(String, u64)>,
    /// Packets received from the backend.
    pub received: u64,
    /// Packets handed to the backend.
    pub transmitted: u64,
    /// Calls under way from and to applications here.
    pub calls_open: usize,
    /// Calls and answers that a policy holds for a while.
    pub calls_delayed: usize,
    /// Generation of the server-side policy; 0: never one.
    pub server_policy: u64,
    /// Generation of the client-side policy; 0: never one.
    pub client_policy: u64,
    /// How the poll loop waits.
    pub waiting: String,
}

impl Status {
    pub(crate) fn waiting_name(waiting: Waiting) -> String {
        match waiting {
            Waiting::Busy => "busy",
            Waiting::Adaptive => "adaptive",
            Waiting::Sleep => "sleep",
        }
        .to_owned()
    }
}

/// Speaks to an engine from any thread.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    doorbell: Arc<OwnedFd>,
}

/// The engine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped; its log says why")]
pub struct Stopped;

impl Handle {
    /// Queues a command and wakes the engine.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        // A full eventfd counter means that the engine has been told often enough.
        let _ = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
        Ok(())
    }
}

/// The engine's end of a [`Handle`].
pub(crate) struct Inbox {
    pub commands: Receiver<Command>,
    pub doorbell: Arc<OwnedFd>,
}

pub(crate) fn pair() -> rustix::io::Result<(Handle, Inbox)> {
    use rustix::event::{EventfdFlags, eventfd};
    let doorbell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, commands) = channel();
    Ok((Handle { commands: sender, doorbell: doorbell.clone() }, Inbox { commands, doorbell }))
}
