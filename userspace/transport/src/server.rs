//! Calls received: delivering each once, answering it, and answering its repetitions from what is kept.

use crate::event::*;
use crate::outbox::Ready;
use crate::reassembly::Assembly;
use crate::session::{End, Session};
use crate::timers::{Owner, TimerId};
use crate::transport::{Pending, Transport};
use crate::window::{Ack, Window};
use tollfree_wire::header::{
    CALL_SLOTS, FLAG_ENGINE, FLAG_WORKING, FLAT_MAX, HEADER_LEN, Header, MESSAGE_MAX, NO_DEADLINE,
};
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::FromBytes;

/// The server's end of a session.
pub(crate) struct Server {
    /// The client's nonce: a repeated hello gets the same welcome.
    pub nonce: [u8; 16],
    pub server_nonce: [u8; 16],
    /// The client's epoch.
    pub epoch: u32,
    /// A welcome is in the outbox.
    pub welcoming: bool,
    /// Up to the highest slot the client has used.
    slots: Vec<Slot>,
}

/// What the server knows of the last call in a slot.
#[derive(Debug, Default)]
struct Slot {
    /// Its id; 0: none yet.
    call: u64,
    state: State,
    method: u32,
    deadline_ns: u64,
    /// In the outbox.
    ready: bool,
    /// An ack of the request is due.
    ack_due: bool,
    status: u8,
    by_engine: bool,
    layout: u32,
    flat_len: u16,
    /// The padded flat block and, when it fits one packet, the body. Keeps its memory for the slot's next reply.
    reply: Vec<u8>,
    token: u64,
    window: Window,
    request: Option<Box<Assembly>>,
    heard_at: u64,
    interval: u64,
    timer: Option<TimerId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing to do or say: no call yet, or one that is over and whose answer is not kept.
    #[default]
    Over,
    /// Fragments of the request are missing.
    Assembling,
    /// Delivered; no answer yet.
    Running,
    /// Answered in one packet, which is kept.
    Answered,
    /// Answered in several, which the client has not acknowledged.
    Answering,
}

impl Server {
    pub fn new(nonce: [u8; 16], server_nonce: [u8; 16], epoch: u32) -> Server {
        Server { nonce, server_nonce, epoch, welcoming: false, slots: Vec::new() }
    }

    /// Calls without an answer, or whose answer is not acknowledged.
    pub fn open(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.state, State::Over | State::Answered)).count()
    }

    fn slot_mut(&mut self, call: u64) -> &mut Slot {
        let slot = call as usize % CALL_SLOTS;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Slot::default);
        }
        &mut self.slots[slot]
    }

    fn find(&mut self, call: u64) -> Option<&mut Slot> {
        self.slots.get_mut(call as usize % CALL_SLOTS).filter(|slot| slot.call == call)
    }
}

fn slot_of(call: u64) -> u8 {
    (call as usize % CALL_SLOTS) as u8
}

impl Transport {
    /// A request, or a fragment of one.
    pub(crate) fn on_request(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let &Packet { ref header, flat, body, .. } = packet;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let peer = session.peer;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        if header.call < slot.call {
            return Err(Reason::StaleCall);
        }
        if header.call == slot.call {
            return match slot.state {
                State::Assembling => self.on_request_fragment(now, packet, sink),
                _ => self.on_repetition(now, header),
            };
        }
        // The client has put a new call into the slot: nobody waits for the old one any more.
        if !matches!(slot.state, State::Over | State::Answered) {
            self.retire_slot(header.session, slot_of(header.call));
            self.drain(sink);
        }
        if header.fragments > 1 {
            return self.on_first_fragment(now, packet, sink);
        }
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        slot.begin(now, header);
        if header.deadline_us == 0 {
            slot.state = State::Over;
            self.counters.requests_expired += 1;
            return Err(Reason::StaleCall);
        }
        slot.state = State::Running;
        self.counters.calls_received += 1;
        sink(Event::Request(IncomingRequest {
            call: IncomingCall { session: header.session, call: header.call },
            peer,
            session: header.session,
            method: header.method,
            layout: header.layout,
            deadline_ns: slot.deadline_ns,
            flat,
            body,
        }));
        Ok(())
    }

