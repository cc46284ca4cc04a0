//! Responses, and what a policy in the peer's driver says in their place.

use super::calls::Flight;
use crate::credit::Room;
use crate::event::*;
use crate::outbox::Ready;
use crate::reassembly::{Assembly, Shape};
use crate::sack::{ACK_MAX, AckBody, AckHead};
use crate::session::Session;
use crate::transport::Transport;
use tollfree_wire::header::{FLAG_ENGINE, FLAG_METADATA, FLAG_OF_RESPONSE, HEADER_LEN};
use tollfree_wire::maps::WHY_MAX;
use tollfree_wire::{Code, Packet, Reason};

impl Transport {
    /// A response that is not whole in its packet ([`Transport::on_response`]), or of a call that is not open.
    pub(crate) fn on_other_response(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let client = session.client().ok_or(Reason::WrongKind)?;
        let Some(key) = client.call(header.call) else {
            // Its server waits for an ack if the response is long: whoever has ended the call has no use for more.
            let ended = header.fragments > 1 && client.has_ended(header.call);
            if ended && session.spec(header.method).is_reliable() {
                let fragments = u32::from(header.fragments);
                let ack = AckHead { base: fragments, limit: fragments, ..AckHead::default() };
                self.outbox.push_stateless(Ready::Finished(header.session, header.call, ack));
            }
            return Err(Reason::StaleCall);
        };
        let sent = self.calls.get_mut(key).is_some_and(|call| call.first_sent != 0);
        if !sent || header.fragments == 1 {
            return Err(Reason::StaleCall);
        }
        self.on_response_fragment(now, key, packet, sink)
    }

    fn on_response_fragment(
        &mut self,
        now: u64,
        key: u64,
        packet: &Packet<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let call = self.calls.get_mut(key).ok_or(Reason::StaleCall)?;
        if let Some(flight) = call.flight.as_deref_mut() {
            flight.heard_at = now;
            session.flow.release(flight.window.finish(&mut self.boards));
        }
        if let Some(outdated) = call.response.take_if(|response| response.is_outdated_by(header)) {
            self.pool.close(outdated);
        }
        if call.response.is_none() {
            let shape = Shape::of(packet)?;
            let opened = self.pool.begin(shape, session.peer.address, now);
            match (opened, call.flight.as_deref_mut()) {
                (Ok(assembly), _) => call.response = Some(assembly),
                // Its ack says that there is no room; another will when there is.
                (Err(room @ (Room::Later | Room::LaterForHost)), Some(flight)) => {
                    self.pool.credit.wait(&mut flight.claim, shape, room, Ready::Call(key));
                }
                (Err(_), _) => {
                    let why = "this host has no room to reassemble so long a response";
                    self.fail_call(now, key, Code::ResourceExhausted, why);
                    return Err(Reason::ReassemblyLimit);
                }
            }
        }
        let whole = match &mut call.response {
            Some(assembly) => assembly.add(packet, now)?,
            None => false,
        };
        let Some(assembly) = call.response.as_deref().filter(|_| whole) else {
            let kept = call.response.is_some();
            let Some(flight) = call.flight.as_deref_mut() else { return Ok(()) };
            flight.ack_due = true;
            // From here on the server retransmits; asking again is for when it has vanished.
            flight.interval = self.config.probe_ns;
            flight.resend_at = now.saturating_add(flight.interval);
            self.reset_timer(key);
            self.make_ready(key);
            return if kept { Ok(()) } else { Err(Reason::ReassemblyLimit) };
        };
        let ack = assembly.ack_head(now);
        let acknowledged = call.spec.is_reliable();
        let (token, status) = (call.token, Code::from_wire(assembly.status));
        let verdict = Verdict::Peer { by_engine: assembly.flags & FLAG_ENGINE != 0 };
        let (layout, flat, body) = (assembly.layout, assembly.flat(), assembly.body());
        let metadata = assembly.flags & FLAG_METADATA != 0;
        sink(Event::Response { token, status, layout, flat, metadata, body, verdict });
        if acknowledged {
            self.outbox.push_stateless(Ready::Finished(header.session, header.call, ack));
        }
        self.end_answered(now, key, verdict);
        Ok(())
    }

    /// A policy in the peer's driver has refused the call, or answered it (WIRE.md §7).
    pub(crate) fn on_reject(&mut self, now: u64, packet: &Packet<'_>, sink: Sink<'_>) -> Result<(), Reason> {
        let &Packet { ref header, flat, .. } = packet;
        let client = self.table.get_mut(header.session).and_then(Session::client).ok_or(Reason::WrongKind)?;
        let key = client.call(header.call).ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).filter(|call| call.first_sent != 0).ok_or(Reason::StaleCall)?;
        // An answer has a flat block; all others may have a text in its place (WIRE.md §7).
        let status = Code::from_wire(header.status);
        let (layout, flat, body) = match status {
            Code::Ok => (header.layout, flat, &[][..]),
            _ => (0, &[][..], flat),
        };
        let body = std::str::from_utf8(body).ok().filter(|why| why.len() <= WHY_MAX).unwrap_or_default();
        let token = call.token;
        let (metadata, verdict) = (false, Verdict::Driver);
        sink(Event::Response { token, status, layout, flat, metadata, body: body.as_bytes(), verdict });
        self.give_up(now, key);
        Ok(())
    }

    /// Tells a server that a long response has arrived.
    pub(crate) fn send_finished(
        &mut self,
        index: u32,
        call: u64,
        ack: AckHead,
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let ack = AckBody::from(ack);
        session.signer.send_ack(session.route(), call, FLAG_OF_RESPONSE, ack.bytes(), out)?;
        self.counters.acks_sent += 1;
        Ok(())
    }
}

impl Flight {
    /// Tells the server what has arrived of its response.
    pub(super) fn send_ack(
        &mut self,
        now: u64,
        id: u64,
        response: Option<&mut Assembly>,
        session: &mut Session,
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let ack = match response {
            Some(assembly) => assembly.ack(now),
            None => AckBody::from(AckHead::default()), // no room
        };
        session.signer.send_ack(session.route(), id, FLAG_OF_RESPONSE, ack.bytes(), out)?;
        self.ack_due = false;
        Ok(())
    }
}

// The body of an ack fits the smallest packet.
const _: () = assert!(HEADER_LEN + ACK_MAX <= super::connect::PAYLOAD_MIN);
