//! Sessions that this host opens, as a client.

use super::Client;
use crate::event::*;
use crate::handshake::{Challenge, HELLO_MAX, Hello, Terms, VERSION, Welcome, entries, put_specs, same};
use crate::outbox::Ready;
use crate::path::Path;
use crate::session::{End, Session};
use crate::specs::{Malformed, Specs};
use crate::timers::Owner;
use crate::transport::{Pending, Transport};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAG_OF_RESPONSE, Header};
use tollfree_wire::session::Role;
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::{FromBytes, IntoBytes};

/// The smallest packet a session works with: every flat block fits, with room for a body.
pub(crate) const PAYLOAD_MIN: usize = 512;

/// A handshake under way.
#[derive(Debug)]
pub(crate) struct Handshake {
    nonce: [u8; 16],
    /// From the server's challenge.
    cookie: Option<[u8; 32]>,
    started: u64,
    /// When the last hello left, if it was the only one since the challenge: measures the round trip.
    sent_at: Option<u64>,
    hellos: u32,
    interval: u64,
}

impl Transport {
    /// Starts a handshake.
    pub(super) fn connect(&mut self, now: u64, link_id: u32) {
        let link = self.links.get_mut(link_id);
        let nonce = self.secrets.nonce();
        let interval = self.config.rto_initial_ns;
        let hello = Handshake { nonce, cookie: None, started: now, sent_at: None, hellos: 0, interval };
        let (timers, peer) = (&mut self.timers, link.peer);
        let config = &self.config;
        let index = self.table.insert(|index| {
            let timer = timers.create(Owner::Session(index));
            let end = End::Client(Client::new(link_id, hello, now));
            Session {
                port: port_to(&peer, config.ports),
                ..Session::new(index, peer, config, now, timer, end)
            }
        });
        match index {
            Some(index) => {
                link.session = Some(index);
                link.sessions.push(index);
                self.outbox.push(Ready::Hello(index));
            }
            None => self.fail_queue(now, link_id, Code::ResourceExhausted, "no room for another session"),
        }
    }

    pub(crate) fn send_hello(&mut self, now: u64, index: u32, out: Out<'_>) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let (route, timer) = (session.route(), session.timer);
        let Some(handshake) = session.client().and_then(Client::handshake) else { return Ok(()) };
        let mut hello = Hello {
            session: index,
            epoch: self.config.epoch,
            nonce: handshake.nonce,
            cookie: handshake.cookie.unwrap_or_default(),
            proof: [0; 32],
            max_payload: self.config.max_payload as u32,
            versions: [VERSION; 2],
            specs: 0,
            padding: [0; 158],
        };
        let mut message = [0; HELLO_MAX];
        let mut end = size_of::<Hello>();
        // Before the challenge nobody reads more than it takes to make one.
        if handshake.cookie.is_some() {
            end = put_specs(&mut message, end, &self.specs);
            hello.specs = self.specs.entries().len() as u16;
            hello.proof = self.secrets.hello_proof(&hello, &message[size_of::<Hello>()..end]);
        }
        message[..size_of::<Hello>()].copy_from_slice(hello.as_bytes());
        send_handshake(route, Kind::Hello, 0, &message[..end], out)?;
        self.counters.packets_sent += 1;
        handshake.hellos += 1;
        handshake.sent_at = (handshake.hellos == 1).then_some(now);
        self.timers.set(timer, now.saturating_add(handshake.interval));
        Ok(())
    }

    pub(crate) fn on_challenge(&mut self, _now: u64, from: Peer, packet: &Packet<'_>) -> Result<(), Reason> {
        let challenge = Challenge::read_from_bytes(packet.body).map_err(|_| Reason::BadHandshake)?;
        let index = packet.header.session;
        let session =
            self.table.get_mut(index).filter(|session| session.peer == from).ok_or(Reason::BadHandshake)?;
        let handshake = session.client().and_then(Client::handshake).ok_or(Reason::BadHandshake)?;
        if handshake.nonce != challenge.nonce {
            return Err(Reason::BadHandshake);
        }
        if handshake.cookie != Some(challenge.cookie) {
            handshake.cookie = Some(challenge.cookie);
            handshake.hellos = 0;
            self.outbox.push(Ready::Hello(index));
        }
        Ok(())
    }