    /// Whichever fragment of a request came first.
    fn on_first_fragment(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let assembly = self.pool.open(packet, &mut session.reassembling, now)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        slot.begin(now, header);
        slot.state = State::Assembling;
        slot.request = Some(assembly);
        let owner = Owner::Slot(header.session, slot_of(header.call));
        let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
        self.timers.set(timer, now.saturating_add(self.config.dead_ns));
        self.on_request_fragment(now, packet, sink)
    }

    fn on_request_fragment(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let peer = session.peer;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        let assembly = slot.request.as_mut().ok_or(Reason::StaleCall)?;
        let whole = assembly.add(packet, now)?;
        slot.ack_due = true;
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        if !whole {
            return Ok(());
        }
        let assembly = slot.request.take().ok_or(Reason::StaleCall)?;
        let expired = now >= slot.deadline_ns;
        slot.state = if expired { State::Over } else { State::Running };
        let deadline_ns = slot.deadline_ns;
        if let Some(timer) = slot.timer {
            self.timers.clear(timer);
        }
        if expired {
            self.counters.requests_expired += 1;
        } else {
            self.counters.calls_received += 1;
            sink(Event::Request(IncomingRequest {
                call: IncomingCall { session: header.session, call: header.call },
                peer,
                session: header.session,
                method: header.method,
                layout: assembly.layout,
                deadline_ns,
                flat: assembly.flat(),
                body: assembly.body(),
            }));
        }
        self.pool.close(assembly, &mut session.reassembling);
        if expired { Err(Reason::StaleCall) } else { Ok(()) }
    }

    /// A request that has been delivered already: its answer, if there is one, or the word that it is worked on.
    fn on_repetition(&mut self, now: u64, header: &Header) -> Result<(), Reason> {
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        match slot.state {
            State::Over | State::Assembling => return Err(Reason::StaleCall),
            State::Running => slot.ack_due = true,
            State::Answered => {
                slot.window.nudge();
                self.counters.replies_repeated += 1;
            }
            State::Answering => slot.window.nudge(),
        }
        slot.heard_at = now;
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Err(Reason::DuplicateCall)
    }

    /// The client no longer waits for a call.
    pub(crate) fn on_cancel(&mut self, header: &Header) -> Result<(), Reason> {
        let server = self.table.get_mut(header.session).and_then(Session::server).ok_or(Reason::WrongKind)?;
        let slot = server.slot_mut(header.call);
        if header.call < slot.call {
            return Err(Reason::StaleCall);
        }
        self.retire_slot(header.session, slot_of(header.call));
        // Also where the cancellation overtook its request, which then comes too late.
        if let Some(server) = self.table.get_mut(header.session).and_then(Session::server) {
            server.slot_mut(header.call).call = header.call;
        }
        Ok(())
    }

