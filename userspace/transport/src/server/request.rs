//! Calls received: delivering each once.

use super::{State, slot_of};
use crate::event::*;
use crate::outbox::Ready;
use crate::session::{End, Session};
use crate::transport::Transport;
use tollfree_wire::header::{FLAG_METADATA, Header};
use tollfree_wire::{Packet, Reason};

impl Transport {
    /// A request that is not simply new and one packet ([`Transport::on_request`]), or a fragment of one.
    pub(crate) fn on_other_request(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let spec = session.spec(header.method);
        let Session { path, end: End::Server(server), .. } = session else { return Err(Reason::WrongKind) };
        let outdated = server.outdated;
        let slot = server.slot_mut(header.call);
        if header.call < slot.call {
            return Err(Reason::StaleCall);
        }
        let outdated_part = slot.request.as_ref().filter(|_| slot.state == State::Assembling);
        let cut_again = outdated_part.is_some_and(|part| part.is_outdated_by(header));
        if header.call == slot.call && slot.state != State::Deferred && !cut_again {
            match slot.state {
                State::Assembling => return self.on_request_fragment(now, packet, sink),
                State::Waiting => return self.turn_away(packet),
                _ => {}
            }
            if spec.ordered && header.fragment == 0 {
                self.raise_floor(now, packet, sink);
            }
            return self.on_repetition(now, header);
        }
        if let (State::Answered, Some(reply)) = (slot.state, &slot.reply) {
            let length = reply.longest_packet();
            path.moved(length); // or its client would not use the slot again
        }
        // The client has put a new call into the slot, so that nobody waits for the old one any more; or it has cut the request
        // again, so that its parts are of no use.
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
    pub(super) fn begin(&mut self, now: u64, header: &Header) {
        let Some(session) = self.table.get_mut(header.session) else { return };
        let spec = session.spec(header.method);
        if let Some(server) = session.server() {
            self.replies.free(server.slot_mut(header.call).begin(now, header, spec));
        }
    }

    /// Delivers a request that is one packet, to the slot that it has taken.
    pub(crate) fn deliver(&mut self, packet: &Packet<'_>, sink: Sink<'_>) -> Result<(), Reason> {
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

    /// A request that has been delivered already: its answer, if there is one, or the word that it is worked on.
    fn on_repetition(&mut self, now: u64, header: &Header) -> Result<(), Reason> {
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let Session { path, signer, end: End::Server(server), .. } = session else {
            return Err(Reason::WrongKind);
        };
        let slot = server.slot_mut(header.call);
        if !slot.spec.is_reliable() {
            return Err(Reason::DuplicateCall);
        }
        match (slot.state, slot.reply.as_deref_mut()) {
            (State::Running | State::Held | State::Postponed, _) => slot.ack_due = true,
            (State::Answered | State::Answering, Some(reply)) => {
                if slot.state == State::Answered {
                    self.counters.replies_repeated += 1;
                    path.lost(now, reply.longest_packet());
                    if reply.cut_again(path, signer.next(), &slot.spec, &mut self.boards).is_some() {
                        slot.state = State::Answering;
                    }
                }
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
}
