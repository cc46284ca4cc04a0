//! How people write times and addresses: in policies, as keys and values of tables, in tests of policies.

use std::net::{IpAddr, Ipv6Addr};

/// Units of time, the longest first, with their ns.
pub(crate) const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// `250ms` in ns; `None` for anything that is not digits and a unit, or too long for 64 bits.
pub(crate) fn duration(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, ns) = UNITS.iter().find(|(known, _)| *known == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*ns)
}

/// In the longest unit that needs no fraction.
pub(crate) fn format_duration(ns: u64) -> String {
    let (unit, each) = unit_of(ns);
    format!("{}{unit}", ns / each)
}

/// The longest unit in which a time needs no fraction, and its ns.
pub(crate) fn unit_of(ns: u64) -> (&'static str, u64) {
    UNITS.into_iter().find(|(_, each)| ns.is_multiple_of(*each) && ns != 0).unwrap_or(("s", 1))
}

/// An address, IPv4 mapped into IPv6.
pub(crate) fn address(text: &str) -> Option<[u8; 16]> {
    Some(match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    })
}

pub(crate) fn format_address(address: [u8; 16]) -> String {
    Ipv6Addr::from(address).to_canonical().to_string()
}

/// `10.0.0.0/8`, or an address alone, as address and number of bits of the mapped form; bits behind the prefix must be
/// zero.
pub(crate) fn cidr(text: &str) -> Option<([u8; 16], u8)> {
    let (host, bits) = text.split_once('/').map_or((text, None), |(host, bits)| (host, Some(bits)));
    let bytes = address(host)?;
    let (before, most) = if host.contains(':') { (0, 128) } else { (96, 32) };
    let bits = match bits {
        Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= most)?,
        None => most,
    };
    let bits = before + bits;
    let behind = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
    (u128::from_be_bytes(bytes) & behind == 0).then_some((bytes, bits))
}

pub(crate) fn format_cidr(address: [u8; 16], bits: u32) -> String {
    let text = format_address(address);
    let bits = if text.contains(':') { bits } else { bits.saturating_sub(96) };
    format!("{text}/{bits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        for text in ["0s", "5ns", "250ms", "30s", "90s", "2h"] {
            assert_eq!(format_duration(duration(text).unwrap()), text);
        }
        assert_eq!(format_duration(duration("60s").unwrap()), "1m");
        for text in ["10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0", "192.0.2.1/32"] {
            let (address, bits) = cidr(text).unwrap();
            assert_eq!(format_cidr(address, bits.into()), text);
        }
        assert_eq!(cidr("192.0.2.1"), cidr("192.0.2.1/32"));
    }

    #[test]
    fn what_is_nothing_is_refused() {
        for text in ["", "5", "ms", "5 ms", "-5s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0/8"] {
            assert_eq!(cidr(text), None, "{text}");
        }
    }
}
