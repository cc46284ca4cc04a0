//! What an interface's driver can do with XDP, asked of the kernel (the `netdev` generic netlink family, since 6.3)
//! without attaching anything.

use anyhow::{Context, Result, bail};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// The driver runs XDP programs.
const XDP_BASIC: u64 = 1 << 0;
/// It can redirect packets, which AF_XDP needs.
const XDP_REDIRECT: u64 = 1 << 1;
/// AF_XDP without copies.
const XDP_ZEROCOPY: u64 = 1 << 3;

const CONTROL_FAMILY: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const NETDEV_DEV_GET: u8 = 1;
const NETDEV_IFINDEX: u16 = 1;
const NETDEV_XDP_FEATURES: u16 = 3;

const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;

/// What a driver can do with XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Asks about the interface with this index.
    ///
    /// # Errors
    /// When the kernel is older than the question, or there is no such interface.
    pub fn of(ifindex: u32) -> Result<Features> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let family = ask(&socket, CONTROL_FAMILY, CONTROL_GET_FAMILY, CONTROL_FAMILY_NAME, b"netdev\0")?;
        let family = attribute(&family, CONTROL_FAMILY_ID).and_then(|bytes| bytes.first_chunk().copied());
        let family = u16::from_ne_bytes(family.context("the kernel does not know netdev")?);
        let device = ask(&socket, family, NETDEV_DEV_GET, NETDEV_IFINDEX, &ifindex.to_ne_bytes())?;
        let features = attribute(&device, NETDEV_XDP_FEATURES).and_then(|bytes| bytes.first_chunk().copied());
        Ok(Features(u64::from_ne_bytes(features.context("the kernel does not say")?)))
    }

    /// Whether the driver itself runs XDP programs and can redirect from them.
    pub fn native(self) -> bool {
        self.0 & (XDP_BASIC | XDP_REDIRECT) == XDP_BASIC | XDP_REDIRECT
    }

    /// Whether AF_XDP works without copying.
    pub fn zero_copy(self) -> bool {
        self.0 & XDP_ZEROCOPY != 0
    }
}

/// One request with one attribute; the attributes of the answer.
fn ask(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> Result<Vec<u8>> {
    socket.send(&request(family, command, kind, value), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    payload(&answer)
}

fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute_len = ATTRIBUTE_HEADER + value.len();
    let length = MESSAGE_HEADER + GENERIC_HEADER + attribute_len.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one question at a time
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_len as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

fn payload(answer: &[u8]) -> Result<Vec<u8>> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.first_chunk().copied()).map(u16::from_ne_bytes);
    match kind.context("the kernel's answer is too short")? {
        NLMSG_ERROR => {
            let code = answer.get(MESSAGE_HEADER..).and_then(|bytes| bytes.first_chunk().copied());
            let code = i32::from_ne_bytes(code.unwrap_or_default());
            bail!("the kernel answers: {}", std::io::Error::from_raw_os_error(-code))
        }
        _ => Ok(answer.get(MESSAGE_HEADER + GENERIC_HEADER..).unwrap_or_default().to_vec()),
    }
}

/// The value of the first attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_hostile_ones_end() {
        let message = request(CONTROL_FAMILY, CONTROL_GET_FAMILY, CONTROL_FAMILY_NAME, b"netdev\0");
        assert_eq!(message.len() % 4, 0);
        let attributes = payload(&message).unwrap();
        assert_eq!(attribute(&attributes, CONTROL_FAMILY_NAME), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&attributes, 9), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 0, 0, 0, 0], 9), None);
        assert_eq!(attribute(&[255, 0, 9, 0], 9), None);
    }
}