    /// Answers a call. False: the call is gone, or the reply impossible (over a limit; its caller is told), and nothing
    /// was kept. True, and [`Reply::copy_body`] not called although there is a body: the token is in use until
    /// [`Event::Released`].
    pub fn respond(&mut self, now: u64, call: IncomingCall, reply: Reply<'_>) -> bool {
        let IncomingCall { session: index, call } = call;
        let Some(session) = self.table.get_mut(index) else { return false };
        let payload = session.payload;
        let Some(slot) = session.server().and_then(|server| server.find(call)) else { return false };
        if slot.state != State::Running {
            return false;
        }
        let Reply { mut status, mut by_engine, layout, mut flat, mut body_len, token, copy_body } = reply;
        let fits = flat.len() <= FLAT_MAX && body_len <= MESSAGE_MAX;
        if !fits {
            (status, by_engine, flat, body_len) = (Code::ResourceExhausted, true, &[], 0);
        }
        let span = flat.len().next_multiple_of(8);
        let room = payload - HEADER_LEN - span;
        (slot.status, slot.by_engine, slot.layout) = (status as u8, by_engine, layout);
        slot.flat_len = flat.len() as u16;
        (slot.token, slot.heard_at) = (token, now);
        slot.window = Window::new(body_len, room as u32);
        slot.reply.clear();
        slot.reply.extend_from_slice(flat);
        slot.reply.resize(span, 0);
        if slot.window.fragments() == 1 {
            slot.reply.resize(span + body_len as usize, 0);
            if body_len > 0 {
                copy_body(&mut slot.reply[span..]);
            }
            slot.state = State::Answered;
        } else {
            slot.state = State::Answering;
            slot.interval = 0;
        }
        slot.ack_due = false;
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(index, slot_of(call)));
        }
        fits
    }

    /// Never answers a call: to its caller it looks lost. What a policy's silent drop wants.
    pub fn ignore(&mut self, call: IncomingCall) {
        let server = self.table.get_mut(call.session).and_then(Session::server);
        if let Some(slot) = server.and_then(|server| server.find(call.call))
            && slot.state == State::Running
        {
            slot.state = State::Over;
            slot.ack_due = false;
        }
    }

    /// Sends what a received call has to send: its reply, or an ack of its request.
    pub(crate) fn send_slot(
        &mut self,
        now: u64,
        index: u32,
        slot: u8,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(Session { peer, signer, round_trip, end: End::Server(server), .. }) =
            self.table.get_mut(index)
        else {
            return Ok(());
        };
        let owner = Owner::Slot(index, slot);
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return Ok(()) };
        if std::mem::take(&mut slot.ack_due) {
            let (flags, ack) = match (&slot.request, slot.state) {
                (Some(assembly), _) => (0, assembly.ack()),
                // All fragments, however many they were: the client takes its own count from the flag.
                (None, State::Running) => (FLAG_WORKING, Ack::default()),
                (None, _) => (0, Ack::default()),
            };
            if let Err(Blocked) = signer.send_ack(*peer, slot.call, flags, &ack, out) {
                slot.ack_due = true;
                return Err(Blocked);
            }
            self.counters.acks_sent += 1;
        }
        if !matches!(slot.state, State::Answered | State::Answering) {
            slot.ready = false;
            return Ok(());
        }
        let span = usize::from(slot.flat_len).next_multiple_of(8);
        while let Some(fragment) = slot.window.due() {
            let range = slot.window.range(fragment);
            let (flat, inline) = slot.reply.split_at(span);
            let (flat, flat_len) = if fragment == 0 { (flat, slot.flat_len) } else { (&[][..], 0) };
            let mut header = Header {
                flags: if slot.by_engine { FLAG_ENGINE } else { 0 },
                status: slot.status,
                flat_len,
                method: slot.method,
                call: slot.call,
                message_len: slot.window.length(),
                fragment: fragment as u16,
                fragments: slot.window.fragments() as u16,
                layout: slot.layout,
                ..Header::new(Kind::Response)
            };
            signer.sign(&mut header, flat);
            let body = match slot.state {
                State::Answering => Body::Source { token: slot.token, range },
                _ if inline.is_empty() => Body::Empty,
                _ => Body::Inline(inline),
            };
            out(Transmit { to: *peer, header: &header, flat, body })?;
            signer.sent();
            self.counters.packets_sent += 1;
            self.counters.packets_resent += u64::from(slot.window.sent(fragment, now));
        }
        slot.ready = false;
        if slot.state == State::Answering {
            if slot.interval == 0 {
                slot.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            }
            let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
            self.timers.set(timer, now.saturating_add(slot.interval));
        }
        Ok(())
    }

    /// An ack of a long reply's fragments.
    pub(crate) fn on_reply_ack(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let ack = Ack::read_from_bytes(packet.body).map_err(|_| Reason::BadLength)?;
        let Some(Session { round_trip, end: End::Server(server), .. }) = self.table.get_mut(header.session)
        else {
            return Err(Reason::WrongKind);
        };
        let slot = server.find(header.call).filter(|slot| slot.state == State::Answering);
        let slot = slot.ok_or(Reason::StaleCall)?;
        slot.heard_at = now;
        let (news, measured) = slot.window.acknowledge(&ack, now);
        if let Some(measured) = measured {
            round_trip.sample(measured);
        }
        if slot.window.arrived_whole() {
            self.retire_slot(header.session, slot_of(header.call));
            return Ok(());
        }
        if news {
            slot.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            if let Some(timer) = slot.timer {
                self.timers.set(timer, now.saturating_add(slot.interval));
            }
        }
        if slot.window.due().is_some() && !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Ok(())
    }

    /// A slot's timer: its reply's fragments are lost, or its request's never come.
    pub(crate) fn on_slot_timer(&mut self, now: u64, index: u32, slot: u8) {
        let dead_ns = self.config.dead_ns;
        let Some(server) = self.table.get_mut(index).and_then(Session::server) else { return };
        let Some(state) = server.slots.get_mut(usize::from(slot)) else { return };
        let heard_at = state.request.as_ref().map_or(state.heard_at, |request| request.heard_at);
        if !matches!(state.state, State::Assembling | State::Answering) {
            return;
        }
        if now.saturating_sub(heard_at) >= dead_ns {
            return self.retire_slot(index, slot);
        }
        let Some(timer) = state.timer else { return };
        if state.state == State::Assembling {
            return self.timers.set(timer, heard_at.saturating_add(dead_ns));
        }
        state.window.lost();
        state.interval = state.interval.saturating_mul(2).min(self.config.rto_max_ns);
        self.timers.set(timer, now.saturating_add(state.interval));
        if !std::mem::replace(&mut state.ready, true) {
            self.outbox.push(Ready::Slot(index, slot));
        }
    }

    /// Lets go of everything that is held for a slot's call. Its id stays, so that it never runs again.
    fn retire_slot(&mut self, index: u32, slot: u8) {
        let Some(Session { reassembling, end: End::Server(server), .. }) = self.table.get_mut(index) else {
            return;
        };
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return };
        if let Some(pending) = slot.retire(index) {
            self.pending.push_back(pending);
        }
        if let Some(assembly) = slot.request.take() {
            self.pool.close(assembly, reassembling);
        }
        if let Some(timer) = slot.timer {
            self.timers.clear(timer);
        }
    }

    /// Lets go of everything that is held for a session that is gone.
    pub(crate) fn retire_server(&mut self, session: &mut Session) {
        let &mut Session { index, peer, ref mut reassembling, end: End::Server(ref mut server), .. } =
            session
        else {
            return;
        };
        for slot in &mut server.slots {
            self.pending.extend(slot.retire(index));
            if let Some(assembly) = slot.request.take() {
                self.pool.close(assembly, reassembling);
            }
            if let Some(timer) = slot.timer.take() {
                self.timers.destroy(timer);
            }
        }
        self.served_count -= 1;
        if let Some(indices) = self.served.get_mut(&peer) {
            indices.retain(|other| *other != index);
            if indices.is_empty() {
                self.served.remove(&peer);
            }
        }
    }

    /// A server session's timer: forgets kept replies once their client cannot ask for them any more, and the session
    /// once it has idled for too long.
    pub(crate) fn on_server_timer(&mut self, now: u64, index: u32) {
        let idle_ns = u64::from(self.config.idle_ms) * 1_000_000;
        let dead_ns = self.config.dead_ns.max(1);
        let Some(session) = self.table.get_mut(index) else { return };
        let silent = now.saturating_sub(session.heard_at);
        if idle_ns != 0 && silent >= idle_ns {
            // Silently: the client has closed it already or is gone.
            return self.drop_session(index, "idle");
        }
        let (timer, heard_at) = (session.timer, session.heard_at);
        if let Some(server) = session.server().filter(|_| silent >= dead_ns) {
            for slot in server.slots.iter_mut().filter(|slot| slot.state == State::Answered) {
                slot.state = State::Over;
                slot.reply = Vec::new();
            }
        }
        let idle_at = if idle_ns == 0 { u64::MAX } else { heard_at.saturating_add(idle_ns) };
        self.timers.set(timer, idle_at.min(now.saturating_add(dead_ns)));
    }
}

impl Slot {
    /// A new call takes the slot.
    fn begin(&mut self, now: u64, header: &Header) {
        self.call = header.call;
        self.method = header.method;
        self.heard_at = now;
        self.ack_due = false;
        self.deadline_ns = match header.deadline_us {
            NO_DEADLINE => u64::MAX,
            us => now.saturating_add(u64::from(us) * 1000),
        };
    }

    /// Its call is over; returns who has to know.
    fn retire(&mut self, session: u32) -> Option<Pending> {
        self.ack_due = false;
        match std::mem::take(&mut self.state) {
            State::Running => Some(Pending::Cancelled(IncomingCall { session, call: self.call })),
            State::Answering => Some(Pending::Released(self.token)),
            State::Over | State::Assembling | State::Answered => None,
        }
    }
}
