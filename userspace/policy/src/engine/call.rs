//! A call as a policy sees it: what the engine knows of it, borrowed.

use tollfree_wire::Code;

/// What `session_tracker()` knows of a session: the fields of the same names in
/// [`tollfree_wire::SessionEntry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// When a call was last admitted, in ns of the monotonic clock; the opening time at first.
    pub last_seen_ns: u64,
    /// How long the session may idle, in ns; 0: forever.
    pub idle_ns: u64,
    /// Calls admitted.
    pub calls: u64,
}

/// Who is at the other end of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView<'a> {
    /// IPv4 mapped into IPv6.
    pub address: [u8; 16],
    /// `None` where the daemon's configuration knows none.
    pub identity: Option<&'a str>,
    /// `None` where the daemon's configuration knows none.
    pub namespace: Option<&'a str>,
    /// Whether its token was good; `None` without one.
    pub token: Option<bool>,
    /// What else is known by name: `label.app`, `claim.role`, `issuer`, `audience`.
    pub named: &'a [(String, String)],
    /// How many sessions its host had when this one was opened, itself included.
    pub sessions: u32,
}

/// Where in the chain judging starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first element.
    #[default]
    Chain,
    /// Behind the elements that the XDP program runs ([`crate::Compiled::in_xdp`]): it has sent the call on.
    AfterXdp,
}

/// A call as a policy sees it.
#[derive(Debug)]
pub struct CallView<'a> {
    /// The method's id.
    pub method: u32,
    /// The layout's fingerprint, as in the packet.
    pub layout: u32,
    /// The flat block, without its padding: a policy can change it. For a response: the request's, as it was sent on,
    /// where [`crate::Program::keep_request`] asks for it, else empty.
    pub flat: &'a mut [u8],
    /// Bytes of flat block and body.
    pub size: u32,
    /// ns until the caller stops waiting; `None` where it never does.
    pub deadline_ns: Option<u64>,
    /// This host's Tollfree port.
    pub port: u16,
    /// The time, in ns of the monotonic clock.
    pub now_ns: u64,
    /// The session the call comes by. `None` where it comes by none (from an application on this host, whose
    /// connection is its session): `session_tracker()` then sends it on.
    pub session: Option<&'a mut Tracked>,
    /// Who calls.
    pub peer: &'a PeerView<'a>,
    /// Keys and values that travel with the call.
    pub metadata: &'a [(&'a str, &'a str)],
    /// How many backends there are, per [`crate::Program::selectors`]; those left out have none.
    pub backends: &'a [u32],
    /// Where to start.
    pub start: Start,
}

/// What answered a call, as a policy sees it.
#[derive(Debug)]
pub struct ResponseView<'a> {
    /// How the call ended.
    pub status: Code,
    /// The layout's fingerprint; 0 where there is no flat block.
    pub layout: u32,
    /// The flat block, without its padding: a policy can change it.
    pub flat: &'a mut [u8],
    /// Bytes of flat block and body.
    pub size: u32,
    /// ns since the request was judged.
    pub latency_ns: u64,
    /// Which backend answered; `None` where there is only one.
    pub backend: Option<u32>,
    /// How often the call was made so far: 1 at the first response.
    pub attempt: u32,
    /// Where an element of the chain ended the request itself ([`crate::Outcome::element`]): only the elements before
    /// it see the response.
    pub ended_at: Option<usize>,
}
