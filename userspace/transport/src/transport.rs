//! The transport's surface: packets in, packets out, timers. What a packet means is said in `client` and `server`, how
//! sessions come about in `connect` and `accept`.

use crate::client::calls::Calls;
use crate::client::link::Links;
use crate::config::Config;
use crate::event::*;
use crate::extension::unsealed;
use crate::handshake::Secrets;
use crate::outbox::{Outbox, Ready};
use crate::reassembly::Pool;
use crate::server::reply::Replies;
use crate::session::{End, Session, Table};
use crate::specs::Specs;
use crate::timers::{Owner, Timers};
use crate::window::Boards;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAG_CANCEL, FLAG_OF_RESPONSE, FLAG_RENEW, FLAG_RESET, Header};
use tollfree_wire::session::Role;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Cursor, Kind, Packet, Reason};

/// All sessions of one engine.
pub struct Transport {
    pub(crate) config: Config,
    /// What this host's transport block names.
    pub(crate) specs: Arc<Specs>,
    pub(crate) secrets: Secrets,
    pub(crate) table: Table,
    pub(crate) links: Links,
    /// Sessions as a server, by peer.
    pub(crate) served: HashMap<Peer, Vec<u32>>,
    pub(crate) served_count: usize,
    pub(crate) calls: Calls,
    pub(crate) timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) pool: Pool,
    pub(crate) boards: Boards,
    pub(crate) replies: Replies,
    /// Events that came up where nobody could take them.
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) changes: Vec<SessionChange>,
    pub(crate) counters: Counters,
    /// The last [`Transport::transmit`] has left something for the next.
    cut_short: bool,
}

/// Packets sent in one go, about: what has arrived meanwhile wants to be looked at.
const PACKETS_PER_TURN: u64 = 256;

