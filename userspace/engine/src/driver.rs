//! What the engine needs of the XDP programs in front of it.

use tollfree_policy::Tracked;
use tollfree_wire::SessionEntry;
use tollfree_wire::maps::LayoutKey;

/// Mirrors what the engine learns into the kernel, where the XDP programs judge packets by it. Called when sessions
/// open and close and when layouts are agreed on: never per call.
///
/// Errors are texts for the log; the engine goes on, and the session concerned fails closed.
pub trait Driver {
    /// A session may receive packets from now on.
    fn session_insert(&mut self, entry: &SessionEntry) -> Result<(), String>;
    /// A session is over.
    fn session_remove(&mut self, index: u32) -> Result<(), String>;
    /// A peer's layout is a compatible extension of the layout `known` here.
    fn layout_insert(&mut self, key: LayoutKey, known: u32) -> Result<(), String>;
    /// What `session_tracker()` has noted of a session where it runs in front of the engine; for reports.
    fn tracked(&self, index: u32) -> Option<Tracked>;
}

/// For backends without XDP: the engine checks packets itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDriver;

impl Driver for NoDriver {
    fn session_insert(&mut self, _: &SessionEntry) -> Result<(), String> {
        Ok(())
    }

    fn session_remove(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn layout_insert(&mut self, _: LayoutKey, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn tracked(&self, _: u32) -> Option<Tracked> {
        None
    }
}
