//! What the kernel is told while calls run: sessions and who is behind them, what policies decide of them, layouts, the
//! writes of policies in the engine. The poll thread does it as the engine's [`Driver`]; the daemon's thread only when a
//! policy comes or goes, so that the lock between them is free whenever a session opens.

use crate::paths::Places;
use crate::xdp::loader_error;
use anyhow::Result;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tollfree_engine::{Driver, Written};
use tollfree_loader::{DecisionsMap, Interface, Prepared, Table};
use tollfree_policy::{Compiled, Decisions, PeerView, TableSpec, Tracked};
use tollfree_wire::SessionEntry;
use tollfree_wire::maps::{LayoutKey, PeerEntry};

/// Mirrors the engine's knowledge into an interface's maps, and its sockets. Lives on the poll thread.
pub struct Mirror {
    interface: Interface,
    known: Known,
}

/// What the policies of an interface are to be told of sessions: shared by the poll thread and the daemon's.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Open sessions, by index.
    sessions: HashMap<u32, Peer>,
    /// Policies in force or coming into force, by generation.
    policies: Vec<Told>,
}

/// A policy to be told.
struct Told {
    generation: u64,
    port: u16,
    decides: Option<(DecisionsMap, Decisions)>,
    /// The tables that the engine writes too.
    tables: HashMap<String, Table>,
}

/// Who is at the other end of a session; [`PeerView`], kept.
struct Peer {
    address: [u8; 16],
    identity: Option<String>,
    namespace: Option<String>,
    sessions: u32,
    named: Vec<(String, String)>,
}

impl Peer {
    fn of(view: &PeerView<'_>) -> Peer {
        let PeerView { address, identity, namespace, token: _, sessions, named } = *view;
        let own = |text: Option<&str>| text.map(str::to_owned);
        Peer { address, identity: own(identity), namespace: own(namespace), sessions, named: named.to_vec() }
    }

    fn view(&self) -> PeerView<'_> {
        let Peer { address, identity, namespace, sessions, named } = self;
        let (identity, namespace) = (identity.as_deref(), namespace.as_deref());
        PeerView { address: *address, identity, namespace, token: None, sessions: *sessions, named }
    }
}

impl Told {
    fn decide(&self, session: u32, peer: &PeerView<'_>) -> Result<(), tollfree_loader::Error> {
        let Some((map, decisions)) = &self.decides else { return Ok(()) };
        map.set(session, &decisions.decide(peer, self.port))
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A policy is about to come into force: what it decides of the sessions there are is written now, and of those that
    /// open from now on before their first packet.
    ///
    /// # Errors
    /// The kernel refused an update.
    pub fn expect(&self, prepared: &Prepared, compiled: &Compiled, port: u16) -> Result<()> {
        let map = prepared.decisions().map(DecisionsMap::try_clone).transpose().map_err(loader_error)?;
        let mut tables = HashMap::new();
        for spec in compiled.shared.iter().filter_map(|at| compiled.tables.get(*at)) {
            tables.insert(spec.name.clone(), prepared.table(&spec.name).map_err(loader_error)?);
        }
        let decides = map.zip(compiled.decisions.clone());
        let told = Told { generation: prepared.generation(), port, decides, tables };
        let mut inner = self.lock();
        for (session, peer) in &inner.sessions {
            told.decide(*session, &peer.view()).map_err(loader_error)?;
        }
        inner.policies.push(told);
        Ok(())
    }

    /// Only this policy is in force from now on. The one before is still told of writes to tables, which calls that it
    /// has half judged may make.
    pub fn in_force(&self, generation: u64) {
        let mut inner = self.lock();
        inner.policies.retain(|told| told.generation <= generation);
        let surplus = inner.policies.len().saturating_sub(2);
        inner.policies.drain(..surplus);
        for told in inner.policies.iter_mut().filter(|told| told.generation < generation) {
            told.decides = None;
        }
    }

    /// A policy did not come into force.
    pub fn forget(&self, generation: u64) {
        self.lock().policies.retain(|told| told.generation != generation);
    }
}

impl Mirror {
    /// A second hold on the same pins.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn open(places: &Places, name: &str, known: Known) -> Result<Mirror> {
        Ok(Mirror { interface: Interface::open(&places.loader(), name).map_err(loader_error)?, known })
    }

    /// Has XDP hand the packets of one receive queue to this socket.
    ///
    /// # Errors
    /// A sentence.
    pub fn register(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        self.interface.register_socket(queue, socket).map_err(|error| error.to_string())
    }

    /// Removes the sessions of an engine that is gone, so that peers hear at once that they need new ones.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn forget_sessions(&mut self) -> Result<()> {
        self.interface.sessions_clear().map_err(loader_error)
    }

    fn open_session(&self, entry: &SessionEntry, peer: &PeerView<'_>) -> Result<(), tollfree_loader::Error> {
        let session = entry.guard.index;
        let PeerView { address, identity, namespace, .. } = *peer;
        self.interface.peer_insert(&PeerEntry::new(session, address, identity, namespace))?;
        let mut inner = self.known.lock();
        inner.sessions.insert(session, Peer::of(peer));
        inner.policies.iter().try_for_each(|told| told.decide(session, peer))?;
        drop(inner);
        // Last: its packets are judged from here on.
        self.interface.session_insert(entry)
    }
}

impl Driver for Mirror {
    fn session_insert(&mut self, entry: &SessionEntry, peer: &PeerView<'_>) -> Result<(), String> {
        self.open_session(entry, peer).map_err(|error| error.to_string())
    }

    fn session_remove(&mut self, index: u32) -> Result<(), String> {
        self.known.lock().sessions.remove(&index);
        self.interface.session_remove(index).map_err(|error| error.to_string())
    }

    fn layout_insert(&mut self, key: LayoutKey, known: u32) -> Result<(), String> {
        self.interface.layout_insert(key, known).map_err(|error| error.to_string())
    }

    fn table_write(
        &mut self,
        generation: u64,
        table: &TableSpec,
        written: Written<'_>,
    ) -> Result<(), String> {
        let inner = self.known.lock();
        let told = inner.policies.iter().find(|told| told.generation == generation);
        let Some(map) = told.and_then(|told| told.tables.get(&table.name)) else { return Ok(()) };
        let done = match written {
            Written::Set(key, value) => map.set(key, value),
            Written::Delete(key) => map.delete(key).map(drop),
            Written::Clear => map.clear(),
        };
        done.map_err(|error| error.to_string())
    }

    fn tracked(&self, index: u32) -> Option<Tracked> {
        let entry = self.interface.session_get(index).ok().flatten()?;
        let SessionEntry { last_seen_ns, idle_ns, calls, .. } = entry;
        Some(Tracked { last_seen_ns, idle_ns, calls })
    }
}