/// An event without borrowed parts, waiting to be taken.
#[derive(Debug)]
pub(crate) enum Pending {
    Ended { token: u64, status: Code, why: &'static str },
    Cancelled(IncomingCall),
    Released(u64),
    Up(Peer),
    Down(Peer, &'static str),
}

impl Transport {
    /// A transport without sessions.
    pub fn new(config: Config) -> Transport {
        Transport {
            specs: Arc::default(),
            secrets: Secrets::new(&config.secret, &config.psk),
            table: Table::new(&config.secret),
            links: Links::default(),
            served: HashMap::new(),
            served_count: 0,
            calls: Calls::default(),
            timers: Timers::default(),
            outbox: Outbox::default(),
            pool: Pool::new(config.reassembly_bytes),
            boards: Boards::default(),
            replies: Replies::default(),
            pending: VecDeque::new(),
            changes: Vec::new(),
            counters: Counters::default(),
            cut_short: false,
            config,
        }
    }

    /// Carries calls as this host's transport block says from now on. Sessions agreed on before take no new calls and
    /// end with those they have, so that no call is carried in two ways.
    pub fn set_specs(&mut self, now: u64, named: &[(u32, MethodSpec)]) {
        let specs = Specs::new(named);
        if specs == *self.specs {
            return;
        }
        self.specs = Arc::new(specs);
        let sessions: Vec<u32> = self.table.iter().map(|session| session.index).collect();
        for index in sessions {
            match self.table.get_mut(index).map(|session| &mut session.end) {
                Some(End::Client(_)) => {
                    self.renew_client(now, index, "this host's transport of its methods changed");
                }
                Some(End::Server(server)) => {
                    server.outdated = true;
                    self.ask_to_renew(index);
                }
                None => {}
            }
        }
    }

    /// The longest a call of a method may take as far as this host's transport block says, in µs.
    pub fn timeout_us(&self, method: u32) -> Option<u32> {
        self.specs.of(method).map(|spec| spec.timeout_us).filter(|timeout| *timeout != 0)
    }

    /// Takes a packet, from the base header on. `Err` says why it was refused or dropped, to be counted.
    pub fn receive(
        &mut self,
        now: u64,
        from: Peer,
        payload: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        self.receive_marked(now, from, payload, false, sink)
    }

    /// Like [`Transport::receive`], of a packet that met congestion on its way: its IP header carries ECN's CE.
    pub fn receive_marked(
        &mut self,
        now: u64,
        from: Peer,
        payload: &[u8],
        marked: bool,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let packet = Packet { marked, ..Packet::decode(payload)? };
        let outcome = match packet.kind {
            Kind::Hello => self.on_hello(now, from, &packet),
            Kind::Challenge => self.on_challenge(now, from, &packet),
            Kind::Welcome => self.on_welcome(now, from, &packet),
            Kind::Close if packet.header.flags & FLAG_RESET != 0 => self.on_reset(now, from, &packet.header),
            _ => self.on_session_packet(now, from, &packet, sink),
        };
        self.drain(sink);
        outcome
    }

    /// A packet that claims to be part of a session.
    fn on_session_packet(
        &mut self,
        now: u64,
        from: Peer,
        packet: &Packet<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let Packet { header, kind, .. } = packet;
        let Some(session) = self.table.get_mut(header.session) else {
            self.refuse_session(from, packet);
            return Err(Reason::UnknownSession);
        };
        if !session.is_open() {
            return Err(Reason::UnknownSession);
        }
        if !self.config.verified {
            session.guard.check(header, *kind, from.address, from.port, Cursor::new(packet.flat_padded))?;
            session.guard.accept(*kind, header.sequence)?;
        }
        // A reject is the driver's word, not the engine's: it does not say that the peer is alive.
        if *kind != Kind::Reject {
            session.heard_at = now;
        }
        let sealed = matches!(kind, Kind::Request | Kind::Response)
            && header.flags & FLAG_CANCEL == 0
            && session.spec(header.method).checksum;
        let opened = if sealed { Some(unsealed(packet)?) } else { None };
        let packet = opened.as_ref().unwrap_or(packet);
        match (&session.end, kind) {
            (End::Server(_), Kind::Request) if header.flags & FLAG_CANCEL != 0 => self.on_cancel(header),
            (End::Server(_), Kind::Request) => self.on_request(now, packet, sink),
            (End::Client(_), Kind::Response) => self.on_response(now, packet, sink),
            (End::Client(_), Kind::Reject) => self.on_reject(now, packet, sink),
            // Of no call: about the session's path, or that its client is alive.
            (_, Kind::Ack) if header.call == 0 => self.on_path_ack(packet),
            (End::Server(_), Kind::Ack) if header.flags & FLAG_OF_RESPONSE != 0 => {
                self.on_reply_ack(now, packet)
            }
            (End::Client(_), Kind::Ack) if header.flags & FLAG_OF_RESPONSE == 0 => {
                self.on_request_ack(now, packet)
            }
            (End::Server(_), Kind::Close) => {
                self.drop_session(header.session, "the client closed it");
                Ok(())
            }
            (End::Client(_), Kind::Close) if header.flags & FLAG_RENEW != 0 => {
                self.renew_client(now, header.session, "the server's transport of its methods changed");
                Ok(())
            }
            (End::Client(_), Kind::Close) => {
                self.on_close(now, header.session);
                Ok(())
            }
            _ => Err(Reason::WrongKind),
        }
    }

    /// Tells a peer that we know nothing of the session its packet belongs to. Where there is an XDP program, it does.
    fn refuse_session(&mut self, from: Peer, packet: &Packet<'_>) {
        if !matches!(packet.kind, Kind::Request | Kind::Response) || self.config.verified {
            return;
        }
        let Header { session, call, sequence, tag, .. } = packet.header;
        // The method says which session is unknown: an altered copy of a packet must not speak for the good one.
        let header =
            Header { flags: FLAG_RESET, method: session, call, sequence, tag, ..Header::new(Kind::Close) };
        if self.outbox.push_stateless(Ready::Reset(from, header)) {
            self.counters.resets_sent += 1;
        }
    }

    /// Sends what may be sent. [`Blocked`] stops it; nothing is lost.
    pub fn transmit(&mut self, now: u64, out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>) {
        self.grant(now);
        let end = self.counters.packets_sent + PACKETS_PER_TURN;
        self.cut_short = false;
        while let Some(ready) = self.outbox.front() {
            if self.counters.packets_sent >= end {
                self.cut_short = true;
                return;
            }
            let counters = &mut self.counters;
            let mut count = |transmit: Transmit<'_>| out(transmit).inspect(|()| counters.packets_sent += 1);
            let sent = match ready {
                Ready::Call(key) => self.send_request(now, key, out),
                Ready::Slot(session, slot) => self.send_reply(now, session, slot, out),
                Ready::Finished(session, call, ack) => self.send_finished(session, call, ack, out),
                Ready::Path { session, size, answer } => self.send_path(session, size, answer, out),
                Ready::Hello(session) => self.send_hello(now, session, out),
                Ready::Welcome(session) => self.send_welcome(session, out),
                Ready::Challenge { to, session, epoch, nonce } => {
                    self.send_challenge(now, to, (session, epoch, nonce), out)
                }
                Ready::Incompatible { to, session, nonce } => self.send_incompatible(to, session, nonce, out),
                Ready::Renew(session) => self.send_renew(session, out),
                Ready::Packet(route, header) => count(Transmit::bare(route, &header)),
                Ready::Reset(to, header) => count(Transmit::bare(to.into(), &header)),
            };
            if sent == Err(Blocked) {
                return;
            }
            self.outbox.pop();
        }
    }

    /// When [`Transport::handle_timeouts`] wants to be called next; a time in the past means at once.
    pub fn timeout(&self) -> Option<u64> {
        if self.pending.is_empty() && !self.cut_short { self.timers.next() } else { Some(0) }
    }

    /// Does what is due.
    pub fn handle_timeouts(&mut self, now: u64, sink: &mut dyn FnMut(Event<'_>)) {
        while let Some(owner) = self.timers.pop_due(now) {
            match owner {
                Owner::Call(position) => self.on_call_timer(now, position),
                Owner::Slot(session, slot) => self.on_slot_timer(now, session, slot, sink),
                Owner::Flow(session) => self.unpark(now, session),
                Owner::Session(session) => match self.table.get_mut(session).map(|session| &session.end) {
                    Some(End::Client(_)) => self.on_client_timer(now, session),
                    Some(End::Server(_)) => self.on_server_timer(now, session),
                    None => {}
                },
            }
        }
        self.drain(sink);
    }

    /// Sessions opened and closed since the last time: to be mirrored before [`Transport::transmit`].
    pub fn session_changes(&mut self) -> impl Iterator<Item = SessionChange> {
        self.changes.drain(..)
    }

    /// Queues a goodbye to every peer and ends everything, before the process does.
    pub fn close_all(&mut self, now: u64) {
        for key in self.calls.keys() {
            self.fail_call(now, key, Code::Unavailable, "this host's daemon is shutting down");
        }
        let open: Vec<u32> = self.table.iter().map(|session| session.index).collect();
        for index in open {
            self.say_goodbye(index);
            self.drop_session(index, "this host's daemon is shutting down");
        }
    }

    /// The sessions there are.
    pub fn sessions(&self) -> impl Iterator<Item = SessionInfo> {
        self.table.iter().filter(|session| session.is_open()).map(|session| {
            let &Session { index, peer, ref end, .. } = session;
            let (role, calls) = match end {
                End::Client(client) => (Role::Client, client.open()),
                End::Server(server) => (Role::Server, server.open()),
            };
            SessionInfo { index, peer, role, calls, round_trip_ns: session.round_trip_ns() }
        })
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is held now: for status, and for tests that nothing leaks.
    pub fn held(&self) -> Held {
        Held {
            calls: self.calls.len(),
            sessions: self.table.len(),
            reassembly_bytes: self.pool.credit.reserved(),
            in_flight: self.table.iter().map(|session| u64::from(session.flow.in_flight())).sum(),
            timers: self.timers.len(),
        }
    }

    /// Hands out the events that have come up meanwhile.
    #[inline]
    pub(crate) fn drain(&mut self, sink: Sink<'_>) {
        while let Some(pending) = self.pending.pop_front() {
            sink(match pending {
                Pending::Ended { token, status, why } => {
                    let verdict = Verdict::Transport(why);
                    Event::Response {
                        token,
                        status,
                        layout: 0,
                        flat: &[],
                        metadata: false,
                        body: &[],
                        verdict,
                    }
                }
                Pending::Cancelled(call) => Event::Cancelled { call },
                Pending::Released(token) => Event::Released { token },
                Pending::Up(peer) => Event::SessionUp { peer },
                Pending::Down(peer, why) => Event::SessionDown { peer, why },
            });
        }
    }

    /// Queues a close to the peer of a session.
    pub(crate) fn say_goodbye(&mut self, index: u32) {
        if let Some(session) = self.table.get_mut(index).filter(|session| session.is_open()) {
            let header = session.packet(Kind::Close, |_| {});
            self.outbox.push(Ready::Packet(session.route(), header));
        }
    }

    /// Forgets a session and everything of its calls that is held here as a server. Calls made on it must be gone.
    pub(crate) fn drop_session(&mut self, index: u32, why: &'static str) {
        let Some(mut session) = self.table.remove(index) else { return };
        let announced = match &session.end {
            End::Server(_) => {
                self.retire_server(&mut session);
                false
            }
            End::Client(client) => {
                self.links.forget(index);
                client.closing
            }
        };
        self.timers.destroy(session.timer);
        if let Some(timer) = session.flow_timer {
            self.timers.destroy(timer);
        }
        if session.is_open() {
            self.changes.push(SessionChange::Closed(index));
            self.counters.sessions_closed += 1;
            if !announced {
                self.pending.push_back(Pending::Down(session.peer, why));
            }
        }
    }
}
