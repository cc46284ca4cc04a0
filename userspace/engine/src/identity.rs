//! Who is at an address, as far as the configuration says.

use std::net::IpAddr;
use std::sync::Arc;
use tollfree_policy::PeerView;
use tollfree_wire::frame::Address;

/// What the configuration says of the hosts of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The name by which policies know them.
    pub name: Option<String>,
    /// The namespace they are in.
    pub namespace: Option<String>,
    /// What else is known of them, by policies' names for it: `label.app`.
    pub named: Vec<(String, String)>,
}

/// The hosts of a network, and who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any of its addresses.
    pub address: IpAddr,
    /// How many leading bits all its addresses share.
    pub bits: u8,
    /// Who they are.
    pub identity: Identity,
}

/// All networks of the configuration, the smallest first.
#[derive(Clone, Debug, Default)]
pub struct Identities(Vec<(Address, u8, Arc<Identity>)>);

impl Identities {
    /// From the configuration's list. Of two networks of one size that overlap, the later one counts.
    pub fn new(networks: Vec<Network>) -> Identities {
        let mapped = networks.into_iter().rev().map(|Network { address, bits, identity }| {
            let bits = if address.is_ipv4() { bits.saturating_add(96) } else { bits };
            (Address::from(address), bits.min(128), Arc::new(identity))
        });
        let mut known: Vec<_> = mapped.collect();
        known.sort_by_key(|(_, bits, _)| std::cmp::Reverse(*bits));
        Identities(known)
    }

    /// Who is at this address, by the smallest network that it is in.
    pub fn of(&self, address: Address) -> Option<Arc<Identity>> {
        let number = |address: Address| u128::from_be_bytes(octets(address));
        let inside = |network: Address, bits: u8| {
            (number(network) ^ number(address)).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        };
        let found = self.0.iter().find(|(network, bits, _)| inside(*network, *bits));
        found.map(|(.., identity)| identity.clone())
    }
}

/// The other end of a session.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Address,
    /// Who that is.
    pub identity: Option<Arc<Identity>>,
    /// How many sessions its host had when this one was opened, itself included.
    pub sessions: u32,
}

impl Peer {
    /// An application on this host.
    pub fn local() -> Peer {
        Peer { address: IpAddr::from([127, 0, 0, 1]).into(), identity: None, sessions: 0 }
    }

    /// As policies see it.
    pub fn view(&self) -> PeerView<'_> {
        let identity = self.identity.as_deref();
        PeerView {
            address: octets(self.address),
            identity: identity.and_then(|identity| identity.name.as_deref()),
            namespace: identity.and_then(|identity| identity.namespace.as_deref()),
            token: None,
            sessions: self.sessions,
            named: identity.map_or(&[], |identity| &identity.named),
        }
    }
}

fn octets(Address(words): Address) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    let mut octets = [0; 16];
    for (to, from) in octets.iter_mut().zip([a, b, c, d].concat()) {
        *to = from;
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_names_its_hosts() {
        let network = |address: &str, bits, name: &str| Network {
            address: address.parse().unwrap(),
            bits,
            identity: Identity { name: Some(name.to_owned()), ..Identity::default() },
        };
        let identities = Identities::new(vec![
            network("10.0.0.0", 8, "office"),
            network("10.0.7.0", 24, "first"),
            network("10.0.7.9", 24, "second"),
            network("10.0.7.1", 32, "desk"),
            network("fd00::", 8, "lab"),
            network("::", 0, "anywhere"),
        ]);
        for (address, name) in [
            ("10.200.0.1", "office"),
            ("10.0.7.2", "second"),
            ("10.0.7.1", "desk"),
            ("fd12::1", "lab"),
            ("192.0.2.1", "anywhere"),
            ("2001:db8::1", "anywhere"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let found = identities.of(address.into()).unwrap();
            assert_eq!(found.name.as_deref(), Some(name), "{address}");
        }
        assert!(Identities::default().of(Address::v4(1)).is_none());
    }
}
