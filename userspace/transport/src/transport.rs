//! The transport's surface: packets in, packets out, timers.

use crate::config::Config;
use crate::event::*;
use tollfree_wire::Reason;
use tollfree_wire::frame::Peer;

/// All sessions of one engine.
pub struct Transport {
    config: Config,
}

impl Transport {
    /// A transport without sessions.
    pub fn new(config: Config) -> Transport {
        Transport { config }
    }

    /// Takes a packet, from the base header on. `Err` says why it was refused or dropped, to be counted.
    pub fn receive(
        &mut self,
        _now: u64,
        _from: Peer,
        _payload: &[u8],
        _sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        Err(Reason::UnknownSession)
    }

    /// Makes a call. It may wait for a session or for one of its session's slots; it ends with an
    /// [`Event::Response`] in any case, never before this returns.
    pub fn call(&mut self, _now: u64, _peer: Peer, call: NewCall<'_>) -> CallHandle {
        CallHandle(call.token)
    }

    /// Gives a call up: no event will come, its token is free at once, the peer is told.
    pub fn cancel(&mut self, _now: u64, _call: CallHandle) {}

    /// Answers a call. False: the call is gone, or the reply impossible (over a limit), and nothing was kept. True and
    /// [`Reply::copy_body`] not called, with a body: the token is in use until [`Event::Released`].
    pub fn respond(&mut self, _now: u64, _call: IncomingCall, _reply: Reply<'_>) -> bool {
        false
    }

    /// Never answers a call: to its caller it looks lost. What a policy's silent drop wants.
    pub fn ignore(&mut self, _call: IncomingCall) {}

    /// Sends what may be sent. [`Blocked`] stops it; nothing is lost.
    pub fn transmit(&mut self, _now: u64, _out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>) {}

    /// When [`Transport::handle_timeouts`] wants to be called next.
    pub fn timeout(&self) -> Option<u64> {
        None
    }

    /// Does what is due.
    pub fn handle_timeouts(&mut self, _now: u64, _sink: &mut dyn FnMut(Event<'_>)) {}

    /// Sessions opened and closed since the last time: to be mirrored before [`Transport::transmit`].
    pub fn session_changes(&mut self) -> impl Iterator<Item = SessionChange> {
        std::iter::empty()
    }

    /// Queues a goodbye to every peer, before the process ends.
    pub fn close_all(&mut self, _now: u64) {}

    /// The sessions there are.
    pub fn sessions(&self) -> impl Iterator<Item = SessionInfo> {
        std::iter::empty()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        let _ = &self.config;
        Counters::default()
    }
}
