//! Handshake messages and what makes them trustworthy: cookies, nonces, proofs, keys. All of it is HMAC-SHA256 under
//! different labels. Which state follows from a message is said in `connect` (client) and `accept` (server).

use crate::specs::Specs;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tollfree_wire::Reason;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::spec::{SPECS_MAX, SpecEntry};
use tollfree_wire::tag::Key;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How long a cookie's time bucket is; a cookie is good for the rest of its bucket and the next, in ns.
const COOKIE_BUCKET_NS: u64 = 8_000_000_000;

/// A client's wish for a session. Longer than any answer to it, so that nobody is flooded through a server.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Hello {
    /// The client's index for the session.
    pub session: u32,
    /// Grows with every start of the client.
    pub epoch: u32,
    /// Random; names this attempt.
    pub nonce: [u8; 16],
    /// From the server's challenge; zeros before it.
    pub cookie: [u8; 32],
    /// Proves the shared secret; see [`Secrets::proof`]. Zeros before the challenge.
    pub proof: [u8; 32],
    /// Bytes of base header, flat block and body that fit the client's packets.
    pub max_payload: u32,
    /// The lowest and the highest version of the transport that the client speaks.
    pub versions: [u16; 2],
    /// How many [`SpecEntry`]s follow: the methods that the client's transport block names.
    pub specs: u16,
    /// Zero.
    pub padding: [u8; 158],
}

/// A server's answer to a hello without a good cookie. The server has kept nothing.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Challenge {
    /// The hello's.
    pub nonce: [u8; 16],
    /// To be repeated.
    pub cookie: [u8; 32],
}

/// A server's answer to a hello with a good cookie.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Welcome {
    /// The hello's.
    pub nonce: [u8; 16],
    /// Random.
    pub server_nonce: [u8; 16],
    /// The server's index for the session.
    pub session: u32,
    /// Grows with every start of the server.
    pub epoch: u32,
    /// How long the session may be silent, in ms; 0: forever.
    pub idle_ms: u32,
    /// Bytes of base header, flat block and body that fit the server's packets.
    pub max_payload: u32,
    /// The version that the session speaks; 0: none that the client speaks, and there is no session.
    pub version: u16,
    /// How many [`SpecEntry`]s follow: all methods that either end names, as they will be carried.
    pub specs: u16,
    /// Zero.
    pub reserved: u32,
    /// Proves the shared secret.
    pub proof: [u8; 32],
}

// 256 bytes of hello are the contract with the XDP program and with the amplification bound.
const _: () =
    assert!(size_of::<Hello>() == 256 && size_of::<Welcome>() == 88 && size_of::<Challenge>() == 48);

/// The version of the transport spoken here.
pub(crate) const VERSION: u16 = 1;
/// The longest hello and the longest welcome.
pub(crate) const HELLO_MAX: usize = size_of::<Hello>() + SPECS_MAX * size_of::<SpecEntry>();
pub(crate) const WELCOME_MAX: usize = size_of::<Welcome>() + 2 * SPECS_MAX * size_of::<SpecEntry>();
// Both cross the narrowest path that IPv6 allows: 1280 bytes with IP and UDP headers.
const _: () = assert!(HEADER_LEN + HELLO_MAX <= 1232 && HEADER_LEN + WELCOME_MAX <= 1232);

/// Writes specs behind a handshake message that ends at `end`; returns where they end.
pub(crate) fn put_specs(message: &mut [u8], mut end: usize, specs: &Specs) -> usize {
    for entry in specs.entries() {
        if let Some(place) = message[end..].first_chunk_mut::<{ size_of::<SpecEntry>() }>() {
            place.copy_from_slice(entry.as_bytes());
            end += place.len();
        }
    }
    end
}

/// The entries behind a handshake message that announces `count` of them. Allocates: for messages that are proven.
pub(crate) fn entries(rest: &[u8], count: u16) -> Result<Vec<SpecEntry>, Reason> {
    let (entries, []) = rest.as_chunks::<{ size_of::<SpecEntry>() }>() else {
        return Err(Reason::BadHandshake);
    };
    if entries.len() != usize::from(count) {
        return Err(Reason::BadHandshake);
    }
    Ok(entries.iter().map(|bytes| zerocopy::transmute!(*bytes)).collect())
}

/// The keys of one transport.
pub(crate) struct Secrets {
    /// Keyed with the process's own secret.
    own: Hmac<Sha256>,
    /// Keyed with what both ends share.
    shared: Hmac<Sha256>,
    nonces: u64,
}

/// What both ends know of a session once they have agreed on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub nonce: [u8; 16],
    pub server_nonce: [u8; 16],
    pub client_index: u32,
    pub server_index: u32,
}

impl Secrets {
    pub fn new(secret: &[u8; 32], psk: &[u8]) -> Secrets {
        Secrets { own: keyed(secret), shared: keyed(psk), nonces: 0 }
    }

