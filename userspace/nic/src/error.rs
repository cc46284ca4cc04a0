//! What can go wrong, said so that one can act on it.

use std::{io, net::SocketAddr};
use tollfree_wire::frame::Peer;

/// Why a backend cannot be opened or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A UDP socket could not be set up.
    #[error("cannot listen on UDP {address}: {source}; choose another `listen` address or port")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Receiving or sending on a UDP socket failed for good.
    #[error("the UDP socket on {address} failed to {operation}: {source}")]
    Socket {
        /// The socket's address.
        address: SocketAddr,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A packet too long for the backend: a mistake of the caller.
    #[error("a packet of {len} bytes was to be sent, but the limit is {limit}")]
    Oversize {
        /// The payload's length in bytes.
        len: usize,
        /// The backend's limit in bytes.
        limit: usize,
    },
    /// An IPv6 peer on a socket that listens on IPv4.
    #[error("cannot reach {peer} from the IPv4 socket on {address}; listen on `[::]:{}` to reach both families", .address.port())]
    Family {
        /// The peer.
        peer: Peer,
        /// The socket's address.
        address: SocketAddr,
    },
    /// A setting that cannot work.
    #[error("interface {interface}: `{setting}` {problem}")]
    Setting {
        /// The interface.
        interface: String,
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The interface does not exist, or cannot be asked about.
    #[error("interface {interface} cannot be used: {problem}; `ip link` lists the interfaces there are")]
    Interface {
        /// The interface.
        interface: String,
        /// What the kernel said.
        problem: String,
    },
    /// A privilege is missing.
    #[error(
        "AF_XDP on interface {interface} needs {capability} to {operation}; grant it, or use `backend = \"udp\"`, which needs no privileges"
    )]
    Privilege {
        /// The interface.
        interface: String,
        /// The missing capability (and its alternative, if there is one).
        capability: &'static str,
        /// What was tried.
        operation: &'static str,
    },
    /// The queue belongs to another socket.
    #[error(
        "queue {queue} of interface {interface} already has an AF_XDP socket; stop the other program (`ss --xdp -p` shows it)"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue's number.
        queue: u32,
    },
    /// The interface refuses zero-copy sockets, which the configuration insists on.
    #[error(
        "the driver of interface {interface} has no zero-copy AF_XDP; use `binding = \"auto\"` or `\"copy\"`"
    )]
    ZeroCopy {
        /// The interface.
        interface: String,
    },
    /// An AF_XDP socket could not be set up, for a reason without a better name.
    #[error("cannot {operation} on queue {queue} of interface {interface}: {problem}")]
    Setup {
        /// The interface.
        interface: String,
        /// The queue's number.
        queue: u32,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        problem: String,
    },
    /// The socket could not be entered into the XDP program's map.
    #[error("cannot register queue {queue} of interface {interface} with its XDP program: {problem}")]
    Register {
        /// The interface.
        interface: String,
        /// The queue's number.
        queue: u32,
        /// What the loader said.
        problem: String,
    },
    /// The interface is down. Only opening fails for this: later, packets are [`TxError::Unreachable`] until it is up.
    #[error("interface {interface} is down; bring it up with `ip link set {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
    /// The interface was removed, and the sockets on it are dead.
    #[error("interface {interface} is gone; restart when it is back")]
    Gone {
        /// The interface.
        interface: String,
    },
    /// The kernel refused to send or to take buffers, for a reason without a better name.
    #[error("queue {queue} of interface {interface} failed to {operation}: {source}")]
    Queue {
        /// The interface.
        interface: String,
        /// The queue's number.
        queue: u32,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a packet was not queued.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// No room: flush, receive, and try again.
    #[error("the transmit queue is full")]
    Full,
    /// How to reach the peer is not known. Resolution has been started (at most once per cooldown) and its result
    /// is found by a later attempt. Also while the interface is down. [`crate::Nic::why_unreachable`] knows more.
    #[error("the way to the peer is not resolved yet, or the interface is down")]
    Unreachable,
    /// Trying again will not help.
    #[error(transparent)]
    Failed(#[from] Error),
}
