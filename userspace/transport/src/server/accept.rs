//! Sessions that peers open, as a server. Nothing is kept before a hello brings back the cookie that only its address
//! could receive.

use super::Server;
use crate::client::connect::{PAYLOAD_MIN, send_handshake};
use crate::event::*;
use crate::handshake::{Challenge, Hello, Terms, VERSION, WELCOME_MAX, Welcome, entries, put_specs, same};
use crate::outbox::Ready;
use crate::path::Path;
use crate::session::{End, Session};
use crate::specs::{Malformed, Specs};
use crate::timers::Owner;
use crate::transport::{Pending, Transport};
use std::sync::Arc;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAG_RENEW, Header};
use tollfree_wire::session::Role;
use tollfree_wire::{Kind, Packet, Reason};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Sessions one peer can have: one it uses, others that it is about to give up.
const SESSIONS_PER_PEER: usize = 4;

impl Transport {
    pub(crate) fn on_hello(&mut self, now: u64, from: Peer, packet: &Packet<'_>) -> Result<(), Reason> {
        let (hello, rest) = Hello::read_from_prefix(packet.body).map_err(|_| Reason::BadHandshake)?;
        let Hello { session, epoch, nonce, max_payload, versions: [lowest, highest], .. } = hello;
        let payload = (max_payload as usize).min(self.config.max_payload);
        if session == 0 || payload < PAYLOAD_MIN {
            return Err(Reason::BadHandshake);
        }
        if !self.secrets.is_ours(now, from, &hello) {
            self.outbox.push_stateless(Ready::Challenge { to: from, session, epoch, nonce });
            return Ok(());
        }
        if !same(&hello.proof, &self.secrets.hello_proof(&hello, rest)) {
            return Err(Reason::BadHandshake);
        }
        if !(lowest..=highest).contains(&VERSION) {
            self.outbox.push_stateless(Ready::Incompatible { to: from, session, nonce });
            return Err(Reason::BadHandshake);
        }
        let specs =
            self.specs.agree(&entries(rest, hello.specs)?).map_err(|Malformed| Reason::BadHandshake)?;
        self.make_room(now, from, &hello)?;
        let index = match self.welcomed(from, &nonce) {
            Some(index) => index,
            None => self.accept(now, from, &hello, payload, specs)?,
        };
        if let Some(server) = self.table.get_mut(index).and_then(Session::server)
            && !std::mem::replace(&mut server.welcoming, true)
        {
            self.outbox.push(Ready::Welcome(index));
        }
        Ok(())
    }

    /// The session that a hello with this nonce has opened.
    fn welcomed(&mut self, from: Peer, nonce: &[u8; 16]) -> Option<u32> {
        let Transport { served, table, .. } = self;
        served.get(&from)?.iter().copied().find(|&index| {
            table.get_mut(index).and_then(Session::server).is_some_and(|server| server.nonce == *nonce)
        })
    }

