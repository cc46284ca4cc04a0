//! What the engine tells the programs: sessions, layouts, addresses and its sockets.

use crate::{Error, Interface};
use libbpf_rs::MapCore;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use tollfree_wire::SessionEntry;
use tollfree_wire::frame::Address;
use tollfree_wire::maps::{LayoutKey, PeerEntry};
use tollfree_wire::session::{SESSION_SLOTS, place};

impl Interface {
    /// Makes a session known; its packets are judged by it from now on.
    ///
    /// # Errors
    /// The kernel refused the update.
    pub fn session_insert(&self, entry: &SessionEntry) -> Result<(), Error> {
        let key = place(entry.guard.index).to_ne_bytes();
        // The kernel copies without a lock, from the front: the index goes in last, in a copy of its own, so that no
        // packet is judged by half an entry.
        let mut hidden = *entry;
        hidden.guard.index = 0;
        self.sessions.set(&key, bytemuck::bytes_of(&hidden))?;
        self.sessions.set(&key, bytemuck::bytes_of(entry))
    }

    /// Says who is at the other end of a session. To be written before the session itself.
    ///
    /// # Errors
    /// The kernel refused the update.
    pub fn peer_insert(&self, peer: &PeerEntry) -> Result<(), Error> {
        // As with sessions: whoever finds the index finds all the rest.
        let hidden = PeerEntry { session: 0, ..*peer };
        let key = place(peer.session).to_ne_bytes();
        self.peers.set(&key, bytemuck::bytes_of(&hidden))?;
        self.peers.set(&key, bytemuck::bytes_of(peer))
    }

    /// Forgets a session, given by its index or its place.
    ///
    /// # Errors
    /// The kernel refused the update.
    pub fn session_remove(&self, index: u32) -> Result<(), Error> {
        self.sessions.set(&place(index).to_ne_bytes(), bytemuck::bytes_of(&empty()))
    }

    /// The session at an index or place, with its counters; `None`: there is none.
    ///
    /// # Errors
    /// The kernel refused the lookup.
    pub fn session_get(&self, index: u32) -> Result<Option<SessionEntry>, Error> {
        let Some(bytes) = self.sessions.get(&place(index).to_ne_bytes())? else { return Ok(None) };
        let entry = bytemuck::try_pod_read_unaligned::<SessionEntry>(&bytes).ok();
        Ok(entry.filter(|entry| entry.guard.index != 0))
    }

    /// Forgets every session: those of an engine that is gone.
    ///
    /// # Errors
    /// The kernel refused an update.
    pub fn sessions_clear(&self) -> Result<(), Error> {
        for place in 0..SESSION_SLOTS {
            if self.session_get(place)?.is_some() {
                self.session_remove(place)?;
            }
        }
        Ok(())
    }

    /// Says that a peer's layout extends the layout `known` to the policy.
    ///
    /// # Errors
    /// The table is full, or the kernel refused the update.
    pub fn layout_insert(&self, key: LayoutKey, known: u32) -> Result<(), Error> {
        self.layouts.set(bytemuck::bytes_of(&key), &known.to_ne_bytes())
    }

    /// Sets the addresses whose Tollfree packets are for this host, in place of those set before.
    ///
    /// # Errors
    /// There are more than [`tollfree_wire::maps::ADDRESSES_MAX`], or the kernel refused an update.
    pub fn set_addresses(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        let wanted: Vec<Address> = addresses.iter().map(|address| Address::from(*address)).collect();
        let stale: Vec<Vec<u8>> = self
            .addresses
            .map
            .keys()
            .filter(|key| !wanted.iter().any(|address| bytemuck::bytes_of(address) == &key[..]))
            .collect();
        for key in stale {
            self.addresses.remove(&key)?;
        }
        for address in &wanted {
            self.addresses.set(bytemuck::bytes_of(address), &[1])?;
        }
        Ok(())
    }

    /// Sends the queue's packets to this AF_XDP socket.
    ///
    /// # Errors
    /// The queue is beyond [`tollfree_wire::maps::QUEUES_MAX`], or the socket is not bound to this interface.
    pub fn register_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.sockets.set(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
    }

    /// Takes the queue's socket out; its packets are dropped as `no_engine` from now on.
    ///
    /// # Errors
    /// The kernel refused the update.
    pub fn unregister_socket(&self, queue: u32) -> Result<(), Error> {
        self.sockets.remove(&queue.to_ne_bytes()).map(|_| ())
    }
}

fn empty() -> SessionEntry {
    bytemuck::Zeroable::zeroed()
}
