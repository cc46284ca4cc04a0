//! Sessions that this host opens, as a client: one link per peer, which has at most one session for new calls and a
//! queue of calls that wait for it. A session that will end but still has calls is *closing*: it takes no new ones.

use crate::calls::{Call, Place};
use crate::client::Client;
use crate::event::*;
use crate::extension::{checksum_len, message_len, order_len};
use crate::handshake::{Challenge, HELLO_MAX, Hello, Terms, VERSION, Welcome, entries, put_specs, same};
use crate::outbox::Ready;
use crate::path::Path;
use crate::session::{End, Session};
use crate::specs::{Malformed, Specs};
use crate::timers::Owner;
use crate::transport::{Pending, Transport};
use crate::window::Window;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAG_OF_RESPONSE, FLAT_MAX, HEADER_LEN, Header, MESSAGE_MAX};
use tollfree_wire::session::Role;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::{FromBytes, IntoBytes};

/// The smallest packet a session works with: every flat block fits, with room for a body.
pub(crate) const PAYLOAD_MIN: usize = 512;
/// Sessions a call may move through before something else must be wrong than a forgetful server.
const MOVES_MAX: u8 = 3;
/// Fragments of one message of an unreliable method: they leave at once, and nobody says what has arrived.
pub(crate) const UNRELIABLE_FRAGMENTS: u32 = 32;

/// The way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub peer: Peer,
    /// The session for new calls, agreed on or on its way there.
    pub session: Option<u32>,
    /// All sessions with calls, the above included.
    pub sessions: Vec<u32>,
    /// Calls that wait, by key.
    pub queue: VecDeque<u64>,
    /// The peer's epoch, once known.
    pub epoch: Option<u32>,
}

/// All links. They stay: there are as many as peers this host calls.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: Vec<Link>,
    by_peer: HashMap<Peer, u32>,
}

impl Links {
    fn to(&mut self, peer: Peer) -> u32 {
        *self.by_peer.entry(peer).or_insert_with(|| {
            self.links.push(Link { peer, ..Link::default() });
            self.links.len() as u32 - 1
        })
    }

    #[inline]
    pub fn get_mut(&mut self, link: u32) -> &mut Link {
        &mut self.links[link as usize]
    }

    /// The link to a peer, where this host has called it.
    pub fn find(&self, peer: &Peer) -> Option<u32> {
        self.by_peer.get(peer).copied()
    }

