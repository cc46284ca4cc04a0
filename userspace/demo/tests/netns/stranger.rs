//! Two ways to send packets at a daemon from outside of Tollfree: a raw socket that says anything, and an engine of the
//! test's own whose packets are right and can be kept, changed and repeated.

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrV4, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};
use tollfree_demo::{host::Family, host::Host, netns::Namespace};
use tollfree_transport::{Body, Config, Event, NewCall, SessionChange, Transport};
use tollfree_wire::{Cursor, Header, Kind, frame::Peer, session::Guard, tag::tag};
use zerocopy::IntoBytes;

/// Tollfree's port.
pub const PORT: u16 = 7400;

/// A raw IPv4 socket in a namespace.
pub struct Stranger {
    socket: OwnedFd,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

/// An IPv4 packet with UDP in it, as it is to be sent. The kernel fills in total length and header checksum.
pub struct Datagram<'a> {
    pub source_port: u16,
    pub port: u16,
    /// What the UDP header says beyond the truth.
    pub extra_length: u16,
    /// IPv4 options, whole words.
    pub options: &'a [u8],
    pub more_fragments: bool,
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// An ordinary one to Tollfree's port.
    pub fn new(payload: &'a [u8]) -> Datagram<'a> {
        Datagram { source_port: 9, port: PORT, extra_length: 0, options: &[], more_fragments: false, payload }
    }
}

impl Stranger {
    /// On the client's host, against the server's.
    pub fn new(client: &Host, server: &Host) -> Result<Stranger> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (client.address(Family::V4), server.address(Family::V4))
        else {
            bail!("an IPv4 address that is none");
        };
        let make = || {
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
                .context("no raw sockets here")
        };
        Ok(Stranger { socket: client.cli.inside(make)?, source, destination })
    }

    /// Sends a packet.
    pub fn send(&self, datagram: &Datagram<'_>) -> Result<()> {
        let Datagram { source_port, port, extra_length, options, more_fragments, payload } = datagram;
        let mut packet = vec![0x45 + (options.len() / 4) as u8, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0];
        if *more_fragments {
            packet[6] = 0x20;
        }
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(*options);
        packet.extend(source_port.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend((8 + payload.len() as u16 + extra_length).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(*payload);
        let to: SocketAddrV4 = SocketAddrV4::new(self.destination, 0);
        sendto(&self.socket, &packet, SendFlags::empty(), &to).context("cannot send a raw packet")?;
        Ok(())
    }
}

/// An engine over a plain UDP socket, on a port beside Tollfree's.
pub struct Engine {
    transport: Transport,
    socket: UdpSocket,
    server: SocketAddr,
    clock: Instant,
    /// Every packet sent, from the base header on.
    pub sent: Vec<Vec<u8>>,
    /// This end's view of its session.
    pub guard: Option<Guard>,
}

impl Engine {
    /// On the client's host, against the server's.
    pub fn new(client: &Namespace, from: SocketAddr, server: SocketAddr) -> Result<Engine> {
        let socket = client.enter(|| UdpSocket::bind(from).context("no UDP socket"))?;
        socket.set_read_timeout(Some(Duration::from_millis(5))).context("no UDP socket")?;
        let config = Config { secret: [7; 32], epoch: 1, max_payload: 1400, ..Config::default() };
        let transport = Transport::new(config);
        Ok(Engine { transport, socket, server, clock: Instant::now(), sent: Vec::new(), guard: None })
    }

    /// Its port.
    pub fn port(&self) -> Result<u16> {
        Ok(self.socket.local_addr().context("no UDP socket")?.port())
    }

    /// Makes a call and waits until it has ended, however.
    pub fn call(&mut self, method: u32, layout: u32, flat: &[u8]) -> Result<()> {
        let call =
            NewCall { method, layout, flat, metadata: false, body_len: 0, deadline_ns: u64::MAX, token: 1 };
        let now = self.now();
        self.transport.call(now, Peer::from(self.server), call);
        let mut ended = false;
        let mut buffer = [0; 2048];
        for _ in 0..2000 {
            let mut sink = |event: Event<'_>| ended |= matches!(event, Event::Response { .. });
            self.transport.handle_timeouts(now_ns(self.clock), &mut sink);
            if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                // A packet that it refuses is not this test's matter.
                let _ = self.transport.receive(now_ns(self.clock), from.into(), &buffer[..length], &mut sink);
            }
            for change in self.transport.session_changes() {
                if let SessionChange::Opened(guard, _) = change {
                    self.guard = Some(guard);
                }
            }
            self.flush()?;
            if ended {
                return Ok(());
            }
        }
        bail!("the call does not end")
    }

    fn flush(&mut self) -> Result<()> {
        let mut packets = Vec::new();
        self.transport.transmit(now_ns(self.clock), &mut |transmit| {
            let mut packet = transmit.header.as_bytes().to_vec();
            packet.extend(transmit.flat);
            if let Body::Inline(bytes) = transmit.body {
                packet.extend(bytes);
            }
            packets.push(packet);
            Ok(())
        });
        for packet in packets {
            self.send(&packet)?;
            self.sent.push(packet);
        }
        Ok(())
    }

    /// Sends any bytes from the session's own address and port.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.socket.send_to(packet, self.server).context("cannot send")?;
        Ok(())
    }

    /// The last request sent.
    pub fn last_request(&self) -> Result<Vec<u8>> {
        let request = self.sent.iter().rev().find(|packet| packet[3] == Kind::Request as u8);
        request.cloned().context("no request was sent")
    }

    /// A packet of the session that has every right to be there, but for what `edit` does to it. Without flat block or
    /// body, with a tag that is right.
    pub fn signed(&self, edit: impl FnOnce(&mut Header)) -> Result<Vec<u8>> {
        let guard = self.guard.context("no session")?;
        let mut header = Header::new(Kind::Request);
        (header.session, header.method, header.call) = (guard.peer_index, 5, 0x7f00 + 200);
        header.sequence = 1 << 20;
        edit(&mut header);
        let covered = tag(guard.key, &header, Cursor::new(&[]));
        header.tag = covered.ok().context("the tag needs a flat block that is not there")?;
        Ok(header.as_bytes().to_vec())
    }

    fn now(&self) -> u64 {
        now_ns(self.clock)
    }
}

fn now_ns(clock: Instant) -> u64 {
    // Not zero, which might pass for "never".
    clock.elapsed().as_nanos() as u64 + 1_000_000_000
}
