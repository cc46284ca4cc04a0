//! The `udp` backend: an ordinary socket, for any user on any Linux.
//!
//! Packets go out and come in by the batch, one system call for up to [`BATCH`] of them. The kernel does all the
//! addressing.

use crate::headers::ECN_CAPABLE;
use crate::{Counters, Error, Frames, Nic, Received, TxError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};
use tollfree_wire::frame::Peer;

mod mmsg;

/// Packets per system call, in either direction.
pub const BATCH: usize = 64;

/// What a UDP packet may carry in Ethernet's 1500 bytes behind IPv4 and UDP headers.
pub const MAX_PAYLOAD_V4: usize = 1472;

/// What a UDP packet may carry in Ethernet's 1500 bytes behind IPv6 and UDP headers.
pub const MAX_PAYLOAD_V6: usize = 1452;

/// How to open a [`Udp`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. On a host with several addresses, name one: answers must come from it. An unspecified IPv6
    /// address takes IPv4 too.
    pub listen: SocketAddr,
    /// The longest payload of one packet in bytes: 1472 on IPv4, 1452 on IPv6 by default. Longer than the path
    /// allows makes IP fragments, which XDP hosts refuse.
    pub max_payload: usize,
    /// The kernel's receive and send buffer in bytes, each; the kernel may grant less. 4 MiB by default.
    pub socket_buffer: usize,
}

impl Config {
    /// The defaults for a socket on `listen`.
    pub fn new(listen: SocketAddr) -> Config {
        let max_payload = if listen.is_ipv4() { MAX_PAYLOAD_V4 } else { MAX_PAYLOAD_V6 };
        Config { listen, max_payload, socket_buffer: 4 << 20 }
    }
}

/// A UDP socket and its two batches of buffers.
pub struct Udp {
    socket: OwnedFd,
    address: SocketAddr,
    max_payload: usize,
    rx: mmsg::RxBatch,
    tx: mmsg::TxBatch,
    counters: Counters,
}

impl Udp {
    /// Opens a socket with default settings.
    pub fn bind(listen: SocketAddr) -> Result<Udp, Error> {
        Udp::open(Config::new(listen))
    }

    /// Opens a socket.
    pub fn open(config: Config) -> Result<Udp, Error> {
        let Config { listen, max_payload, socket_buffer } = config;
        let (socket, address) = listening(listen, socket_buffer)
            .map_err(|source| Error::Listen { address: listen, source: source.into() })?;
        Ok(Udp {
            socket,
            address,
            max_payload,
            rx: mmsg::RxBatch::new(max_payload),
            tx: mmsg::TxBatch::new(max_payload),
            counters: Counters::default(),
        })
    }

    /// The address listened on, with the port the kernel chose if none was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Socket { address: self.address, operation, source }
    }
}

fn listening(listen: SocketAddr, buffer: usize) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let family = if listen.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    // Packets may be marked instead of dropped, and the marks are told. An IPv6 socket takes IPv4 packets too.
    sockopt::set_ip_tos(&socket, ECN_CAPABLE)?;
    sockopt::set_ip_recvtos(&socket, true)?;
    if listen.is_ipv6() {
        sockopt::set_ipv6_tclass(&socket, ECN_CAPABLE.into())?;
        sockopt::set_ipv6_recvtclass(&socket, true)?;
    }
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
    sockopt::set_socket_send_buffer_size(&socket, buffer)?;
    rustix::net::bind(&socket, &listen)?;
    let address = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, address))
}

impl Nic for Udp {
    const VERIFIED: bool = false;

    fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// One socket has one port. The kernel spreads packets over cores as it likes.
    fn ports(&self) -> u16 {
        1
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(Received<'_>)) -> Result<usize, Error> {
        let mut taken = 0;
        while taken < budget {
            let wanted = (budget - taken).min(BATCH);
            let got = match self.rx.receive(self.socket.as_raw_fd(), wanted) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("receive", error)),
            };
            for at in 0..got {
                match self.rx.packet(at) {
                    Some(received) => {
                        self.counters.rx_packets += 1;
                        self.counters.rx_bytes += received.payload.len() as u64;
                        sink(received);
                    }
                    None => self.counters.rx_dropped += 1,
                }
            }
            taken += got;
            if got < wanted {
                break;
            }
        }
        Ok(taken)
    }

    fn transmit(
        &mut self,
        _from: u16,
        to: &Peer,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TxError> {
        if len > self.max_payload {
            return Err(Error::Oversize { len, limit: self.max_payload }.into());
        }
        let destination = match (self.address, SocketAddr::from(*to)) {
            (SocketAddr::V4(_), SocketAddr::V6(_)) => {
                return Err(Error::Family { peer: *to, address: self.address }.into());
            }
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            (_, destination) => destination,
        };
        if self.tx.is_full() {
            self.flush()?;
        }
        let Some(buffer) = self.tx.stage(destination, len) else {
            self.counters.tx_full += 1;
            return Err(TxError::Full);
        };
        fill(buffer);
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += len as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        while !self.tx.is_empty() {
            self.counters.kicks += 1;
            match self.tx.send(self.socket.as_raw_fd()) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // No room in the kernel now: what is left goes with the next flush.
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => break,
                    Some(libc::EBADF | libc::ENOTSOCK) => return Err(self.failed("send", error)),
                    // The error is about the first packet of the rest (no route, filtered, too long): the others
                    // must not suffer for it, and the transport finds out by itself.
                    _ => {
                        self.tx.skip();
                        self.counters.tx_failed += 1;
                    }
                },
            }
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn counters(&self) -> Counters {
        let tx = self.tx.len() as u32;
        let total = 2 * BATCH as u32;
        Counters { frames: Frames { total, free: total - tx, fill: 0, rx: 0, tx }, ..self.counters }
    }

    fn tick(&mut self, _now_ns: u64) {}
}
