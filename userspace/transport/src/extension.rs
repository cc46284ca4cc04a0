//! What a method's transport adds to its messages: the order of requests before the body, a checksum behind each
//! fragment's. Methods that ask for neither add nothing.

use crate::window::Window;
use tollfree_wire::Reason;
use tollfree_wire::header::{Header, Packet};
use tollfree_wire::spec::{CHECKSUM_LEN, MethodSpec, ORDER_LEN};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of an ordered method's request, before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Order {
    /// Counts the ordered calls of the session, from 0, wrapping.
    pub number: u32,
    /// The lowest number that its client still wants: who waits for a lower one waits in vain.
    pub floor: u32,
}

const _: () = assert!(size_of::<Order>() == ORDER_LEN);

/// Whether number `a` comes before `b`. There are never more than 2³¹ between two that matter.
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Bytes before the body of a method's requests.
#[inline]
pub(crate) fn order_len(spec: &MethodSpec) -> u32 {
    if spec.ordered { ORDER_LEN as u32 } else { 0 }
}

/// Bytes behind the body in each packet of a method.
#[inline]
pub(crate) fn checksum_len(spec: &MethodSpec) -> u32 {
    if spec.checksum { CHECKSUM_LEN as u32 } else { 0 }
}

/// The length that packets of a message announce: with the checksums of all fragments.
#[inline]
pub(crate) fn message_len(spec: &MethodSpec, window: &Window) -> u32 {
    window.length() + checksum_len(spec) * window.fragments()
}

/// Checks a packet's checksum and takes it off.
pub(crate) fn unsealed<'a>(packet: &Packet<'a>) -> Result<Packet<'a>, Reason> {
    let Header { message_len, fragments, .. } = packet.header;
    let (body, checksum) = packet.body.split_last_chunk().ok_or(Reason::BadLength)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(Reason::BadChecksum);
    }
    let checksums = CHECKSUM_LEN as u32 * u32::from(fragments);
    let message_len = message_len.checked_sub(checksums).ok_or(Reason::BadLength)?;
    // What `Header::check` found to hold of the packet as it came must hold of what is left of it.
    let complete = body.len() == message_len as usize;
    let sound = body.len() <= message_len as usize && complete == (fragments == 1);
    if !sound || (fragments > 1 && body.is_empty()) {
        return Err(Reason::BadLength);
    }
    Ok(Packet { header: Header { message_len, ..packet.header }, body, ..*packet })
}

/// Takes an ordered request's order off its message.
pub(crate) fn split_order(message: &[u8]) -> Result<(Order, &[u8]), Reason> {
    Order::read_from_prefix(message).map_err(|_| Reason::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tollfree_wire::Kind;

    proptest! {
        #[test]
        fn one_wrong_bit_is_noticed_and_lengths_stay_sound(body in proptest::collection::vec(any::<u8>(), 0..200), bit in any::<u16>(), fragments in 1..6u16, more in 0..50u32) {
            let mut bytes = body.clone();
            bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            let message_len = bytes.len() as u32 + if fragments == 1 { 0 } else { more + 1 };
            let header = Header { message_len, fragments, ..Header::new(Kind::Request) };
            fn packet(header: Header, body: &[u8]) -> Packet<'_> {
                Packet { header, kind: Kind::Request, flat: &[], flat_padded: &[], body, marked: false }
            }
            if let Ok(opened) = unsealed(&packet(header, &bytes)) {
                prop_assert_eq!(opened.body, &body[..]);
                prop_assert!(opened.body.len() as u32 <= opened.header.message_len);
            } else {
                prop_assert!(fragments > 1);
            }
            let at = usize::from(bit) % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(unsealed(&packet(header, &bytes)).err(), Some(Reason::BadChecksum));
        }
    }
}