    /// Ends what a hello shows to be over, and refuses hellos that are over themselves.
    fn make_room(&mut self, now: u64, from: Peer, hello: &Hello) -> Result<(), Reason> {
        self.peer_restarted(now, &from, hello.epoch);
        let Some(indices) = self.served.get(&from).cloned() else { return Ok(()) };
        for &index in &indices {
            let Some(server) = self.table.get_mut(index).and_then(Session::server) else { continue };
            let newer = hello.epoch.wrapping_sub(server.epoch) as i32;
            if newer < 0 {
                return Err(Reason::BadHandshake); // from the peer's previous life
            }
            if newer > 0 {
                self.drop_session(index, "the client restarted");
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        now: u64,
        from: Peer,
        hello: &Hello,
        payload: usize,
        specs: Specs,
    ) -> Result<u32, Reason> {
        let theirs = self.served.get(&from).map_or(0, Vec::len);
        if theirs >= SESSIONS_PER_PEER {
            self.evict(now, Some(from))?;
        } else if self.served_count >= self.config.server_sessions {
            self.evict(now, None)?;
        }
        let server_nonce = self.secrets.nonce();
        let (timers, config) = (&mut self.timers, &self.config);
        let server = Server::new(hello.nonce, server_nonce, hello.epoch);
        let index = self.table.insert(|index| {
            let timer = timers.create(Owner::Session(index));
            Session::new(index, from, config, now, timer, End::Server(server))
        });
        let index = index.ok_or(Reason::TableFull)?;
        let terms =
            Terms { nonce: hello.nonce, server_nonce, client_index: hello.session, server_index: index };
        let key = self.secrets.key(&terms);
        self.served.entry(from).or_default().push(index);
        self.served_count += 1;
        self.counters.sessions_opened += 1;
        self.pending.push_back(Pending::Up(from));
        if let Some(session) = self.table.get_mut(index) {
            session.path = Path::new(self.config.sure_payload, payload);
            session.specs = if specs == *self.specs { self.specs.clone() } else { Arc::new(specs) };
            let guard = session.open(Role::Server, hello.session, key);
            let idle_ns = u64::from(self.config.idle_ms) * 1_000_000;
            self.changes.push(SessionChange::Opened(guard, idle_ns));
        }
        self.on_server_timer(now, index);
        Ok(index)
    }

    /// Ends the session (of one peer, or of any) that has been silent longest, if nothing runs on it and its client
    /// has had time to be heard.
    fn evict(&mut self, now: u64, of: Option<Peer>) -> Result<(), Reason> {
        let candidates = self.table.iter().filter(|session| match &session.end {
            End::Server(server) => of.is_none_or(|peer| peer == session.peer) && server.open() == 0,
            End::Client(_) => false,
        });
        let oldest = candidates.min_by_key(|session| session.heard_at);
        let silent =
            |session: &&Session| of.is_some() || now.saturating_sub(session.heard_at) >= self.config.dead_ns;
        let index = oldest.filter(silent).map(|session| session.index).ok_or(Reason::TableFull)?;
        self.drop_session(index, "idle, and its place was needed");
        Ok(())
    }

    pub(crate) fn send_challenge(
        &mut self,
        now: u64,
        to: Peer,
        (session, epoch, nonce): (u32, u32, [u8; 16]),
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let challenge = Challenge { nonce, cookie: self.secrets.cookie(now, to, session, epoch, &nonce) };
        send_handshake(to.into(), Kind::Challenge, session, challenge.as_bytes(), out)?;
        self.counters.packets_sent += 1;
        self.counters.challenges_sent += 1;
        Ok(())
    }

    pub(crate) fn send_welcome(&mut self, index: u32, out: Out<'_>) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let (peer, client_index) = (session.peer, session.guard.peer_index);
        let mut message = [0; WELCOME_MAX];
        let end = put_specs(&mut message, size_of::<Welcome>(), &session.specs);
        let specs = session.specs.entries().len() as u16;
        let Some(server) = session.server() else { return Ok(()) };
        let mut welcome = Welcome {
            nonce: server.nonce,
            server_nonce: server.server_nonce,
            session: index,
            epoch: self.config.epoch,
            idle_ms: self.config.idle_ms,
            max_payload: self.config.max_payload as u32,
            version: VERSION,
            specs,
            reserved: 0,
            proof: [0; 32],
        };
        welcome.proof =
            self.secrets.welcome_proof(&welcome, client_index, &message[size_of::<Welcome>()..end]);
        message[..size_of::<Welcome>()].copy_from_slice(welcome.as_bytes());
        send_handshake(peer.into(), Kind::Welcome, client_index, &message[..end], out)?;
        server.welcoming = false;
        self.counters.packets_sent += 1;
        Ok(())
    }

    /// Tells a client that there is no version that both ends speak. Nothing is kept of it.
    pub(crate) fn send_incompatible(
        &mut self,
        to: Peer,
        session: u32,
        nonce: [u8; 16],
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let mut welcome = Welcome { nonce, epoch: self.config.epoch, ..Welcome::new_zeroed() };
        welcome.proof = self.secrets.welcome_proof(&welcome, session, &[]);
        send_handshake(to.into(), Kind::Welcome, session, welcome.as_bytes(), out)?;
        self.counters.packets_sent += 1;
        Ok(())
    }

    /// Asks a client to open another session for its new calls: this one's are carried as was agreed before.
    pub(crate) fn send_renew(&mut self, index: u32, out: Out<'_>) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let mut header = Header { flags: FLAG_RENEW, ..Header::new(Kind::Close) };
        session.signer.sign(&mut header, &[]);
        out(Transmit::bare(session.route(), &header))?;
        session.signer.sent();
        if let Some(server) = session.server() {
            server.renewing = false;
        }
        self.counters.packets_sent += 1;
        Ok(())
    }

    /// Queues that, once at a time.
    pub(crate) fn ask_to_renew(&mut self, index: u32) {
        if let Some(server) = self.table.get_mut(index).and_then(Session::server)
            && !std::mem::replace(&mut server.renewing, true)
        {
            self.outbox.push(Ready::Renew(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use tollfree_wire::Code;
    use tollfree_wire::frame::Address;
    use tollfree_wire::header::HEADER_LEN;

    fn peer(number: u32) -> Peer {
        Peer { address: Address::v4(number), port: 7400 }
    }

    fn sent(transport: &mut Transport) -> Vec<u8> {
        let mut bytes = Vec::new();
        transport.transmit(0, &mut |packet| {
            bytes.resize(packet.payload_len(), 0);
            packet.write(&mut bytes, |_, _, _| {});
            Ok(())
        });
        bytes
    }

    #[test]
    fn a_client_of_another_version_is_told_and_its_calls_end_with_the_reason() {
        let end = |secret| Transport::new(Config { secret: [secret; 32], ..Config::default() });
        let (mut client, mut server) = (end(1), end(2));
        let call = NewCall {
            method: 1,
            layout: 0,
            flat: &[],
            metadata: false,
            body_len: 0,
            deadline_ns: u64::MAX,
            token: 7,
        };
        client.call(0, peer(2), call);
        server.receive(0, peer(1), &sent(&mut client), &mut |_| {}).unwrap();
        client.receive(0, peer(2), &sent(&mut server), &mut |_| {}).unwrap();

        let mut packet = sent(&mut client);
        let mut hello = Hello::read_from_bytes(&packet[HEADER_LEN..]).unwrap();
        hello.versions = [VERSION + 1, VERSION + 5];
        hello.proof = client.secrets.hello_proof(&hello, &[]);
        packet[HEADER_LEN..].copy_from_slice(hello.as_bytes());
        assert_eq!(server.receive(0, peer(1), &packet, &mut |_| {}), Err(Reason::BadHandshake));
        assert_eq!(server.held().sessions, 0, "nothing is kept of it");

        let mut ended = Vec::new();
        let told = client.receive(0, peer(2), &sent(&mut server), &mut |event| {
            if let Event::Response { token, status, verdict: Verdict::Transport(why), .. } = event {
                ended.push((token, status, why));
            }
        });
        assert_eq!(told, Ok(()));
        let [(7, Code::FailedPrecondition, why)] = ended[..] else { panic!("{ended:?}") };
        assert!(why.contains("version"), "{why}");
        assert_eq!(client.held().sessions, 0);
    }
}
