//! Which layouts this host and its peers have agreed on. A method is not called on a peer before the peer has said that
//! it reads the caller's layout as the caller writes it.

use std::collections::HashMap;
use tollfree_wire::frame::Peer;

/// Calls that may wait for one answer.
const WAITING_MAX: usize = 4096;
/// Agreements that are kept at once. With more, old ones are forgotten, and asked for again when they are needed.
const BINDINGS_MAX: usize = 8192;
/// How long a refusal is believed before the peer is asked again, in ns: its service may have been upgraded.
const REFUSAL_NS: u64 = 1_000_000_000;

/// What an agreement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub peer: Peer,
    pub method: u32,
    pub layout: u32,
}

/// A call that waits for an agreement: its key in `outgoing`, its flat block.
#[derive(Debug)]
pub struct WaitingCall {
    pub token: u64,
    pub flat: Vec<u8>,
}

#[derive(Debug)]
enum Binding {
    Asking { question: Vec<u8>, waiting: Vec<WaitingCall> },
    Agreed,
    Refused { why: String, until_ns: u64 },
}

/// What to do with a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Send it.
    Agreed,
    /// It waits; `ask` says whether the peer is yet to be asked.
    Wait { ask: bool },
    /// The peer cannot serve it.
    Refused(&'a str),
    /// Too many wait already.
    Crowded,
}

/// The agreements with all peers.
#[derive(Debug, Default)]
pub struct Bindings(HashMap<Key, Binding>);

impl Bindings {
    /// What is known about a key. `question` makes the message to the peer when nothing is.
    pub fn look_up(&mut self, key: Key, now: u64, question: impl FnOnce() -> Vec<u8>) -> Answer<'_> {
        if let Some(Binding::Refused { until_ns, .. }) = self.0.get(&key)
            && *until_ns <= now
        {
            self.0.remove(&key);
        }
        if self.0.len() >= BINDINGS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, binding| matches!(binding, Binding::Asking { .. }));
            if self.0.len() >= BINDINGS_MAX {
                return Answer::Crowded;
            }
        }
        let mut ask = false;
        let binding = self.0.entry(key).or_insert_with(|| {
            ask = true;
            Binding::Asking { question: question(), waiting: Vec::new() }
        });
        match binding {
            Binding::Agreed => Answer::Agreed,
            Binding::Refused { why, .. } => Answer::Refused(why),
            Binding::Asking { waiting, .. } if waiting.len() >= WAITING_MAX => Answer::Crowded,
            Binding::Asking { .. } => Answer::Wait { ask },
        }
    }

    /// Queues a call until the answer comes.
    pub fn wait(&mut self, key: Key, call: WaitingCall) {
        if let Some(Binding::Asking { waiting, .. }) = self.0.get_mut(&key) {
            waiting.push(call);
        }
    }

    /// The question under way for a key.
    pub fn question(&self, key: &Key) -> Option<&[u8]> {
        match self.0.get(key)? {
            Binding::Asking { question, .. } => Some(question),
            Binding::Agreed | Binding::Refused { .. } => None,
        }
    }

    /// Notes that the peer agrees; returns the calls that waited.
    pub fn agree(&mut self, key: Key) -> Vec<WaitingCall> {
        Self::waiting(self.0.insert(key, Binding::Agreed))
    }

    /// Notes that the peer cannot serve this layout; returns the calls that waited.
    pub fn refuse(&mut self, key: Key, now: u64, why: &str) -> Vec<WaitingCall> {
        let refused = Binding::Refused { why: why.to_owned(), until_ns: now.saturating_add(REFUSAL_NS) };
        Self::waiting(self.0.insert(key, refused))
    }

    /// Forgets a key, so that the next call asks again; returns the calls that waited.
    pub fn forget(&mut self, key: &Key) -> Vec<WaitingCall> {
        Self::waiting(self.0.remove(key))
    }

    /// Forgets what was agreed on, so that the next call asks again. A question under way stays: calls wait for it.
    pub fn doubt(&mut self, key: &Key) {
        if let Some(Binding::Agreed) = self.0.get(key) {
            self.0.remove(key);
        }
    }

    /// Forgets what was agreed with a peer whose session is over. Questions under way stay: the transport ends them.
    pub fn forget_peer(&mut self, peer: Peer) {
        self.0.retain(|key, binding| key.peer != peer || matches!(binding, Binding::Asking { .. }));
    }

    /// Takes a call that no longer waits out of its queue.
    pub fn withdraw(&mut self, token: u64) {
        for binding in self.0.values_mut() {
            if let Binding::Asking { waiting, .. } = binding {
                waiting.retain(|call| call.token != token);
            }
        }
    }

    fn waiting(binding: Option<Binding>) -> Vec<WaitingCall> {
        match binding {
            Some(Binding::Asking { waiting, .. }) => waiting,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key =
        Key { peer: Peer { address: tollfree_wire::frame::Address([0; 4]), port: 1 }, method: 2, layout: 3 };

    #[test]
    fn one_question_is_asked_and_all_who_wait_are_told() {
        let mut bindings = Bindings::default();
        assert_eq!(bindings.look_up(KEY, 0, || vec![1]), Answer::Wait { ask: true });
        bindings.wait(KEY, WaitingCall { token: 7, flat: vec![] });
        assert_eq!(bindings.look_up(KEY, 0, || vec![2]), Answer::Wait { ask: false });
        bindings.wait(KEY, WaitingCall { token: 8, flat: vec![] });
        assert_eq!(bindings.question(&KEY), Some(&[1][..]));
        bindings.withdraw(7);
        assert_eq!(bindings.agree(KEY).iter().map(|call| call.token).collect::<Vec<_>>(), [8]);
        assert_eq!(bindings.look_up(KEY, 0, Vec::new), Answer::Agreed);
        bindings.forget_peer(KEY.peer);
        assert_eq!(bindings.look_up(KEY, 0, Vec::new), Answer::Wait { ask: true });
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut bindings = Bindings::default();
        for layout in 0..BINDINGS_MAX as u32 {
            bindings.agree(Key { layout, ..KEY });
        }
        let next = Key { layout: u32::MAX, ..KEY };
        assert_eq!(bindings.look_up(next, 0, Vec::new), Answer::Wait { ask: true });
        assert_eq!(bindings.0.len(), 1, "the others are asked for again");
        for layout in 0..BINDINGS_MAX as u32 - 1 {
            bindings.look_up(Key { layout, ..KEY }, 0, Vec::new);
        }
        let one_more = Key { layout: u32::MAX - 1, ..KEY };
        assert_eq!(bindings.look_up(one_more, 0, Vec::new), Answer::Crowded, "all of them are being asked");
    }

    #[test]
    fn a_refusal_is_believed_for_a_second() {
        let mut bindings = Bindings::default();
        bindings.refuse(KEY, 5, "no");
        assert_eq!(bindings.look_up(KEY, 5 + REFUSAL_NS - 1, Vec::new), Answer::Refused("no"));
        assert_eq!(bindings.look_up(KEY, 5 + REFUSAL_NS, Vec::new), Answer::Wait { ask: true });
    }
}