    /// A session is gone.
    pub fn forget(&mut self, index: u32) {
        for link in &mut self.links {
            link.sessions.retain(|session| *session != index);
            link.session = link.session.filter(|session| *session != index);
        }
    }
}

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
    /// Makes a call. It may wait for a session or for one of its session's slots; it ends with an
    /// [`Event::Response`] in any case, never before this returns.
    pub fn call(&mut self, now: u64, peer: Peer, call: NewCall<'_>) -> CallHandle {
        let NewCall { flat, body_len, .. } = call;
        let fits = flat.len() <= FLAT_MAX && body_len <= MESSAGE_MAX;
        let call = if fits { call } else { NewCall { flat: &[], metadata: false, body_len: 0, ..call } };
        self.counters.calls_made += 1;
        let link = self.links.to(peer);
        let key = self.calls.insert(&mut self.timers, link, &call);
        if !fits {
            self.fail_call(
                now,
                key,
                Code::ResourceExhausted,
                "the request is over the limit of a message's length",
            );
            return CallHandle(key);
        }
        if let Some(call) = self.calls.get_mut(key) {
            call.limit(now, &self.specs.of(call.method).unwrap_or_default());
            if call.deadline_ns != u64::MAX {
                self.timers.set(call.timer, call.deadline_ns);
            }
        }
        self.links.get_mut(link).queue.push_back(key);
        self.pump(now, link);
        CallHandle(key)
    }

    /// Moves waiting calls into free slots; opens a session if there is none.
    #[inline]
    pub(crate) fn pump(&mut self, now: u64, link_id: u32) {
        loop {
            let link = self.links.get_mut(link_id);
            let Some(&key) = link.queue.front() else { return };
            let Some(call) = self.calls.get_mut(key).filter(|call| call.place == Place::Queued) else {
                link.queue.pop_front();
                continue;
            };
            let Some(index) = link.session else { return self.connect(now, link_id) };
            let Some(session) = self.table.get_mut(index).filter(|session| session.is_open()) else { return };
            let room = session.path.size() - HEADER_LEN - usize::from(call.flat_len).next_multiple_of(8);
            let (spec, room) = match carriage(&session.specs, call, room as u32) {
                Ok(carried) => carried,
                Err((status, why)) => {
                    link.queue.pop_front();
                    self.fail_call(now, key, status, why);
                    continue;
                }
            };
            let Some(client) = session.client() else { return };
            let Some(id) = client.take_slot(key, spec.ordered, now) else { return };
            call.open(index, id, spec, room, &mut self.boards);
            call.limit(now, &spec);
            call.ready = true;
            link.queue.pop_front();
            if call.deadline_ns != u64::MAX {
                self.timers.set(call.timer, call.deadline_ns);
            }
            let long = call.body_len > room;
            self.outbox.push(Ready::Call(key));
            if long {
                self.probe_path(now, index);
            }
        }
    }

    /// Starts a handshake.
    fn connect(&mut self, now: u64, link_id: u32) {
        let link = self.links.get_mut(link_id);
        let nonce = self.secrets.nonce();
        let interval = self.config.rto_initial_ns;
        let hello = Handshake { nonce, cookie: None, started: now, sent_at: None, hellos: 0, interval };
        let (timers, peer) = (&mut self.timers, link.peer);
        let config = &self.config;
        let index = self.table.insert(|index| {
            let timer = timers.create(Owner::Session(index));
            Session::new(index, peer, config, now, timer, End::Client(Client::new(link_id, hello, now)))
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

    /// Ends every call that waits for a session.
    fn fail_queue(&mut self, now: u64, link: u32, status: Code, why: &'static str) {
        while let Some(key) = self.links.get_mut(link).queue.pop_front() {
            if self.calls.get_mut(key).is_some_and(|call| call.place == Place::Queued) {
                self.fail_call(now, key, status, why);
            }
        }
    }

    pub(crate) fn send_hello(
        &mut self,
        now: u64,
        index: u32,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let (peer, timer) = (session.peer, session.timer);
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
        send_handshake(peer, Kind::Hello, 0, &message[..end], out)?;
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

    /// New calls go to a new session; this one ends with its last call.
    pub(crate) fn retire_client(&mut self, index: u32, why: &'static str) {
        let Some(session) = self.table.get_mut(index) else { return };
        let peer = session.peer;
        let Some(client) = session.client() else { return };
        let (link, calls) = (self.links.get_mut(client.link()), client.open());
        if link.session != Some(index) {
            return;
        }
        link.session = None;
        if calls == 0 {
            return self.drop_session(index, why);
        }
        client.closing = true;
        // Said now rather than when the last call ends: whoever agreed on something in this session must ask again.
        self.pending.push_back(Pending::Down(peer, why));
    }

    /// Says that this end is there. An acknowledgement of no call means nothing else.
    fn keep_alive(&mut self, index: u32) {
        let Some(session) = self.table.get_mut(index) else { return };
        let header = session.packet(Kind::Ack, |header| header.flags = FLAG_OF_RESPONSE);
        self.outbox.push(Ready::Packet(session.peer, header));
    }

    /// New calls go to a new session that is carried as its ends want it now; calls under way end on this one.
    pub(crate) fn renew_client(&mut self, now: u64, index: u32, why: &'static str) {
        let Some(session) = self.table.get_mut(index) else { return };
        let open = session.is_open();
        let Some(client) = session.client() else { return };
        let (link, calls) = (client.link(), client.open());
        client.goodbye = open;
        if !open {
            self.drop_session(index, why);
        } else {
            if calls == 0 {
                self.say_goodbye(index);
            }
            self.retire_client(index, why);
        }
        self.pump(now, link);
    }

    /// A peer says that it does not know a session. Believed only of the call whose last packet it proves to answer:
    /// that packet was not taken, so that a call sent once has not run and may be sent to a new session. The reset's
    /// method is the unknown session's index; 0 where whoever answers does not say.
    pub(crate) fn on_reset(&mut self, now: u64, from: Peer, header: &Header) -> Result<(), Reason> {
        let link_id = self.links.find(&from).ok_or(Reason::UnknownSession)?;
        let link = self.links.get_mut(link_id);
        let table = &mut self.table;
        let found = link.sessions.iter().find_map(|&index| {
            let session = table.get_mut(index)?;
            let named = header.method == 0 || header.method == session.guard.peer_index;
            Some((index, session.client()?.call(header.call).filter(|_| named)?))
        });
        let (index, key) = found.ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).ok_or(Reason::StaleCall)?;
        if call.first_sent == 0 || call.last != (header.sequence, header.tag) {
            return Err(Reason::StaleCall);
        }
        self.counters.resets_believed += 1;
        let why_not = match &call.flight {
            None => Some("the peer forgot the session, and an unreliable call is not sent again"),
            Some(flight)
                if flight.resent || flight.working || call.response.is_some() || call.moves >= MOVES_MAX =>
            {
                Some("the peer forgot the session; the call may or may not have run")
            }
            Some(_) => None,
        };
        self.retire_client(index, "the peer does not know it");
        match why_not {
            Some(why) => self.fail_call(now, key, Code::Unavailable, why),
            None => self.requeue(now, key),
        }
        self.pump(now, link_id);
        Ok(())
    }

    /// The server says goodbye: what it has not answered it will not answer.
    pub(crate) fn on_close(&mut self, now: u64, index: u32) {
        let Some(client) = self.table.get_mut(index).and_then(Session::client) else { return };
        let link = client.link();
        let keys = client.keys();
        self.retire_client(index, "the server closed it");
        for key in keys {
            if self.calls.get_mut(key).is_some_and(|call| call.first_sent == 0) {
                self.requeue(now, key);
            } else {
                self.fail_call(now, key, Code::Unavailable, "the server shut down before it answered");
            }
        }
        self.pump(now, link);
    }

    /// The peer at this address runs for the first time since `epoch`: sessions with its previous life are over.
    pub(crate) fn peer_restarted(&mut self, now: u64, peer: &Peer, epoch: u32) {
        let Some(link_id) = self.links.find(peer) else { return };
        let link = self.links.get_mut(link_id);
        if link.epoch.is_none_or(|known| epoch.wrapping_sub(known) as i32 <= 0) {
            return;
        }
        link.epoch = Some(epoch);
        for index in link.sessions.clone() {
            if self.table.get_mut(index).is_some_and(|session| session.is_open()) {
                self.on_close(now, index);
            }
        }
    }

    /// Sends a call again as if it never had been, to the link's next session.
    fn requeue(&mut self, now: u64, key: u64) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Place::Open { session, id } = call.place else { return };
        self.leave_flow(key);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.requeue();
        let &mut Call { timer, deadline_ns, link, .. } = call;
        self.timers.clear(timer);
        if deadline_ns != u64::MAX {
            self.timers.set(timer, deadline_ns);
        }
        self.links.get_mut(link).queue.push_front(key);
        self.free_slot(now, session, id);
        self.unpark(now, session);
    }
}

/// How a session carries a call, and how much of its message goes into each packet; or why it cannot.
fn carriage(specs: &Specs, call: &Call, room: u32) -> Result<(MethodSpec, u32), (Code, &'static str)> {
    let Some(spec) = specs.of(call.method) else {
        let why = "the peer cannot carry this method as this host's transport block asks; it may run an older version";
        return Err((Code::FailedPrecondition, why));
    };
    let room = room - checksum_len(&spec);
    let window = Window::once(call.body_len + order_len(&spec), room);
    if message_len(&spec, &window) > MESSAGE_MAX {
        return Err((Code::ResourceExhausted, "the request is over the limit of a message's length"));
    }
    if !spec.is_reliable() && window.fragments() > UNRELIABLE_FRAGMENTS {
        let why =
            "the request is too long for an unreliable method; make it reliable() in the transport block";
        return Err((Code::ResourceExhausted, why));
    }
    Ok((spec, room))
}

/// Sends a handshake packet: header and body, no session, no tag.
pub(crate) fn send_handshake(
    to: Peer,
    kind: Kind,
    session: u32,
    body: &[u8],
    out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
) -> Result<(), Blocked> {
    let header = Header { session, message_len: body.len() as u32, ..Header::new(kind) };
    out(Transmit { body: Body::Inline(body), ..Transmit::bare(to, &header) })
}
