//! Batches of datagrams: `recvmmsg` and `sendmmsg` over buffers allocated once.

use super::BATCH;
use crate::Received;
use crate::headers::is_marked;
use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::RawFd,
};
use tollfree_wire::frame::{Address, Peer};

/// Datagrams as received.
pub struct RxBatch {
    bytes: Box<[u8]>,
    stride: usize,
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    /// Length of each datagram in bytes, `None` if it did not fit, and whether it is marked.
    lengths: [(Option<usize>, bool); BATCH],
}

/// Room for what the kernel says besides a datagram: its traffic class.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl RxBatch {
    /// Buffers for datagrams of up to `stride` bytes.
    pub fn new(stride: usize) -> RxBatch {
        RxBatch {
            bytes: vec![0; stride * BATCH].into_boxed_slice(),
            stride,
            names: Box::new([empty_name(); BATCH]),
            controls: Box::new([Control([0; 64]); BATCH]),
            lengths: [(None, false); BATCH],
        }
    }

    /// Receives up to `wanted` datagrams and says how many there are.
    pub fn receive(&mut self, socket: RawFd, wanted: usize) -> io::Result<usize> {
        let wanted = wanted.min(BATCH);
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut messages = [empty_message(); BATCH];
        let names = self.names.iter_mut().zip(self.controls.iter_mut());
        let parts = self.bytes.chunks_exact_mut(self.stride.max(1)).zip(names);
        for ((vector, message), (bytes, (name, control))) in
            vectors.iter_mut().zip(&mut messages).zip(parts).take(wanted)
        {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            message.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
            message.msg_hdr.msg_controllen = size_of::<Control>();
        }
        // SAFETY: the first `wanted` messages point to one vector, one name, one control buffer and one part of `bytes`
        // each, all of which outlive the call and are not otherwise used during it.
        let got = unsafe {
            libc::recvmmsg(
                socket,
                messages.as_mut_ptr(),
                wanted as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (length, message) in self.lengths.iter_mut().zip(&messages[..got]) {
            let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            *length = (whole.then_some(message.msg_len as usize), is_marked(class(&message.msg_hdr)));
        }
        Ok(got)
    }

    /// One datagram of the last batch; `None` if it was too long or from no IP address.
    pub fn packet(&self, at: usize) -> Option<Received<'_>> {
        let start = at * self.stride;
        let (length, marked) = self.lengths[at];
        let payload = self.bytes.get(start..start + length?)?;
        Some(Received { from: peer(&self.names[at])?, payload, marked })
    }
}

/// The traffic class of a datagram just received; 0 where the kernel does not say.
fn class(message: &libc::msghdr) -> u8 {
    // SAFETY: the header and the control buffer that it points to were filled by the kernel in the call before.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header of a control message within the buffer.
    while let Some(header) = unsafe { control.as_ref() } {
        // One byte for IPv4, an `int` for IPv6, of which the lowest byte counts.
        let wanted = match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TOS) => Some(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if cfg!(target_endian = "big") => Some(3),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => Some(0),
            _ => None,
        };
        if let Some(at) = wanted {
            // SAFETY: the kernel has written at least that many bytes behind a header of this type.
            let data = unsafe { libc::CMSG_DATA(control) };
            // SAFETY: as above.
            let data = unsafe { data.add(at) };
            // SAFETY: as above.
            return unsafe { data.read() };
        }
        // SAFETY: the header is one of this message's.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    0
}

/// Datagrams waiting to be sent: a queue that is refilled only once it ran empty.
pub struct TxBatch {
    bytes: Box<[u8]>,
    stride: usize,
    names: Box<[(libc::sockaddr_storage, u32); BATCH]>,
    lengths: [usize; BATCH],
    /// The first not sent yet.
    start: usize,
    /// One past the last staged.
    end: usize,
}

impl TxBatch {
    /// Buffers for datagrams of up to `stride` bytes.
    pub fn new(stride: usize) -> TxBatch {
        TxBatch {
            bytes: vec![0; stride * BATCH].into_boxed_slice(),
            stride,
            names: Box::new([(empty_name(), 0); BATCH]),
            lengths: [0; BATCH],
            start: 0,
            end: 0,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether another one would need a send first.
    pub fn is_full(&self) -> bool {
        self.end == BATCH
    }

    /// The buffer of one more datagram, if there is room.
    pub fn stage(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if self.is_full() || len > self.stride {
            return None;
        }
        let at = self.end;
        self.names[at] = name(to);
        self.lengths[at] = len;
        self.end += 1;
        let start = at * self.stride;
        self.bytes.get_mut(start..start + len)
    }

    /// Sends what waits and says how many went; the rest stays. An error means that none went.
    pub fn send(&mut self, socket: RawFd) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut messages = [empty_message(); BATCH];
        let count = self.len();
        for (slot, at) in (self.start..self.end).enumerate() {
            let bytes = &mut self.bytes[at * self.stride..][..self.lengths[at]];
            vectors[slot] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let header = &mut messages[slot].msg_hdr;
            header.msg_iov = &mut vectors[slot];
            header.msg_iovlen = 1;
            header.msg_name = std::ptr::from_mut(&mut self.names[at].0).cast();
            header.msg_namelen = self.names[at].1;
        }
        // SAFETY: the first `count` messages point to one vector, one name and one part of `bytes` each, all of
        // which outlive the call.
        let sent = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.start += sent;
        Ok(sent)
    }

    /// Gives up the first datagram that waits.
    pub fn skip(&mut self) {
        if !self.is_empty() {
            self.start += 1;
        }
    }
}

fn empty_name() -> libc::sockaddr_storage {
    // SAFETY: a `sockaddr_storage` is plain numbers; all zero is "no address".
    unsafe { mem::zeroed() }
}

fn empty_message() -> libc::mmsghdr {
    // SAFETY: a `mmsghdr` is numbers and pointers; all zero is an empty message.
    unsafe { mem::zeroed() }
}

/// The kernel's form of an address, and how many bytes of it count.
fn name(address: SocketAddr) -> (libc::sockaddr_storage, u32) {
    let mut storage = empty_name();
    let len = match address {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_storage` has room and alignment for every kind of address.
            unsafe { std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>().write(name) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>().write(name) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as u32)
}

/// The peer behind an address in the kernel's form.
fn peer(storage: &libc::sockaddr_storage) -> Option<Peer> {
    let (address, port) = match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what the storage, which has room for it, holds.
            let name = unsafe { std::ptr::from_ref(storage).cast::<libc::sockaddr_in>().read() };
            (
                Address::from(std::net::IpAddr::V4(Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()))),
                name.sin_port,
            )
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>().read() };
            (Address::from(std::net::IpAddr::V6(Ipv6Addr::from(name.sin6_addr.s6_addr))), name.sin6_port)
        }
        _ => return None,
    };
    Some(Peer { address, port: u16::from_be(port) })
}
