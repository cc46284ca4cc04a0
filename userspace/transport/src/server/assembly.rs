//! Requests of several fragments: room for them, putting them together, delivering them.

use super::{State, slot_of};
use crate::credit::Room;
use crate::event::*;
use crate::extension::order_len;
use crate::outbox::Ready;
use crate::reassembly::Shape;
use crate::session::Session;
use crate::timers::Owner;
use crate::transport::Transport;
use tollfree_wire::header::FLAG_METADATA;
use tollfree_wire::{Code, Packet, Reason};

impl Transport {
    /// Whichever fragment of a request came first.
    pub(super) fn on_first_fragment(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
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
                self.turn_away(packet)
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
    pub(super) fn give_up_request(&mut self, now: u64, call: IncomingCall) {
        let server = self.table.get_mut(call.session).and_then(Session::server);
        let Some(slot) = server.and_then(|server| server.find(call.call)) else { return };
        slot.state = State::Running;
        self.refuse(now, call, Code::Unavailable, "the rest of the request did not arrive at the server");
    }

    /// A fragment of a request that waits for room: its client has to wait too.
    pub(super) fn turn_away(&mut self, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let slot = session.server().ok_or(Reason::WrongKind)?.slot_mut(header.call);
        slot.ack_due = true;
        if let Some(shape) = &mut slot.claim.shape
            && u32::from(header.fragments) > shape.fragments
        {
            *shape = Shape::of(packet)?; // it was cut again meanwhile
        }
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Err(Reason::ReassemblyLimit)
    }

    pub(super) fn on_request_fragment(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
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
    pub(super) fn deliver_assembled(
        &mut self,
        now: u64,
        index: u32,
        call: u64,
        sink: Sink<'_>,
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
}
