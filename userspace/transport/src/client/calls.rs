//! Outgoing calls: a table without allocation in the steady state, keyed so that a key of a call gone is harmless.
//!
//! What it takes to send a call, and to send it again, is its [`Flight`]. A reliable call has one until it ends, an
//! unreliable one until its last packet has left: from then on a [`Call`] is all there is of it.

use crate::credit::Claim;
use crate::extension::{message_len, order_len};
use crate::reassembly::Assembly;
use crate::timers::{Owner, TimerId, Timers};
use crate::window::{Boards, Window};
use tollfree_wire::Kind;
use tollfree_wire::header::{FLAG_METADATA, FLAT_MAX, Header, NO_DEADLINE};
use tollfree_wire::spec::MethodSpec;

/// Where an outgoing call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Waits in its link's queue for a session or a slot.
    Queued,
    /// Has a slot in the session with this index, and this id there.
    Open { session: u32, id: u64 },
}

/// An outgoing call.
#[derive(Debug)]
pub(crate) struct Call {
    pub key: u64,
    pub token: u64,
    pub link: u32,
    pub place: Place,
    pub method: u32,
    pub layout: u32,
    pub deadline_ns: u64,
    pub body_len: u32,
    pub flat_len: u16,
    /// The body begins with a metadata block.
    pub metadata: bool,
    /// In the outbox.
    pub ready: bool,
    /// Times the call moved to another session.
    pub moves: u8,
    /// How its session carries it; known once it has a slot.
    pub spec: MethodSpec,
    /// When the first packet left; 0: none has.
    pub first_sent: u64,
    /// Sequence and tag of the last packet sent, by which a reset proves that it answers it.
    pub last: (u64, u64),
    pub timer: TimerId,
    /// The response, when it comes in several fragments.
    pub response: Option<Box<Assembly>>,
    pub flight: Option<Box<Flight>>,
}

/// What it takes to send a call, and to send it again.
#[derive(Debug)]
pub(crate) struct Flight {
    flat: [u8; FLAT_MAX],
    pub window: Window,
    /// Waits for the network to take more, in its session's flow.
    pub parked: bool,
    /// A missing fragment was sent again, to hear what has become of the rest, and nothing was heard since.
    pub probed: bool,
    /// An ack of the response's fragments is due.
    pub ack_due: bool,
    /// Where the response waits for room.
    pub claim: Claim,
    /// When the peer last said something about this call, or the first packet left.
    pub heard_at: u64,
    /// When to send again.
    pub resend_at: u64,
    /// How long to wait before that.
    pub interval: u64,
    /// Something was sent more than once.
    pub resent: bool,
    /// The peer has the whole request.
    pub working: bool,
}

impl Flight {
    fn new() -> Flight {
        Flight {
            flat: [0; FLAT_MAX],
            window: Window::default(),
            parked: false,
            probed: false,
            ack_due: false,
            claim: Claim::default(),
            heard_at: 0,
            resend_at: 0,
            interval: 0,
            resent: false,
            working: false,
        }
    }

    /// The flat block of this length, padded as on the wire.
    #[inline]
    pub fn flat(&self, len: u16) -> &[u8] {
        &self.flat[..usize::from(len).next_multiple_of(8)]
    }
}

impl Call {
    /// The deadline as what is left of it, in µs.
    #[inline]
    fn budget_us(&self, now: u64) -> u32 {
        match self.deadline_ns {
            u64::MAX => NO_DEADLINE,
            deadline => u32::try_from(deadline.saturating_sub(now) / 1000).unwrap_or(NO_DEADLINE),
        }
    }

    /// The header of its packets, without what is a fragment's own, and unsigned; `None` when it has landed.
    #[inline]
    pub fn header(&self, now: u64, id: u64) -> Option<Header> {
        let window = &self.flight.as_ref()?.window;
        Some(Header {
            flags: if self.metadata { FLAG_METADATA } else { 0 },
            method: self.method,
            call: id,
            message_len: message_len(&self.spec, window),
            fragments: window.fragments() as u16,
            deadline_us: self.budget_us(now),
            layout: self.layout,
            ..Header::new(Kind::Request)
        })
    }

    /// Goes to a session's slot.
    pub fn open(&mut self, session: u32, id: u64, spec: MethodSpec, room: u32, boards: &mut Boards) {
        self.place = Place::Open { session, id };
        self.spec = spec;
        if let Some(flight) = &mut self.flight {
            let length = self.body_len + order_len(&spec);
            flight.window = match spec.is_reliable() {
                true => Window::acknowledged(length, room, spec.window, boards),
                false => Window::once(length, room),
            };
        }
    }

    /// The session it is open in.
    pub fn session(&self) -> Option<u32> {
        match self.place {
            Place::Open { session, .. } => Some(session),
            Place::Queued => None,
        }
    }