    /// A nonce nobody can guess and that never comes again.
    pub fn nonce(&mut self) -> [u8; 16] {
        self.nonces += 1;
        first(hash(&self.own, &[b"nonce", &self.nonces.to_le_bytes()]))
    }

    /// The cookie that proves that a hello's sender receives what is sent to its address.
    pub fn cookie(&self, now: u64, from: Peer, session: u32, epoch: u32, nonce: &[u8; 16]) -> [u8; 32] {
        self.cookie_of(now / COOKIE_BUCKET_NS, from, session, epoch, nonce)
    }

    /// Whether a hello carries a cookie that was made for it lately.
    pub fn is_ours(&self, now: u64, from: Peer, hello: &Hello) -> bool {
        let bucket = now / COOKIE_BUCKET_NS;
        [bucket, bucket.wrapping_sub(1)].into_iter().any(|bucket| {
            let cookie = self.cookie_of(bucket, from, hello.session, hello.epoch, &hello.nonce);
            same(&cookie, &hello.cookie)
        })
    }

    fn cookie_of(&self, bucket: u64, from: Peer, session: u32, epoch: u32, nonce: &[u8; 16]) -> [u8; 32] {
        let Peer { address, port } = from;
        let numbers = [session, epoch, u32::from(port)];
        hash(&self.own, &[b"cookie", &bucket.to_le_bytes(), address.0.as_bytes(), numbers.as_bytes(), nonce])
    }

    /// What a hello with a cookie proves the shared secret with.
    /// `specs` is what follows it.
    pub fn hello_proof(&self, hello: &Hello, specs: &[u8]) -> [u8; 32] {
        let Hello { session, epoch, nonce, cookie, proof: _, max_payload, versions, specs: _, padding: _ } =
            hello;
        let numbers = [*session, *epoch, *max_payload];
        hash(&self.shared, &[b"hello", nonce, cookie, numbers.as_bytes(), versions.as_bytes(), specs])
    }

    /// What a welcome proves the shared secret with.
    /// `specs` is what follows it.
    pub fn welcome_proof(&self, welcome: &Welcome, client_index: u32, specs: &[u8]) -> [u8; 32] {
        let Welcome {
            nonce,
            server_nonce,
            session,
            epoch,
            idle_ms,
            max_payload,
            version,
            specs: _,
            reserved: _,
            proof: _,
        } = welcome;
        let numbers = [client_index, *session, *epoch, *idle_ms, *max_payload, u32::from(*version)];
        hash(&self.shared, &[b"welcome", nonce, server_nonce, numbers.as_bytes(), specs])
    }

    /// The session's key.
    pub fn key(&self, terms: &Terms) -> Key {
        let Terms { nonce, server_nonce, client_index, server_index } = terms;
        let numbers = [*client_index, *server_index];
        let [low, high]: [[u8; 8]; 2] = zerocopy::transmute!(first(hash(
            &self.shared,
            &[b"session", nonce, server_nonce, numbers.as_bytes()]
        )));
        [u64::from_le_bytes(low), u64::from_le_bytes(high)]
    }
}

/// Compares without telling by its time how much was right.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; a long one is hashed to a block first, which is what its specification says.
    match Hmac::new_from_slice(key) {
        Ok(hmac) => hmac,
        Err(_) => Hmac::new(&Default::default()),
    }
}

fn hash(keyed: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = keyed.clone();
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

fn first(hash: [u8; 32]) -> [u8; 16] {
    let [first, _]: [[u8; 16]; 2] = zerocopy::transmute!(hash);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_one_sender_one_attempt_and_a_short_time() {
        let mut secrets = Secrets::new(&[7; 32], b"");
        let from = Peer { port: 7400, ..Peer::default() };
        let nonce = secrets.nonce();
        assert_ne!(nonce, secrets.nonce());
        let cookie = secrets.cookie(0, from, 5, 1, &nonce);
        let hello = Hello {
            session: 5,
            epoch: 1,
            nonce,
            cookie,
            proof: [0; 32],
            max_payload: 1472,
            versions: [VERSION; 2],
            specs: 0,
            padding: [0; 158],
        };
        assert!(secrets.is_ours(0, from, &hello));
        assert!(secrets.is_ours(COOKIE_BUCKET_NS, from, &hello));
        assert!(!secrets.is_ours(2 * COOKIE_BUCKET_NS, from, &hello), "too old");
        assert!(!secrets.is_ours(0, Peer { port: 7401, ..from }, &hello), "another sender");
        assert!(!secrets.is_ours(0, from, &Hello { session: 6, ..hello }), "another attempt");
        assert!(!Secrets::new(&[8; 32], b"").is_ours(0, from, &hello), "another server");
        let proof = secrets.hello_proof(&hello, &[]);
        assert_ne!(Secrets::new(&[7; 32], b"psk").hello_proof(&hello, &[]), proof);
        assert_ne!(secrets.hello_proof(&hello, &[1]), proof, "specs are covered");
    }
}
