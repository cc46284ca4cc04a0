//! How methods are carried: what the transport blocks of this host's two policies name, as one list for the transport.

use crate::command::Side;
use std::collections::BTreeMap;
use tollfree_wire::spec::{MethodSpec, SPECS_MAX};

/// What each side's policy names.
#[derive(Debug, Default)]
pub struct Carriage {
    server: Vec<(u32, MethodSpec)>,
    client: Vec<(u32, MethodSpec)>,
}

/// More methods than two hosts can agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the transport blocks of both sides name {0} methods; two hosts can agree on {SPECS_MAX}: name only methods that \
     are not to be reliable()"
)]
pub struct TooMany(usize);

impl Carriage {
    /// Replaces what one side's policy names. Returns what both name together: where both name a method, whatever
    /// either asks for.
    pub fn replace(
        &mut self,
        side: Side,
        named: Vec<(u32, MethodSpec)>,
    ) -> Result<Vec<(u32, MethodSpec)>, TooMany> {
        let other = match side {
            Side::Server => &self.client,
            Side::Client => &self.server,
        };
        let mut all: BTreeMap<u32, MethodSpec> = BTreeMap::new();
        for &(method, spec) in named.iter().chain(other) {
            all.entry(method).and_modify(|known| *known = known.and(spec)).or_insert(spec);
        }
        if all.len() > SPECS_MAX {
            return Err(TooMany(all.len()));
        }
        match side {
            Side::Server => self.server = named,
            Side::Client => self.client = named,
        }
        Ok(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_heard_and_one_can_take_its_word_back() {
        let (reliable, unreliable) = (MethodSpec::default(), MethodSpec::UNRELIABLE);
        let mut carriage = Carriage::default();
        assert_eq!(carriage.replace(Side::Server, vec![(2, unreliable)]), Ok(vec![(2, unreliable)]));
        let both = carriage.replace(Side::Client, vec![(2, reliable), (1, unreliable)]);
        assert_eq!(both, Ok(vec![(1, unreliable), (2, reliable)]));
        let many = (10..10 + SPECS_MAX as u32).map(|method| (method, unreliable)).collect();
        assert_eq!(carriage.replace(Side::Server, many), Err(TooMany(SPECS_MAX + 2)));
        assert_eq!(carriage.replace(Side::Client, vec![]), Ok(vec![(2, unreliable)]));
    }
}
