//! Requests of ordered methods: delivered in the order in which they were made on their session.
//!
//! The client numbers them; the server holds back what came too early, in the memory that reassembly accounts for. A
//! number may never come, because its call has ended at the client: so every request says which numbers are still
//! wanted, and when a call ends in another way than by its answer, the lowest one that is left says it at once.

use super::{State, slot_of};
use crate::client::Client;
use crate::event::*;
use crate::extension::{Order, before, split_order};
use crate::session::Session;
use crate::transport::Transport;
use tollfree_wire::{Packet, Reason};

/// Where the ordered requests of a session stand, at its server.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The number to deliver next.
    next: u32,
    /// No fewer than the requests held back.
    held: usize,
}

impl Transport {
    /// A request in one packet. Without room to hold it back it is as good as lost, and will be sent again.
    pub(crate) fn on_ordered(&mut self, now: u64, packet: &Packet<'_>, sink: Sink<'_>) -> Result<(), Reason> {
        let (order, body) = split_order(packet.body)?;
        self.raise_floor(now, packet, sink);
        let (index, call) = (packet.header.session, packet.header.call);
        let session = self.table.get_mut(index).ok_or(Reason::UnknownSession)?;
        let from = session.peer.address;
        let server = session.server().ok_or(Reason::WrongKind)?;
        if order.number == server.turn.next {
            server.turn.next = order.number.wrapping_add(1);
            self.begin(now, &packet.header);
            let outcome = self.deliver(&Packet { body, ..*packet }, sink);
            self.release_held(now, index, sink);
            return outcome;
        }
        let early = before(server.turn.next, order.number);
        let assembly = if early { Some(self.pool.hold(packet, from, now)?) } else { None };
        self.begin(now, &packet.header);
        let server = self.table.get_mut(index).and_then(Session::server).ok_or(Reason::WrongKind)?;
        server.find(call).ok_or(Reason::StaleCall)?.request = assembly;
        self.hold(index, call, order)
    }

    /// A request of several fragments is whole, and still in its slot.
    pub(crate) fn on_ordered_whole(
        &mut self,
        now: u64,
        index: u32,
        call: u64,
        sink: Sink<'_>,
    ) -> Result<(), Reason> {
        let session = self.table.get_mut(index).ok_or(Reason::UnknownSession)?;
        let server = session.server().ok_or(Reason::WrongKind)?;
        let slot = server.find(call).ok_or(Reason::StaleCall)?;
        let message = slot.request.as_ref().map_or(&[][..], |assembly| assembly.body());
        let order = match split_order(message) {
            Ok((order, _)) => order,
            Err(reason) => {
                self.retire_slot(index, slot_of(call));
                return Err(reason);
            }
        };
        if before(server.turn.next, order.floor) {
            server.turn.next = order.floor;
        }
        let outcome = self.hold(index, call, order);
        self.release_held(now, index, sink);
        outcome
    }

    /// Keeps a whole request until its turn; one whose turn is over is let go.
    fn hold(&mut self, index: u32, call: u64, order: Order) -> Result<(), Reason> {
        let server = self.table.get_mut(index).and_then(Session::server).ok_or(Reason::WrongKind)?;
        let late = before(order.number, server.turn.next);
        server.turn.held += usize::from(!late);
        let slot = server.find(call).ok_or(Reason::StaleCall)?;
        (slot.state, slot.order) = (State::Held, order.number);
        if late {
            self.retire_slot(index, slot_of(call));
            return Err(Reason::StaleCall);
        }
        Ok(())
    }

    /// Takes note of what the client says of the numbers it still wants, in a request that is new or a repetition.
    pub(crate) fn raise_floor(&mut self, now: u64, packet: &Packet<'_>, sink: Sink<'_>) {
        let index = packet.header.session;
        let Ok((Order { floor, .. }, _)) = split_order(packet.body) else { return };
        let Some(server) = self.table.get_mut(index).and_then(Session::server) else { return };
        if before(server.turn.next, floor) {
            server.turn.next = floor;
            self.release_held(now, index, sink);
        }
    }

    /// Delivers what has been held back and whose turn it is.
    fn release_held(&mut self, now: u64, index: u32, sink: Sink<'_>) {
        loop {
            let Some(server) = self.table.get_mut(index).and_then(Session::server) else { return };
            let turn = &mut server.turn;
            if turn.held == 0 {
                return;
            }
            let held = || server.slots.iter().filter(|slot| slot.state == State::Held);
            turn.held = held().count();
            let Some(slot) = held().find(|slot| !before(turn.next, slot.order)) else { return };
            let call = slot.call;
            if slot.order == turn.next {
                turn.next = turn.next.wrapping_add(1);
                // Expired or not, its turn is over; the reason is counted where packets are.
                let _ = self.deliver_assembled(now, index, call, sink);
            } else {
                self.retire_slot(index, slot_of(call));
            }
        }
    }

    /// A call has ended at this client without its application's word: whoever waits behind it is let go on.
    pub(crate) fn skip_in_order(&mut self, index: u32) {
        let Some(client) = self.table.get_mut(index).and_then(Session::client) else { return };
        let Some(key) = client.first_ordered() else { return };
        let Some(call) = self.calls.get_mut(key).filter(|call| call.first_sent != 0) else { return };
        if let Some(flight) = call.flight.as_deref_mut() {
            flight.window.probe();
            self.make_ready(key);
        }
    }
}

impl Client {
    /// The key of the open call with the lowest number.
    fn first_ordered(&self) -> Option<u64> {
        let floor = self.floor();
        self.slots().find(|slot| slot.order == Some(floor)).and_then(|slot| slot.key)
    }
}
