//! From the first byte of an Ethernet frame to a checked base header: the part of the decoder that XDP runs first.

use crate::{Cursor, Header, Kind, Reason};
use bytemuck::{Pod, Zeroable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// An Ethernet header. Multi-byte fields here and below are in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are IEEE 802.3's")]
pub struct Ethernet {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub ethertype: u16,
}

/// An 802.1Q tag, after the EtherType that announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are IEEE 802.1Q's")]
pub struct Vlan {
    pub control: u16,
    pub ethertype: u16,
}

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are RFC 791's")]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub dscp_ecn: u8,
    pub total_len: u16,
    pub identification: u16,
    pub flags_offset: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are RFC 8200's")]
pub struct Ipv6 {
    pub version_class_flow: u32,
    pub payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are RFC 768's")]
pub struct Udp {
    pub source: u16,
    pub destination: u16,
    pub length: u16,
    pub checksum: u16,
}

/// An IP address as sessions and maps keep it: 16 bytes in network order, IPv4 mapped into IPv6 (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// The mapped form of an IPv4 address given in network order.
    #[inline(always)]
    pub const fn v4(address: u32) -> Address {
        Address([0, 0, 0xffff_u32.to_be(), address])
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Address(bytemuck::cast(octets))
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> IpAddr {
        let v6 = Ipv6Addr::from(bytemuck::cast::<[u32; 4], [u8; 16]>(address.0));
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), |v4: Ipv4Addr| IpAddr::V4(v4))
    }
}

/// Where packets come from or go to: one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The host's address.
    pub address: Address,
    /// The engine's UDP port.
    pub port: u16,
}

/// The UDP ports of one host's engine, in a row: it is called at the first, and calls from any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// How many, at least 1.
    pub count: u16,
}

impl Ports {
    /// Whether a port is one of them.
    #[inline(always)]
    pub const fn contain(self, port: u16) -> bool {
        port.wrapping_sub(self.first) < self.count
    }
}

impl From<u16> for Ports {
    /// The one port of a host that has no more.
    fn from(port: u16) -> Ports {
        Ports { first: port, count: 1 }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer { address: address.ip().into(), port: address.port() }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> SocketAddr {
        SocketAddr::new(peer.address.into(), peer.port)
    }
}

impl core::fmt::Display for Peer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// Why a frame does not reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not Tollfree's at all: leave it to the kernel.
    Foreign,
    /// To one of our ports, but not acceptable. [`Reason::outcome`] says what to do with it.
    Refused(Reason),
}

/// What a frame with a well-formed Tollfree packet says.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Where the base header starts, in bytes from the start of the frame: 42, 46, 62 or 66.
    pub header_offset: usize,
    /// Whether the packet is in IPv6.
    pub ipv6: bool,
    /// Sender's address.
    pub source: Address,
    /// Receiver's address.
    pub destination: Address,
    /// Sender's UDP port.
    pub source_port: u16,
    /// The base header.
    pub header: Header,
    /// What the packet is.
    pub kind: Kind,
}

