//! Calls received: delivering each once, and what becomes of them. How they are answered is in `reply`.

use crate::credit::{Claim, Room};
use crate::event::*;
use crate::extension::order_len;
use crate::order::Turn;
use crate::outbox::Ready;
use crate::reassembly::{Assembly, Shape};
use crate::reply::Kept;
use crate::sack::AckHead;
use crate::session::{End, Session};
use crate::timers::{Owner, TimerId};
use crate::transport::{Pending, Transport};
use tollfree_wire::header::{CALL_SLOTS, FLAG_METADATA, Header, NO_DEADLINE};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Packet, Reason};

/// The server's end of a session.
pub(crate) struct Server {
    /// The client's nonce: a repeated hello gets the same welcome.
    pub nonce: [u8; 16],
    pub server_nonce: [u8; 16],
    /// The client's epoch.
    pub epoch: u32,
    /// A welcome is in the outbox.
    pub welcoming: bool,
    /// This host's transport block has changed since: the client is to open another session.
    pub outdated: bool,
    /// That wish is in the outbox.
    pub renewing: bool,
    /// Whose turn it is among the calls of ordered methods.
    pub turn: Turn,
    /// Up to the highest slot the client has used.
    pub slots: Vec<Slot>,
}

/// What the server knows of the last call in a slot. Of an unreliable call this is all, but for the time between its
/// answer and the next [`Transport::transmit`].
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Its id; 0: none yet.
    pub call: u64,
    pub state: State,
    /// How its session carries it.
    pub spec: MethodSpec,
    /// Its number, while it is held back.
    pub order: u32,
    /// In the outbox.
    pub ready: bool,
    /// Waits for the network to take more of the answer, in its session's flow.
    pub parked: bool,
    /// An ack of the request is due.
    pub ack_due: bool,
    /// What it says once a request of several fragments is whole.
    pub whole: Option<AckHead>,
    /// Where the request waits for room.
    pub claim: Claim,
    pub method: u32,
    pub deadline_ns: u64,
    pub request: Option<Box<Assembly>>,
    pub timer: Option<TimerId>,
    /// The answer, from when it is given until nobody can ask for it any more.
    pub reply: Option<Box<Kept>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing to do or say: no call yet, or one that is over and whose answer is not kept.
    #[default]
    Over,
    /// There is no room for the request.
    Waiting,
    /// Its service has no room for the request, which was not kept: it is new when it comes again.
    Deferred,
    /// Its service has no room for the request, which was assembled and is delivered again in a while.
    Postponed,
    /// Fragments of the request are missing.
    Assembling,
    /// Whole, but earlier ones of its session are to be delivered first.
    Held,
    /// Delivered; no answer yet.
    Running,
    /// Answered in one packet, which is kept.
    Answered,
    /// Answered in several, which the client has not acknowledged.
    Answering,
}

impl Server {
    pub fn new(nonce: [u8; 16], server_nonce: [u8; 16], epoch: u32) -> Server {
        Server {
            nonce,
            server_nonce,
            epoch,
            welcoming: false,
            outdated: false,
            renewing: false,
            turn: Turn::default(),
            slots: Vec::new(),
        }
    }

    /// Calls without an answer, or whose answer is not acknowledged.
    pub fn open(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.state, State::Over | State::Answered)).count()
    }

    /// The slot of a call id, whatever call it has.
    fn slot_mut(&mut self, call: u64) -> &mut Slot {
        let slot = call as usize % CALL_SLOTS;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Slot::default);
        }
        &mut self.slots[slot]
    }

    /// The slot whose last call is this one.
    pub fn find(&mut self, call: u64) -> Option<&mut Slot> {
        self.slots.get_mut(call as usize % CALL_SLOTS).filter(|slot| slot.call == call)
    }
}

