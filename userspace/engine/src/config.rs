//! Settings of an engine.

use crate::identity::Identities;
use std::collections::HashMap;
use tollfree_wire::frame::Peer;

/// How the poll loop waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// Never sleeps, never yields: for a core of its own.
    Busy,
    /// Spins, then yields, then sleeps: right for shared cores.
    #[default]
    Adaptive,
    /// Sleeps at once: least CPU, most latency.
    Sleep,
}

/// Settings of an engine.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Which host serves which service (full name, `demo.Hash`). A service that an application on this host serves
    /// needs no route, and is preferred over one.
    pub routes: HashMap<String, Peer>,
    /// How the poll loop waits.
    pub waiting: Waiting,
    /// Who is at the other ends of sessions.
    pub identities: Identities,
    /// This host's Tollfree port, as policies see it.
    pub port: u16,
}
