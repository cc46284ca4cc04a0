//! The fast path: a call that is one packet each way, of which nothing is lost. Nearly all calls are that, and to read them
//! one needs no more than this file. Each step that finds something else leads off to its general form, which it names.
//!
//! Before it, [`Transport::call`] gives the call a slot of a session; between `on_request` and `send_reply`,
//! [`Transport::respond`] keeps the answer.

use crate::client::calls::Place;
use crate::event::*;
use crate::extension::message_len;
use crate::flow::Admission;
use crate::server::State;
use crate::session::{End, Session};
use crate::transport::Transport;
use tollfree_wire::header::{FLAG_ENGINE, FLAG_METADATA, Header};
use tollfree_wire::{Code, Packet, Reason};

impl Transport {
    /// At the client: the request leaves. Else [`Transport::send_call`].
    pub(crate) fn send_request(&mut self, now: u64, key: u64, out: Out<'_>) -> Result<(), Blocked> {
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let Place::Open { session: index, id } = call.place else { return Ok(()) };
        let Some(mut header) = call.header(now, id) else { return Ok(()) };
        let Some(flight) = call.flight.as_deref_mut() else { return Ok(()) };
        if !flight.window.is_one_unsent() || flight.ack_due || call.spec.ordered || now >= call.deadline_ns {
            return self.send_call(now, key, out);
        }
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        header.flat_len = call.flat_len;
        let flat = flight.flat(call.flat_len);
        session.signer.sign(&mut header, flat);
        let body = match call.body_len {
            0 => Body::Empty,
            length => Body::Source { token: call.token, range: 0..length },
        };
        let checksum = call.spec.checksum;
        out(Transmit { route: session.route(), header: &header, flat, extension: &[], body, checksum })?;
        session.signer.sent();
        self.counters.packets_sent += 1;
        call.last = (header.sequence, header.tag);
        flight.window.sent(0, header.sequence, now);
        session.flow.sent(now, false);
        flight.left(now, &mut call.first_sent, session, &self.config);
        self.end_turn(now, key, Admission::Now);
        Ok(())
    }

    /// At the server: the request arrives, and is delivered. Else [`Transport::on_other_request`].
    pub(crate) fn on_request(&mut self, now: u64, packet: &Packet<'_>, sink: Sink<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let spec = session.spec(header.method);
        let Session { path, end: End::Server(server), .. } = session else { return Err(Reason::WrongKind) };
        let outdated = server.outdated;
        let slot = server.slot_mut(header.call);
        let is_free = header.call > slot.call && matches!(slot.state, State::Over | State::Answered);
        if !is_free || header.fragments > 1 || spec.ordered || outdated {
            return self.on_other_request(now, packet, sink);
        }
        if let (State::Answered, Some(reply)) = (slot.state, &slot.reply) {
            path.moved(reply.longest_packet()); // or its client would not use the slot again
        }
        self.replies.free(slot.begin(now, header, spec));
        self.deliver(packet, sink)
    }

    /// At the server: the answer leaves. Else [`Transport::send_slot`].
    pub(crate) fn send_reply(
        &mut self,
        now: u64,
        index: u32,
        place: u8,
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let route = session.peer.into();
        let Session { signer, flow, end: End::Server(server), .. } = session else { return Ok(()) };
        let Some(slot) = server.slots.get_mut(usize::from(place)) else { return Ok(()) };
        let is_plain = slot.state == State::Answered && slot.request.is_none() && !slot.ack_due;
        let Some(reply) = slot.reply.as_deref_mut().filter(|reply| is_plain && reply.window.is_one_unsent())
        else {
            return self.send_slot(now, index, place, out);
        };
        let (header, flat, body) = reply.packet(0);
        let message_len = message_len(&slot.spec, &reply.window);
        let mut header = Header { method: slot.method, call: slot.call, message_len, ..header };
        signer.sign(&mut header, flat);
        let checksum = slot.spec.checksum;
        out(Transmit { route, header: &header, flat, extension: &[], body, checksum })?;
        signer.sent();
        self.counters.packets_sent += 1;
        reply.window.sent(0, header.sequence, now);
        flow.sent(now, false);
        slot.ready = false;
        if !slot.spec.is_reliable() {
            slot.state = State::Over; // nobody will ask for it again
            self.replies.free(slot.reply.take());
        }
        self.unpark(now, index);
        Ok(())
    }

    /// At the client: the answer arrives, and ends the call. Else [`Transport::on_other_response`].
    pub(crate) fn on_response(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let &Packet { ref header, flat, body, .. } = packet;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let open = session.client().ok_or(Reason::WrongKind)?.call(header.call);
        let found = open.and_then(|key| Some((key, self.calls.get_mut(key)?)));
        let Some((key, call)) = found.filter(|(_, call)| call.first_sent != 0 && header.fragments == 1)
        else {
            return self.on_other_response(now, packet, sink);
        };
        if let Some(flight) = &call.flight
            && !flight.resent
            && !flight.working
            && flight.window.fragments() == 1
        {
            session.answers.sample(now.saturating_sub(call.first_sent));
            session.path.moved(flight.longest_packet(call.flat_len));
        }
        let (token, layout, status) = (call.token, header.layout, Code::from_wire(header.status));
        let verdict = Verdict::Peer { by_engine: header.flags & FLAG_ENGINE != 0 };
        let metadata = header.flags & FLAG_METADATA != 0;
        sink(Event::Response { token, status, layout, flat, metadata, body, verdict });
        self.end_answered(now, key, verdict);
        Ok(())
    }
}