    /// Brings the deadline forward to what the method's transport allows from now on.
    pub fn limit(&mut self, now: u64, spec: &MethodSpec) {
        if spec.timeout_us != 0 {
            let latest = now.saturating_add(u64::from(spec.timeout_us) * 1000);
            self.deadline_ns = self.deadline_ns.min(latest);
        }
    }

    /// Goes back to the queue as if nothing had been sent.
    pub fn requeue(&mut self) {
        self.place = Place::Queued;
        self.first_sent = 0;
        self.moves += 1;
        if let Some(flight) = &mut self.flight {
            flight.window = Window::default();
            (flight.resent, flight.parked, flight.probed) = (false, false, false);
        }
    }

    /// When its timer has to go off. An unreliable call without a deadline waits for `patience`.
    #[inline]
    pub fn due_at(&self, patience: u64) -> u64 {
        match (self.place, &self.flight) {
            (Place::Queued, _) => self.deadline_ns,
            _ if self.first_sent == 0 => self.deadline_ns,
            (_, Some(flight)) => self.deadline_ns.min(flight.resend_at),
            (_, None) if self.deadline_ns == u64::MAX => self.first_sent.saturating_add(patience),
            (_, None) => self.deadline_ns,
        }
    }
}

/// All outgoing calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    entries: Vec<Call>,
    free: Vec<u32>,
    /// For calls to come: as many as were ever in use at once.
    #[expect(clippy::vec_box, reason = "they move between here and the calls without being copied")]
    flights: Vec<Box<Flight>>,
    open: usize,
}

/// Keys' high halves count uses; an even count marks a free entry.
const USE: u64 = 1 << 32;

impl Calls {
    /// Adds a queued call. `flat` is at most [`FLAT_MAX`] long.
    pub fn insert(&mut self, timers: &mut Timers, link: u32, call: &crate::NewCall<'_>) -> u64 {
        let &crate::NewCall { method, layout, flat, metadata, body_len, deadline_ns, token } = call;
        let position = match self.free.pop() {
            Some(position) => position as usize,
            None => {
                self.entries.push(Call::vacant(self.entries.len() as u64, timers));
                self.entries.len() - 1
            }
        };
        self.open += 1;
        let entry = &mut self.entries[position];
        let mut flight = self.flights.pop().unwrap_or_else(|| Box::new(Flight::new()));
        *flight = Flight::new();
        flight.flat[..flat.len()].copy_from_slice(flat);
        let Call { key, timer, .. } = *entry;
        *entry = Call {
            key: key.wrapping_add(USE),
            token,
            link,
            method,
            layout,
            deadline_ns,
            body_len,
            flat_len: flat.len() as u16,
            metadata,
            flight: Some(flight),
            ..Call::blank(timer)
        };
        entry.key
    }

    /// The call with this key, unless it is gone.
    #[inline]
    pub fn get_mut(&mut self, key: u64) -> Option<&mut Call> {
        self.entries.get_mut(key as u32 as usize).filter(|call| call.key == key && key & USE != 0)
    }

    /// Forgets a call; its timer stays with the entry, not set.
    pub fn remove(&mut self, key: u64) {
        if let Some(call) = self.get_mut(key) {
            call.key = call.key.wrapping_add(USE);
            let flight = call.flight.take();
            self.flights.extend(flight);
            self.free.push(key as u32);
            self.open -= 1;
        }
    }

    /// Takes note that a call will never be sent (again).
    pub fn land(&mut self, key: u64) {
        let flight = self.get_mut(key).and_then(|call| call.flight.take());
        self.flights.extend(flight);
    }

    /// The key of the call that uses a position now: what a timer knows.
    pub fn key_at(&self, position: u64) -> Option<u64> {
        self.entries.get(position as usize).map(|call| call.key).filter(|key| key & USE != 0)
    }

    /// Calls there are.
    pub fn len(&self) -> usize {
        self.open
    }

    /// The keys of all calls. Allocates.
    pub fn keys(&self) -> Vec<u64> {
        self.entries.iter().map(|call| call.key).filter(|key| key & USE != 0).collect()
    }
}

impl Call {
    fn vacant(position: u64, timers: &mut Timers) -> Call {
        // The owner's key is looked up again when the timer goes off: only its position counts.
        let timer = timers.create(Owner::Call(position));
        Call { key: position, ..Call::blank(timer) }
    }

    fn blank(timer: TimerId) -> Call {
        Call {
            key: 0,
            token: 0,
            link: 0,
            place: Place::Queued,
            method: 0,
            layout: 0,
            deadline_ns: 0,
            body_len: 0,
            flat_len: 0,
            metadata: false,
            ready: false,
            moves: 0,
            spec: MethodSpec::default(),
            first_sent: 0,
            last: (0, 0),
            timer,
            response: None,
            flight: None,
        }
    }
}