impl Frame {
    /// Decodes a frame up to and including the base header, for a host with these Tollfree ports. On success `cursor`
    /// stands at the flat block.
    #[inline(always)]
    pub fn decode(cursor: &mut Cursor<'_>, ports: Ports) -> Result<Frame, Refusal> {
        let ethernet: Ethernet = cursor.read().map_err(|_| Refusal::Foreign)?;
        let mut ethertype = ethernet.ethertype;
        let mut header_offset = size_of::<Ethernet>();
        if ethertype == ETHERTYPE_VLAN.to_be() {
            let vlan: Vlan = cursor.read().map_err(|_| Refusal::Foreign)?;
            ethertype = vlan.ethertype;
            header_offset += size_of::<Vlan>();
        }
        let (ipv6, source, destination, ip_payload) = if ethertype == ETHERTYPE_IPV4.to_be() {
            let ip = ipv4(cursor, ports)?;
            header_offset += size_of::<Ipv4>();
            let payload = u16::from_be(ip.total_len).wrapping_sub(size_of::<Ipv4>() as u16);
            (false, Address::v4(ip.source), Address::v4(ip.destination), payload)
        } else if ethertype == ETHERTYPE_IPV6.to_be() {
            let ip: Ipv6 = cursor.read().map_err(|_| Refusal::Foreign)?;
            if ip.next_header != PROTOCOL_UDP {
                return Err(Refusal::Foreign);
            }
            header_offset += size_of::<Ipv6>();
            (true, Address(ip.source), Address(ip.destination), u16::from_be(ip.payload_len))
        } else {
            return Err(Refusal::Foreign);
        };

        let udp: Udp = cursor.read().map_err(|_| Refusal::Foreign)?;
        if !ports.contain(u16::from_be(udp.destination)) {
            return Err(Refusal::Foreign);
        }
        header_offset += size_of::<Udp>();
        if is_foreign(*cursor) {
            return Err(Refusal::Refused(Reason::ForeignUdp));
        }
        // Short frames arrive padded to Ethernet's minimum, so the UDP length says where the packet ends; it may not
        // reach past the frame, nor disagree with IP's.
        let udp_len = u16::from_be(udp.length);
        let payload_len = udp_len.wrapping_sub(size_of::<Udp>() as u16) as usize;
        if udp_len < size_of::<Udp>() as u16 || udp_len != ip_payload {
            return Err(Refusal::Refused(Reason::BadLength));
        }
        if payload_len > cursor.remaining() {
            return Err(Refusal::Refused(Reason::Truncated));
        }
        let mut start = *cursor;
        let header = match cursor.read::<Header>() {
            Ok(header) if payload_len >= size_of::<Header>() => header,
            _ => {
                let ours = payload_len >= 2 && start.read::<u16>() == Ok(crate::header::MAGIC);
                return Err(Refusal::Refused(if ours { Reason::Truncated } else { Reason::ForeignUdp }));
            }
        };
        match header.check(payload_len) {
            None => Err(Refusal::Refused(Reason::ForeignUdp)),
            Some(Err(reason)) => Err(Refusal::Refused(reason)),
            Some(Ok(kind)) => Ok(Frame {
                header_offset,
                ipv6,
                source,
                destination,
                source_port: u16::from_be(udp.source),
                header,
                kind,
            }),
        }
    }
}

/// Whether a UDP payload starts with something else than our magic. Whatever else is odd about such a packet is its
/// owner's business.
#[inline(always)]
fn is_foreign(mut payload: Cursor<'_>) -> bool {
    payload.read::<u16>().is_ok_and(|magic| magic != crate::header::MAGIC)
}

