//! How the methods of a session are carried: what this host's transport block names, and what two hosts agree on.

use tollfree_wire::spec::{MethodSpec, SPECS_MAX, SpecEntry};

/// The methods that are carried in another way than reliably, or that somebody has named. By id, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Specs(Vec<(u32, Option<MethodSpec>)>);

/// A list of methods that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Specs {
    /// What a host's own transport block names. The first of several entries for a method counts, and no more than
    /// [`SPECS_MAX`] do: policies that name more do not compile.
    pub fn new(named: &[(u32, MethodSpec)]) -> Specs {
        let mut specs: Vec<_> = named.iter().map(|&(method, spec)| (method, Some(spec))).collect();
        specs.sort_by_key(|(method, _)| *method);
        specs.dedup_by_key(|(method, _)| *method);
        specs.truncate(SPECS_MAX);
        Specs(specs)
    }

    /// How a method is carried; `None` where the ends could not agree.
    #[inline]
    pub fn of(&self, method: u32) -> Option<MethodSpec> {
        if self.0.is_empty() {
            return Some(MethodSpec::default());
        }
        match self.0.binary_search_by_key(&method, |(method, _)| *method) {
            Ok(at) => self.0[at].1,
            Err(_) => Some(MethodSpec::default()),
        }
    }

    /// As a hello or a welcome carries them.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = SpecEntry> {
        self.0.iter().map(|(method, spec)| match spec {
            Some(spec) => SpecEntry::new(*method, spec),
            None => SpecEntry::refusal(*method),
        })
    }

    /// What a server that names these agrees on with a client that names `theirs`: where both name a method,
    /// whatever either asks for; where one does, what it asks for.
    pub fn agree(&self, theirs: &[SpecEntry]) -> Result<Specs, Malformed> {
        let theirs = sorted(theirs, SPECS_MAX)?;
        let mut agreed = Vec::with_capacity(self.0.len() + theirs.len());
        let mut ours = self.0.iter().copied().peekable();
        for entry in theirs {
            while let Some(own) = ours.next_if(|(method, _)| *method < entry.method) {
                agreed.push(own);
            }
            let both = ours.next_if(|(method, _)| *method == entry.method).and_then(|(_, spec)| spec);
            let asked = entry.spec();
            agreed.push((entry.method, asked.map(|asked| both.map_or(asked, |ours| ours.and(asked)))));
        }
        agreed.extend(ours);
        Ok(Specs(agreed))
    }

    /// What a welcome says was agreed on.
    pub fn agreed(entries: &[SpecEntry]) -> Result<Specs, Malformed> {
        let entries = sorted(entries, 2 * SPECS_MAX)?;
        Ok(Specs(entries.iter().map(|entry| (entry.method, entry.spec())).collect()))
    }
}

/// The entries, if they are no more than `limit`, and each method stands once and in order.
fn sorted(entries: &[SpecEntry], limit: usize) -> Result<&[SpecEntry], Malformed> {
    let sound = entries.len() <= limit && entries.is_sorted_by(|a, b| a.method < b.method);
    sound.then_some(entries).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollfree_wire::spec::FLAG_ORDERED;

    const UNRELIABLE: MethodSpec = MethodSpec::UNRELIABLE;

    fn entries(specs: &Specs) -> Vec<SpecEntry> {
        specs.entries().collect()
    }

    #[test]
    fn either_end_may_name_a_method_and_both_get_what_either_asks_for() {
        let ordered = MethodSpec { ordered: true, timeout_us: 50, ..MethodSpec::default() };
        let server = Specs::new(&[(5, UNRELIABLE), (2, UNRELIABLE), (9, ordered)]);
        let client = Specs::new(&[(2, UNRELIABLE), (3, UNRELIABLE), (5, MethodSpec::default())]);
        let agreed = server.agree(&entries(&client)).unwrap();
        assert_eq!((agreed.of(2), agreed.of(3)), (Some(UNRELIABLE), Some(UNRELIABLE)));
        assert_eq!((agreed.of(5), agreed.of(9)), (Some(MethodSpec::default()), Some(ordered)));
        assert_eq!(agreed.of(7), Some(MethodSpec::default()), "nobody names it");
        assert_eq!(Specs::agreed(&entries(&agreed)).unwrap(), agreed, "the client reads the same");
        assert_eq!(client.agree(&entries(&server)).unwrap(), agreed, "whoever serves");
    }

    #[test]
    fn what_is_not_understood_is_refused_for_that_method_alone() {
        let strange = SpecEntry { flags: 0x80 | FLAG_ORDERED, ..SpecEntry::new(4, &MethodSpec::default()) };
        let agreed =
            Specs::new(&[(4, UNRELIABLE)]).agree(&[strange, SpecEntry::new(6, &UNRELIABLE)]).unwrap();
        assert_eq!((agreed.of(4), agreed.of(6)), (None, Some(UNRELIABLE)));
        assert_eq!(Specs::agreed(&entries(&agreed)).unwrap().of(4), None);
    }

    #[test]
    fn lists_that_cannot_be_are_malformed() {
        let entry = |method| SpecEntry::new(method, &UNRELIABLE);
        assert_eq!(Specs::default().agree(&[entry(2), entry(1)]), Err(Malformed));
        assert_eq!(Specs::default().agree(&[entry(2), entry(2)]), Err(Malformed));
        let many: Vec<_> = (1..=SPECS_MAX as u32 + 1).map(entry).collect();
        assert_eq!(Specs::default().agree(&many), Err(Malformed));
        assert!(Specs::default().agree(&many[1..]).is_ok());
    }
}
