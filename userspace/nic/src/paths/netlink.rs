//! Questions to the kernel's routing tables, one at a time.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{self, Timeout};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// The kernel answers at once; this only keeps a bug from hanging the thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// An interface.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zeros if it has none.
    pub mac: [u8; 6],
    /// The longest IP packet it carries, in bytes.
    pub mtu: u32,
    /// What it is a VLAN of.
    pub vlan: Option<Vlan>,
}

/// What makes an interface a VLAN.
#[derive(Clone, Copy, Debug)]
pub struct Vlan {
    /// The number of the interface that its packets leave by.
    pub parent: u32,
    /// The VLAN's number.
    pub id: u16,
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// To one host.
    Unicast {
        /// By the interface of this number.
        oif: u32,
        /// To this router, unless directly.
        gateway: Option<IpAddr>,
        /// From this address.
        source: Option<IpAddr>,
    },
    /// Nowhere: it is ours.
    Local,
    /// A broadcast, a black hole and the like.
    Other(RouteType),
}

/// What is known of a neighbour's Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Confirmed lately.
    Reachable([u8; 6]),
    /// Known, to be confirmed.
    Stale([u8; 6]),
    /// Not known, perhaps being asked for.
    Unknown,
    /// Asked for in vain.
    Failed,
}

impl Link {
    /// Looks an interface up by its name, in the calling thread's network namespace.
    pub fn by_name(name: &str) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Client::open()?.get_link(message)
    }
}

/// A connection to the kernel.
pub struct Client {
    socket: Socket,
    sequence: u32,
}

impl Client {
    /// Connects, in the calling thread's network namespace.
    pub fn open() -> io::Result<Client> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // SAFETY: the descriptor is open as long as `socket`, which outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        sockopt::set_socket_timeout(fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Client { socket, sequence: 0 })
    }

    /// Sends a request and returns its answer: a message, or nothing but consent.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if reply.header.sequence_number != self.sequence {
                continue; // an answer that came after its question had been given up
            }
            return match reply.payload {
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(None),
            };
        }
    }

    /// Where packets to `address` go.
    pub fn route(&mut self, address: IpAddr) -> io::Result<Route> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let Some(RouteNetlinkMessage::NewRoute(route)) =
            self.ask(RouteNetlinkMessage::GetRoute(message), 0)?
        else {
            return Err(unexpected());
        };
        match route.header.kind {
            RouteType::Unicast => {}
            RouteType::Local => return Ok(Route::Local),
            other => return Ok(Route::Other(other)),
        }
        let (mut oif, mut gateway, mut source) = (None, None, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => oif = Some(index),
                RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
                    gateway = Some(IpAddr::V4(v4))
                }
                RouteAttribute::Gateway(RouteAddress::Inet6(v6))
                | RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(v6)),
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(IpAddr::V4(v4)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => source = Some(IpAddr::V6(v6)),
                _ => {}
            }
        }
        Ok(Route::Unicast { oif: oif.ok_or_else(unexpected)?, gateway, source })
    }

    /// What is known of the neighbour `address` on the interface `index`.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> io::Result<Neighbour> {
        let message = neighbour_message(index, address);
        let reply = match self.ask(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Neighbour::Unknown),
            reply => reply?,
        };
        let Some(RouteNetlinkMessage::NewNeighbour(entry)) = reply else { return Err(unexpected()) };
        let mac = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLocalAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        Ok(match (entry.header.state, mac) {
            (NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => {
                Neighbour::Reachable(mac)
            }
            (NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => {
                Neighbour::Stale(mac)
            }
            (NeighbourState::Failed, _) => Neighbour::Failed,
            _ => Neighbour::Unknown,
        })
    }

    /// Makes the kernel ask for, or confirm, a neighbour's address, as if it had a packet for it. Needs
    /// CAP_NET_ADMIN.
    pub fn probe(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(index, address);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).map(|_| ())
    }

    /// The interface of the number `index`.
    pub fn link(&mut self, index: u32) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message)
    }

    fn get_link(&mut self, message: LinkMessage) -> io::Result<Link> {
        let Some(RouteNetlinkMessage::NewLink(link)) = self.ask(RouteNetlinkMessage::GetLink(message), 0)?
        else {
            return Err(unexpected());
        };
        let mut result =
            Link { index: link.header.index, name: String::new(), mac: [0; 6], mtu: 0, vlan: None };
        let (mut parent, mut id) = (None, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => result.name = name,
                LinkAttribute::Address(bytes) => result.mac = bytes.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => result.mtu = mtu,
                LinkAttribute::Link(index) => parent = Some(index),
                LinkAttribute::LinkInfo(infos) => id = infos.iter().find_map(vlan_id),
                _ => {}
            }
        }
        result.vlan = parent.zip(id).map(|(parent, id)| Vlan { parent, id });
        Ok(result)
    }
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(settings)) = info else { return None };
    settings.iter().find_map(|setting| match setting {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn neighbour_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not of the expected kind")
}