/// The slot of a call id.
pub(crate) fn slot_of(call: u64) -> u8 {
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
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let spec = session.spec(header.method);
        let server = session.server().ok_or(Reason::WrongKind)?;
        let outdated = server.outdated;
        let slot = server.slot_mut(header.call);
        if header.call < slot.call {
            return Err(Reason::StaleCall);
        }
        if header.call == slot.call && slot.state != State::Deferred {
            match slot.state {
                State::Assembling => return self.on_request_fragment(now, packet, sink),
                State::Waiting => return self.turn_away(header),
                _ => {}
            }
            if spec.ordered && header.fragment == 0 {
                self.raise_floor(now, packet, sink);
            }
            return self.on_repetition(now, header);
        }
        // The client has put a new call into the slot: nobody waits for the old one any more.
        if !matches!(slot.state, State::Over | State::Answered | State::Deferred) {
            self.retire_slot(header.session, slot_of(header.call));
            self.drain(sink);
        }
        if outdated {
            self.ask_to_renew(header.session);
        }
        if header.fragments > 1 {
            return self.on_first_fragment(now, packet, sink);
        }
        if spec.ordered {
            return self.on_ordered(now, packet, sink);
        }
        self.begin(now, header);
        self.deliver(packet, sink)
    }

    /// A new call takes its slot.
    pub(crate) fn begin(&mut self, now: u64, header: &Header) {
        let Some(session) = self.table.get_mut(header.session) else { return };
        let spec = session.spec(header.method);
        if let Some(server) = session.server() {
            self.replies.free(server.slot_mut(header.call).begin(now, header, spec));
        }
    }

    /// Delivers a request that is one packet, to the slot that it has taken.
    pub(crate) fn deliver(
        &mut self,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let &Packet { ref header, flat, body, .. } = packet;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let peer = session.peer;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
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
            judged: if self.config.verified { header.tag } else { 0 },
            flat,
            metadata: header.flags & FLAG_METADATA != 0,
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
        let spec = session.spec(header.method);
        let shape = Shape::of(packet)?;
        let opened = self.pool.begin(shape, session.peer.address, now);
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        self.replies.free(slot.begin(now, header, spec));
        match opened {
            Ok(assembly) => {
                slot.state = State::Assembling;
                slot.request = Some(assembly);
                let owner = Owner::Slot(header.session, slot_of(header.call));
                let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
                self.timers.set(timer, now.saturating_add(self.config.dead_ns));
                self.on_request_fragment(now, packet, sink)
            }
            Err(room @ (Room::Later | Room::LaterForHost)) if spec.is_reliable() => {
                slot.state = State::Waiting;
                let who = Ready::Slot(header.session, slot_of(header.call));
                self.pool.credit.wait(&mut slot.claim, shape, room, who);
                self.turn_away(header)
            }
            Err(_) => {
                slot.state = State::Running;
                let call = IncomingCall { session: header.session, call: header.call };
                let why = "the server has no room to reassemble so long a request";
                self.refuse(now, call, Code::ResourceExhausted, why);
                Err(Reason::ReassemblyLimit)
            }
        }
    }

    /// The rest of a request, of which nothing is held any more, has not come. Its client may have been kept from sending it
    /// by the network rather than have gone: it is told, so that it does not send to no end what will never be whole.
    pub(crate) fn give_up_request(&mut self, now: u64, call: IncomingCall) {
        let server = self.table.get_mut(call.session).and_then(Session::server);
        let Some(slot) = server.and_then(|server| server.find(call.call)) else { return };
        slot.state = State::Running;
        self.refuse(now, call, Code::Unavailable, "the rest of the request did not arrive at the server");
    }

    /// A fragment of a request that waits for room: its client has to wait too.
    fn turn_away(&mut self, header: &Header) -> Result<(), Reason> {
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        slot.ack_due = true;
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Err(Reason::ReassemblyLimit)
    }

    fn on_request_fragment(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        let assembly = slot.request.as_mut().ok_or(Reason::StaleCall)?;
        let whole = assembly.add(packet, now)?;
        let reliable = slot.spec.is_reliable();
        slot.ack_due = reliable;
        if reliable && !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        if !whole {
            return Ok(());
        }
        slot.whole = Some(assembly.ack_head(now));
        if let Some(timer) = slot.timer {
            self.timers.clear(timer);
        }
        if slot.spec.ordered {
            return self.on_ordered_whole(now, header.session, header.call, sink);
        }
        self.deliver_assembled(now, header.session, header.call, sink)
    }

    /// Delivers a request that has been assembled, or kept, in its slot.
    pub(crate) fn deliver_assembled(
        &mut self,
        now: u64,
        index: u32,
        call: u64,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let session = self.table.get_mut(index).ok_or(Reason::UnknownSession)?;
        let peer = session.peer;
        let slot = session.server().ok_or(Reason::WrongKind)?.find(call).ok_or(Reason::StaleCall)?;
        let assembly = slot.request.take().ok_or(Reason::StaleCall)?;
        let expired = now >= slot.deadline_ns;
        slot.state = if expired { State::Over } else { State::Running };
        if expired {
            self.counters.requests_expired += 1;
        } else {
            self.counters.calls_received += 1;
            sink(Event::Request(IncomingRequest {
                call: IncomingCall { session: index, call },
                peer,
                session: index,
                method: slot.method,
                layout: assembly.layout,
                deadline_ns: slot.deadline_ns,
                judged: if self.config.verified { assembly.judged } else { 0 },
                flat: assembly.flat(),
                metadata: assembly.flags & FLAG_METADATA != 0,
                body: assembly.body().get(order_len(&slot.spec) as usize..).unwrap_or_default(),
            }));
        }
        if slot.state == State::Running && slot.spec.is_reliable() && !slot.spec.ordered {
            slot.request = Some(assembly); // until the next transmission, lest it be deferred
        } else {
            self.pool.close(assembly);
        }
        if expired { Err(Reason::StaleCall) } else { Ok(()) }
    }

    /// A request that has been delivered already: its answer, if there is one, or the word that it is worked on.
    fn on_repetition(&mut self, now: u64, header: &Header) -> Result<(), Reason> {
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        if !slot.spec.is_reliable() {
            return Err(Reason::DuplicateCall);
        }
        match (slot.state, slot.reply.as_deref_mut()) {
            (State::Running | State::Held | State::Postponed, _) => slot.ack_due = true,
            (State::Answered | State::Answering, Some(reply)) => {
                self.counters.replies_repeated += u64::from(slot.state == State::Answered);
                reply.heard_at = now;
                reply.window.probe();
                slot.ack_due = !reply.window.has_begun(); // its turn has not come
            }
            _ => return Err(Reason::StaleCall),
        }
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

    /// Lets go of everything that is held for a slot's call. Its id stays, so that it never runs again.
    pub(crate) fn retire_slot(&mut self, index: u32, slot: u8) {
        let Some(session) = self.table.get_mut(index) else { return };
        let Session { flow, end: End::Server(server), .. } = session else { return };
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return };
        slot.claim.shape = None;
        if let Some(reply) = &mut slot.reply {
            flow.release(reply.window.finish(&mut self.boards));
        }
        if let Some(pending) = slot.retire(index) {
            self.pending.push_back(pending);
        }
        self.replies.free(slot.reply.take());
        if let Some(assembly) = slot.request.take() {
            self.pool.close(assembly);
        }
        if let Some(timer) = slot.timer {
            self.timers.clear(timer);
        }
    }

    /// Lets go of everything that is held for a session that is gone.
    pub(crate) fn retire_server(&mut self, session: &mut Session) {
        let &mut Session { index, peer, end: End::Server(ref mut server), .. } = session else { return };
        for slot in &mut server.slots {
            self.pending.extend(slot.retire(index));
            self.replies.free(slot.reply.take());
            if let Some(assembly) = slot.request.take() {
                self.pool.close(assembly);
            }
            if let Some(timer) = slot.timer.take() {
                self.timers.destroy(timer);
            }
        }
        self.pool.credit.forget(index);
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
                self.replies.free(slot.reply.take());
            }
        }
        let idle_at = if idle_ns == 0 { u64::MAX } else { heard_at.saturating_add(idle_ns) };
        self.timers.set(timer, idle_at.min(now.saturating_add(dead_ns)));
    }
}

impl Slot {
    /// A new call takes the slot. Returns what was kept of the last one.
    #[must_use]
    fn begin(&mut self, now: u64, header: &Header, spec: MethodSpec) -> Option<Box<Kept>> {
        self.call = header.call;
        self.spec = spec;
        self.method = header.method;
        (self.ack_due, self.whole) = (false, None);
        self.deadline_ns = match header.deadline_us {
            NO_DEADLINE => u64::MAX,
            us => now.saturating_add(u64::from(us) * 1000),
        };
        self.reply.take()
    }

    /// Its call is over; returns who has to know.
    fn retire(&mut self, session: u32) -> Option<Pending> {
        self.ack_due = false;
        match (std::mem::take(&mut self.state), &self.reply) {
            (State::Running, _) => Some(Pending::Cancelled(IncomingCall { session, call: self.call })),
            (State::Answering, Some(reply)) => Some(Pending::Released(reply.token)),
            _ => None,
        }
    }
}
