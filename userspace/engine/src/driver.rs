//! What the engine needs of the XDP programs in front of it.

use crate::gate::Written;
use tollfree_policy::{PeerView, TableSpec, Tracked};
use tollfree_wire::SessionEntry;
use tollfree_wire::maps::LayoutKey;

/// Mirrors what the engine learns into the kernel, where the XDP programs judge packets by it. Called when sessions
/// open and close, when layouts are agreed on, and when a policy in the engine changes a table that XDP reads.
///
/// Errors are texts for the log; the engine goes on, and the session concerned fails closed.
pub trait Driver {
    /// A session with this peer may receive packets from now on. Nothing has been sent on it yet.
    fn session_insert(&mut self, entry: &SessionEntry, peer: &PeerView<'_>) -> Result<(), String>;
    /// A session is over.
    fn session_remove(&mut self, index: u32) -> Result<(), String>;
    /// A peer's layout is a compatible extension of the layout `known` here.
    fn layout_insert(&mut self, key: LayoutKey, known: u32) -> Result<(), String>;
    /// A policy in the engine has changed a table that the XDP program of this generation reads.
    fn table_write(&mut self, generation: u64, table: &TableSpec, written: Written<'_>)
    -> Result<(), String>;
    /// What `session_tracker()` has noted of a session where it runs in front of the engine; for reports.
    fn tracked(&self, index: u32) -> Option<Tracked>;
}

/// For backends without XDP: the engine checks packets itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDriver;

impl Driver for NoDriver {
    fn session_insert(&mut self, _: &SessionEntry, _: &PeerView<'_>) -> Result<(), String> {
        Ok(())
    }

    fn session_remove(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn layout_insert(&mut self, _: LayoutKey, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn table_write(&mut self, _: u64, _: &TableSpec, _: Written<'_>) -> Result<(), String> {
        Ok(())
    }

    fn tracked(&self, _: u32) -> Option<Tracked> {
        None
    }
}