/// Reads an IPv4 header that carries unfragmented, option-free UDP. Options and fragments to our ports are refused by
/// name; on other ports they are none of our business.
#[inline(always)]
fn ipv4(cursor: &mut Cursor<'_>, ports: Ports) -> Result<Ipv4, Refusal> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let ip: Ipv4 = cursor.read().map_err(|_| Refusal::Foreign)?;
    if ip.protocol != PROTOCOL_UDP {
        return Err(Refusal::Foreign);
    }
    let flags_offset = u16::from_be(ip.flags_offset);
    if flags_offset & OFFSET != 0 {
        return Err(Refusal::Foreign); // no UDP header in here: cannot be told from anyone else's
    }
    if ip.version_ihl == 0x45 && flags_offset & MORE_FRAGMENTS == 0 {
        return Ok(ip);
    }
    // Each step is a compare against the end, and the count goes up from a constant, so that the verifier can follow:
    // at most ten words of options.
    let words = u64::from(ip.version_ihl & 0x0f);
    if words < 5 {
        return Err(Refusal::Foreign); // a header length under 20 bytes
    }
    let mut options = *cursor;
    let mut word = 5;
    while word < words {
        options.skip::<4>().map_err(|_| Refusal::Foreign)?;
        word += 1;
    }
    let udp: Udp = options.read().map_err(|_| Refusal::Foreign)?;
    if !ports.contain(u16::from_be(udp.destination)) {
        return Err(Refusal::Foreign);
    }
    if is_foreign(options) {
        return Err(Refusal::Refused(Reason::ForeignUdp));
    }
    let reason = if ip.version_ihl == 0x45 { Reason::IpFragment } else { Reason::IpOptions };
    Err(Refusal::Refused(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::HEADER_LEN;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PORT: u16 = 7400;
    const PORTS: Ports = Ports { first: PORT, count: 16 };

    fn frame(vlan: bool, ipv6: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if vlan {
            bytes.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let udp_len = (8 + payload.len()) as u16;
        if ipv6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(udp_len.to_be_bytes());
            bytes.extend([17, 64]);
            bytes.extend(core::iter::repeat_n(1, 16).chain(core::iter::repeat_n(2, 16)));
        } else {
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend((20 + udp_len).to_be_bytes());
            bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        bytes.extend(7401u16.to_be_bytes());
        bytes.extend(PORT.to_be_bytes());
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn hello() -> Vec<u8> {
        Header::new(Kind::Hello).as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Frame, Refusal> {
        Frame::decode(&mut Cursor::new(bytes), PORTS)
    }

    #[test]
    fn all_four_stacks_decode() {
        for (vlan, ipv6, offset) in
            [(false, false, 42), (true, false, 46), (false, true, 62), (true, true, 66)]
        {
            let frame = decode(&frame(vlan, ipv6, &hello())).unwrap();
            assert_eq!((frame.header_offset, frame.ipv6, frame.source_port), (offset, ipv6, 7401));
            assert_eq!(IpAddr::from(frame.source).is_ipv6(), ipv6);
        }
    }

    #[test]
    fn foreign_frames_are_left_alone() {
        let mut arp = frame(false, false, &hello());
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let mut tcp = frame(false, false, &hello());
        tcp[23] = 6;
        let mut other_port = frame(false, false, &hello());
        other_port[36..38].copy_from_slice(&53u16.to_be_bytes());
        for (name, bytes) in [("arp", arp), ("tcp", tcp), ("other port", other_port), ("empty", Vec::new())] {
            assert_eq!(decode(&bytes).unwrap_err(), Refusal::Foreign, "{name}");
        }
        let dns = frame(false, false, b"some other protocol's payload on the very same port ......");
        assert_eq!(decode(&dns).unwrap_err(), Refusal::Refused(Reason::ForeignUdp));
        let mut odd_length = dns.clone();
        odd_length[39] ^= 1;
        let mut options = dns.clone();
        options[14] = 0x46;
        options.splice(34..34, [1, 1, 1, 1]);
        for (name, bytes) in [("odd length", odd_length), ("options", options)] {
            assert_eq!(decode(&bytes).unwrap_err(), Refusal::Refused(Reason::ForeignUdp), "{name}");
        }
    }

    #[test]
    fn options_and_fragments_to_our_port_have_names() {
        let mut options = frame(false, false, &hello());
        options[14] = 0x46;
        options.splice(34..34, [1, 1, 1, 1]);
        assert_eq!(decode(&options).unwrap_err(), Refusal::Refused(Reason::IpOptions));
        let mut fragment = frame(false, false, &hello());
        fragment[20] = 0x20;
        assert_eq!(decode(&fragment).unwrap_err(), Refusal::Refused(Reason::IpFragment));
        let mut later = frame(false, false, &hello());
        later[21] = 0x04;
        assert_eq!(decode(&later).unwrap_err(), Refusal::Foreign);
    }

    #[test]
    fn every_truncation_is_refused() {
        for (vlan, ipv6) in [(false, false), (true, false), (false, true), (true, true)] {
            let bytes = frame(vlan, ipv6, &hello());
            for length in 0..bytes.len() {
                let refusal = decode(&bytes[..length]).unwrap_err();
                let expected = match length {
                    l if l < bytes.len() - HEADER_LEN => Refusal::Foreign,
                    _ => Refusal::Refused(Reason::Truncated),
                };
                assert_eq!(refusal, expected, "vlan {vlan} ipv6 {ipv6} at {length}");
            }
        }
    }

    #[test]
    fn padding_of_the_frame_does_not_make_a_short_packet_whole() {
        let mut bytes = frame(false, false, b"TF\x09");
        bytes.resize(bytes.len() + HEADER_LEN, 0);
        assert_eq!(decode(&bytes).unwrap_err(), Refusal::Refused(Reason::Truncated));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), stack in 0..5usize, at in 0..110usize, to in any::<u8>()) {
            let _ = decode(&bytes);
            if stack < 4 {
                let mut near = frame(stack & 1 != 0, stack & 2 != 0, &hello());
                if let Some(byte) = near.get_mut(at) { *byte = to; }
                let _ = decode(&near);
            }
        }
    }
}
