//! Layouts of peers that were found to fit those of services here, as long as the peer has a session. What a peer can
//! have kept is bounded, and goes with its last session.

use std::collections::HashMap;
use tollfree_wire::frame::Peer;

/// Layouts that one peer can have accepted: far more than there are methods in a schema, times the versions of it that
/// are in use at once.
const LAYOUTS_PER_PEER: usize = 1024;

#[derive(Debug, Default)]
struct Layouts {
    sessions: u32,
    /// (method, their fingerprint) to what the layout is known as here.
    known: HashMap<(u32, u32), u32>,
}

/// The accepted layouts of all peers.
#[derive(Debug, Default)]
pub struct Accepted(HashMap<Peer, Layouts>);

impl Accepted {
    /// A session with a peer was agreed on.
    pub fn session_up(&mut self, peer: Peer) {
        self.0.entry(peer).or_default().sessions += 1;
    }

    /// A session with a peer is over.
    pub fn session_down(&mut self, peer: Peer) {
        let Some(layouts) = self.0.get_mut(&peer) else { return };
        layouts.sessions = layouts.sessions.saturating_sub(1);
        if layouts.sessions == 0 {
            self.0.remove(&peer);
        }
    }

    /// Accepts a peer's layout. False: the peer has had too many accepted, or has no session.
    #[must_use]
    pub fn accept(&mut self, peer: Peer, method: u32, theirs: u32, known_as: u32) -> bool {
        let Some(Layouts { known, .. }) = self.0.get_mut(&peer) else { return false };
        if known.len() >= LAYOUTS_PER_PEER && !known.contains_key(&(method, theirs)) {
            return false;
        }
        known.insert((method, theirs), known_as);
        true
    }

    /// What a peer's layout is known as here.
    #[inline]
    pub fn get(&self, peer: Peer, method: u32, theirs: u32) -> Option<u32> {
        self.0.get(&peer)?.known.get(&(method, theirs)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollfree_wire::frame::Address;

    #[test]
    fn what_a_peer_had_accepted_is_bounded_and_goes_with_its_last_session() {
        let (peer, other) =
            (Peer { address: Address::v4(1), port: 1 }, Peer { address: Address::v4(2), port: 1 });
        let mut accepted = Accepted::default();
        assert!(!accepted.accept(peer, 1, 2, 3), "no session");
        accepted.session_up(peer);
        accepted.session_up(peer);
        accepted.session_up(other);
        for layout in 0..LAYOUTS_PER_PEER as u32 {
            assert!(accepted.accept(peer, 1, layout, 3));
        }
        assert!(!accepted.accept(peer, 1, u32::MAX, 3));
        assert!(accepted.accept(peer, 1, 5, 4), "known already");
        assert!(accepted.accept(other, 1, u32::MAX, 3), "another peer's affair");
        accepted.session_down(peer);
        assert_eq!(accepted.get(peer, 1, 5), Some(4));
        accepted.session_down(peer);
        accepted.session_down(other);
        assert_eq!(accepted.get(peer, 1, 5), None);
        assert!(accepted.0.is_empty());
    }
}