    pub(crate) fn on_welcome(&mut self, now: u64, from: Peer, packet: &Packet<'_>) -> Result<(), Reason> {
        let (welcome, rest) = Welcome::read_from_prefix(packet.body).map_err(|_| Reason::BadHandshake)?;
        let index = packet.header.session;
        let session =
            self.table.get_mut(index).filter(|session| session.peer == from).ok_or(Reason::BadHandshake)?;
        let client = session.client().ok_or(Reason::BadHandshake)?;
        let link = client.link();
        let handshake = client.handshake().ok_or(Reason::BadHandshake)?;
        let payload = (welcome.max_payload as usize).min(self.config.max_payload);
        if handshake.nonce != welcome.nonce
            || !same(&welcome.proof, &self.secrets.welcome_proof(&welcome, index, rest))
        {
            return Err(Reason::BadHandshake);
        }
        if welcome.version != VERSION {
            let why = "the peer speaks no version of the transport that this host does";
            self.drop_session(index, why);
            self.fail_queue(now, link, Code::FailedPrecondition, why);
            return Ok(());
        }
        let agreed =
            Specs::agreed(&entries(rest, welcome.specs)?).map_err(|Malformed| Reason::BadHandshake)?;
        if welcome.session == 0 || payload < PAYLOAD_MIN {
            return Err(Reason::BadHandshake);
        }
        if let Some(sent_at) = handshake.sent_at {
            session.answers.sample(now.saturating_sub(sent_at));
        }
        let terms = Terms {
            nonce: welcome.nonce,
            server_nonce: welcome.server_nonce,
            client_index: index,
            server_index: welcome.session,
        };
        let idle_ns = u64::from(welcome.idle_ms) * 1_000_000;
        session.path = Path::new(self.config.sure_payload, payload);
        session.heard_at = now;
        session.specs = if agreed == *self.specs { self.specs.clone() } else { Arc::new(agreed) };
        let guard = session.open(Role::Client, welcome.session, self.secrets.key(&terms));
        if let Some(client) = session.client() {
            client.opened(now, idle_ns);
            match client.idle_at() {
                Some(at) => self.timers.set(session.timer, at),
                None => self.timers.clear(session.timer),
            }
        }
        self.links.get_mut(link).epoch = Some(welcome.epoch);
        self.changes.push(SessionChange::Opened(guard, 0));
        self.counters.sessions_opened += 1;
        self.pending.push_back(Pending::Up(from));
        self.pump(now, link);
        Ok(())
    }

    /// A client session's timer: the next hello, or the end of idling.
    pub(crate) fn on_client_timer(&mut self, now: u64, index: u32) {
        let Some(session) = self.table.get_mut(index) else { return };
        let timer = session.timer;
        let Some(client) = session.client() else { return };
        let (link, calls) = (client.link(), client.open());
        if let Some(handshake) = client.handshake() {
            if now.saturating_sub(handshake.started) >= self.config.dead_ns {
                self.drop_session(index, "the peer did not answer");
                return self.fail_queue(now, link, Code::Unavailable, "the peer does not answer");
            }
            handshake.interval = handshake.interval.saturating_mul(2).min(self.config.rto_max_ns);
            self.timers.set(timer, now + handshake.interval);
            return self.outbox.push(Ready::Hello(index));
        }
        match client.idle_at() {
            Some(at) if at > now => self.timers.set(timer, at),
            Some(_) if calls == 0 => {
                self.say_goodbye(index);
                self.drop_session(index, "idle");
            }
            // Its calls keep it busy: the server must not take their silence for its end. Looked at again later.
            Some(_) => {
                self.keep_alive(index);
                self.timers.set(timer, now + self.config.dead_ns.max(1));
            }
            None => {}
        }
    }

    /// Says that this end is there. An acknowledgement of no call means nothing else.
    fn keep_alive(&mut self, index: u32) {
        let Some(session) = self.table.get_mut(index) else { return };
        let header = session.packet(Kind::Ack, |header| header.flags = FLAG_OF_RESPONSE);
        self.outbox.push(Ready::Packet(session.route(), header));
    }
}

/// The port that calls to a peer leave from: always the same, and another peer's is likely another.
fn port_to(peer: &Peer, ports: u16) -> u16 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(peer);
    (hash % u64::from(ports.max(1))) as u16
}

/// Sends a handshake packet: header and body, no session, no tag.
pub(crate) fn send_handshake(
    route: Route,
    kind: Kind,
    session: u32,
    body: &[u8],
    out: Out<'_>,
) -> Result<(), Blocked> {
    let header = Header { session, message_len: body.len() as u32, ..Header::new(kind) };
    out(Transmit { body: Body::Inline(body), ..Transmit::bare(route, &header) })
}
