//! The headers before the payload: written from a template per peer, and found again in received frames.
//!
//! Whether a received frame is acceptable was decided by the XDP program; here it is only taken apart.

use tollfree_wire::{
    Cursor,
    checksum::Checksum,
    frame::{
        Address, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, Ipv4, Ipv6, PROTOCOL_UDP, Peer,
        Udp, Vlan,
    },
};
use zerocopy::IntoBytes;

/// Ethernet, a VLAN tag, IPv6 and UDP: the most there is before a payload, in bytes.
pub const HEADERS_MAX: usize = 66;

const UDP_LEN: usize = size_of::<Udp>();
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const VLAN_ID: u16 = 0x0fff;

/// How packets get to a peer: everything in their headers that the peer's address does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// This interface's Ethernet address.
    pub source_mac: [u8; 6],
    /// The peer's, or its gateway's.
    pub next_mac: [u8; 6],
    /// The VLAN's number, 1 to 4094, if the peer is in one.
    pub vlan: Option<u16>,
    /// This host's address, of the peer's family.
    pub source: Address,
}

/// The finished headers of all packets to one peer, except for the port they come from, lengths and checksums.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    bytes: [u8; HEADERS_MAX],
    len: usize,
    family: Family,
    /// Sum over what does not change: the IPv4 header, or the IPv6 pseudo header of addresses, protocol and the peer's port.
    sum: Checksum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Template {
    /// The headers of packets along `path` to `peer`.
    pub fn new(path: &Path, peer: &Peer) -> Template {
        let Path { source_mac, next_mac, vlan, source } = *path;
        let family = if is_v4(peer.address) { Family::V4 } else { Family::V6 };
        let ip_type = match family {
            Family::V4 => ETHERTYPE_IPV4.to_be(),
            Family::V6 => ETHERTYPE_IPV6.to_be(),
        };
        let mut headers = Writer { bytes: [0; HEADERS_MAX], len: 0 };
        let ethertype = if vlan.is_some() { ETHERTYPE_VLAN.to_be() } else { ip_type };
        headers.put(&Ethernet { destination: next_mac, source: source_mac, ethertype });
        if let Some(id) = vlan {
            headers.put(&Vlan { control: (id & VLAN_ID).to_be(), ethertype: ip_type });
        }
        let udp = Udp { source: 0, destination: peer.port.to_be(), length: 0, checksum: 0 };
        let sum = match family {
            Family::V4 => {
                let ip = Ipv4 {
                    version_ihl: 0x45,
                    dscp_ecn: ECN_CAPABLE,
                    total_len: 0,
                    identification: 0,
                    flags_offset: DONT_FRAGMENT.to_be(),
                    ttl: TTL,
                    protocol: PROTOCOL_UDP,
                    checksum: 0,
                    source: source.0[3],
                    destination: peer.address.0[3],
                };
                headers.put(&ip);
                Checksum::default().bytes(ip.as_bytes())
            }
            Family::V6 => {
                let ip = Ipv6 {
                    version_class_flow: (6u32 << 28 | u32::from(ECN_CAPABLE) << 20).to_be(),
                    payload_len: 0,
                    next_header: PROTOCOL_UDP,
                    hop_limit: TTL,
                    source: source.0,
                    destination: peer.address.0,
                };
                headers.put(&ip);
                Checksum::default()
                    .bytes(ip.source.as_bytes())
                    .bytes(ip.destination.as_bytes())
                    .word(u32::from(PROTOCOL_UDP).to_be())
                    .bytes(udp.as_bytes())
            }
        };
        headers.put(&udp);
        Template { bytes: headers.bytes, len: headers.len, family, sum }
    }

    /// How many bytes the headers take.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes the headers into a frame from a UDP port of this host, whose payload stands behind them already.
    pub fn write(&self, source_port: u16, frame: &mut [u8]) {
        let (headers, payload) = frame.split_at_mut(self.len);
        headers.copy_from_slice(&self.bytes[..self.len]);
        let udp_len = (UDP_LEN + payload.len()) as u16;
        let (rest, udp) = headers.split_at_mut(self.len - UDP_LEN);
        udp[..2].copy_from_slice(&source_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        match self.family {
            Family::V4 => {
                let at = rest.len() - size_of::<Ipv4>();
                let ip = &mut rest[at..];
                let total_len = udp_len + size_of::<Ipv4>() as u16;
                ip[2..4].copy_from_slice(&total_len.to_be_bytes());
                let sum = self.sum.word(u32::from(total_len.to_be())).finish();
                ip[10..12].copy_from_slice(&sum.to_ne_bytes());
                // UDP's own checksum is optional on IPv4 and left out: the tag covers what matters.
            }
            Family::V6 => {
                let at = rest.len() - size_of::<Ipv6>();
                rest[at + 4..at + 6].copy_from_slice(&udp_len.to_be_bytes());
                // The length counts twice: in the pseudo header and in UDP's.
                let sum =
                    self.sum.pair(udp_len.to_be(), udp_len.to_be()).word(u32::from(source_port.to_be()));
                let sum = sum.bytes(payload).finish_udp();
                udp[6..8].copy_from_slice(&sum.to_ne_bytes());
            }
        }
    }
}

struct Writer {
    bytes: [u8; HEADERS_MAX],
    len: usize,
}

impl Writer {
    fn put<T: IntoBytes + zerocopy::Immutable>(&mut self, header: &T) {
        let bytes = header.as_bytes();
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Whether an address is an IPv4 one in its mapped form.
pub fn is_v4(address: Address) -> bool {
    Address::v4(address.0[3]) == address
}

/// What packets leave with in the two ECN bits: ECT(0), "mark me rather than drop me".
pub const ECN_CAPABLE: u8 = 0b10;

/// Whether a traffic class says that congestion was experienced.
pub fn is_marked(class: u8) -> bool {
    class & 0b11 == 0b11
}

/// A received frame, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Who sent it.
    pub from: Peer,
    /// The UDP payload, without Ethernet's padding.
    pub payload: &'a [u8],
    /// Routers on its way were congested.
    pub marked: bool,
    /// The way back: the frame's addresses with their roles exchanged.
    pub back: Path,
}

/// Takes a frame apart; `None` if it is not UDP over IP as [`tollfree_wire::Frame::decode`] accepts it.
pub fn parse(frame: &[u8]) -> Option<Incoming<'_>> {
    let mut cursor = Cursor::new(frame);
    let ethernet: Ethernet = cursor.read().ok()?;
    let mut ethertype = ethernet.ethertype;
    let mut vlan = None;
    if ethertype == ETHERTYPE_VLAN.to_be() {
        let tag: Vlan = cursor.read().ok()?;
        ethertype = tag.ethertype;
        vlan = Some(u16::from_be(tag.control) & VLAN_ID);
    }
    let (source, destination, ecn) = if ethertype == ETHERTYPE_IPV4.to_be() {
        let ip: Ipv4 = cursor.read().ok()?;
        if ip.version_ihl != 0x45 || ip.protocol != PROTOCOL_UDP {
            return None;
        }
        (Address::v4(ip.source), Address::v4(ip.destination), ip.dscp_ecn)
    } else if ethertype == ETHERTYPE_IPV6.to_be() {
        let ip: Ipv6 = cursor.read().ok()?;
        if ip.next_header != PROTOCOL_UDP {
            return None;
        }
        (Address(ip.source), Address(ip.destination), (u32::from_be(ip.version_class_flow) >> 20) as u8)
    } else {
        return None;
    };
    let udp: Udp = cursor.read().ok()?;
    let payload = cursor.take(usize::from(u16::from_be(udp.length)).checked_sub(UDP_LEN)?).ok()?;
    Some(Incoming {
        from: Peer { address: source, port: u16::from_be(udp.source) },
        payload,
        marked: is_marked(ecn),
        back: Path {
            source_mac: ethernet.destination,
            next_mac: ethernet.source,
            vlan: vlan.filter(|id| *id != 0),
            source: destination,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use tollfree_wire::{Frame, Header, Kind};

    const PORT: u16 = 7400;

    fn payload(body: &[u8]) -> Vec<u8> {
        let mut header = Header::new(Kind::Hello);
        header.message_len = body.len() as u32;
        [header.as_bytes(), body].concat()
    }

    fn build(template: &Template, source_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xee; template.len()];
        frame.extend(payload);
        template.write(source_port, &mut frame);
        frame
    }

    fn addresses(ipv6: bool, from: [u8; 16], to: [u8; 16]) -> (Address, Address) {
        let address = |bytes: [u8; 16]| -> Address {
            if ipv6 {
                // Never a mapped IPv4 address.
                let mut bytes = bytes;
                bytes[0] = 0x20;
                IpAddr::V6(Ipv6Addr::from(bytes)).into()
            } else {
                IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])).into()
            }
        };
        (address(from), address(to))
    }

    proptest! {
        #[test]
        fn what_is_built_is_decoded(
            ipv6: bool, vlan in proptest::option::of(1..4095u16), macs: [[u8; 6]; 2], from: [u8; 16], to: [u8; 16],
            source_port: u16, body in proptest::collection::vec(any::<u8>(), 0..1300), padding in 0..20usize,
        ) {
            let (source, destination) = addresses(ipv6, from, to);
            let path = Path { source_mac: macs[0], next_mac: macs[1], vlan, source };
            let peer = Peer { address: destination, port: PORT };
            let template = Template::new(&path, &peer);
            let payload = payload(&body);
            let mut frame = build(&template, source_port, &payload);

            let decoded = Frame::decode(&mut Cursor::new(&frame), PORT.into()).unwrap();
            prop_assert_eq!(decoded.header_offset, template.len());
            prop_assert_eq!((decoded.ipv6, decoded.source, decoded.destination), (ipv6, source, destination));
            prop_assert_eq!(decoded.source_port, source_port);
            prop_assert_eq!(&frame[..6], &macs[1]);
            prop_assert_eq!(&frame[6..12], &macs[0]);
            prop_assert_eq!(&frame[template.len()..], &payload[..]);

            let udp_at = template.len() - UDP_LEN;
            if ipv6 {
                // A receiver sums the pseudo header and the whole datagram, checksum included, to zero.
                let ip_at = udp_at - size_of::<Ipv6>();
                let udp_len = (frame.len() - udp_at) as u32;
                let sum = Checksum::default().bytes(&frame[ip_at + 8..udp_at]).word(udp_len.to_be())
                    .word(u32::from(PROTOCOL_UDP).to_be()).bytes(&frame[udp_at..]).finish();
                prop_assert_eq!(sum, 0);
                prop_assert_ne!(&frame[udp_at + 6..udp_at + 8], &[0, 0]);
            } else {
                let ip_at = udp_at - size_of::<Ipv4>();
                prop_assert_eq!(Checksum::default().bytes(&frame[ip_at..udp_at]).finish(), 0);
                prop_assert_eq!(&frame[udp_at + 6..udp_at + 8], &[0, 0]);
            }

            frame.resize(frame.len() + padding, 0);
            let incoming = parse(&frame).unwrap();
            prop_assert_eq!(incoming.from, Peer { address: source, port: source_port });
            prop_assert_eq!(incoming.payload, &payload[..]);
            let back = Path { source_mac: macs[1], next_mac: macs[0], vlan, source: destination };
            prop_assert_eq!(incoming.back, back);
            prop_assert!(!incoming.marked);
            let class = udp_at - if ipv6 { size_of::<Ipv6>() - 1 } else { size_of::<Ipv4>() - 1 };
            frame[class] |= if ipv6 { 0x30 } else { 0x03 };
            prop_assert!(parse(&frame).unwrap().marked);
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0..70usize, to: u8) {
            let _ = parse(&bytes);
            let path = Path { source_mac: [2; 6], next_mac: [4; 6], vlan: None, source: Address::v4(1) };
            let mut near = build(&Template::new(&path, &Peer { address: Address::v4(2), port: PORT }), 1, &payload(b""));
            near[at] = to;
            let _ = parse(&near);
        }
    }
}
