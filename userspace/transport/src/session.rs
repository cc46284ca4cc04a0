//! Sessions and the table of them.

use crate::client::Client;
use crate::config::Config;
use crate::event::{Blocked, Body, Out, Route, Transmit};
use crate::flow::Flow;
use crate::path::Path;
use crate::rtt::RoundTrip;
use crate::server::Server;
use crate::specs::Specs;
use crate::timers::TimerId;
use std::sync::Arc;
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::Header;
use tollfree_wire::session::{Guard, Role, SESSION_SLOTS, place};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::tag::{Key, tag};
use tollfree_wire::{Cursor, Kind, Replay};

/// A session, agreed on or on its way there.
pub(crate) struct Session {
    /// This host's index for it.
    pub index: u32,
    /// The other end.
    pub peer: Peer,
    /// The UDP port that this end sends from, counted from this host's first.
    pub port: u16,
    /// What its packets are checked against; all zero until it is agreed on.
    pub guard: Guard,
    /// How long its packets may be.
    pub path: Path,
    /// Numbers and signs what is sent on it.
    pub signer: Signer,
    /// When a good packet of the peer's last arrived.
    pub heard_at: u64,
    /// Of calls that are one packet each way: with the handler's time in it.
    pub answers: RoundTrip,
    /// What this end sends on it.
    pub flow: Flow,
    /// Goes off when the flow may send more; made when first needed.
    pub flow_timer: Option<TimerId>,
    pub timer: TimerId,
    /// How its methods are carried. Shared by sessions that agreed on the same.
    pub specs: Arc<Specs>,
    pub end: End,
}

/// Which end of it this host is.
pub(crate) enum End {
    Client(Client),
    Server(Server),
}

impl Session {
    /// A session that is not agreed on yet.
    pub fn new(index: u32, peer: Peer, config: &Config, now: u64, timer: TimerId, end: End) -> Session {
        Session {
            index,
            peer,
            port: 0,
            guard: no_guard(),
            path: Path::new(config.sure_payload, config.max_payload),
            signer: Signer::default(),
            heard_at: now,
            answers: RoundTrip::default(),
            flow: Flow::new(config.queue_ns, config.most_in_flight, now),
            flow_timer: None,
            timer,
            specs: Arc::default(),
            end,
        }
    }

    /// What its packets travel by.
    #[inline]
    pub fn route(&self) -> Route {
        Route { from: self.port, to: self.peer }
    }

    /// How a method is carried; reliably where that could not be agreed on and no call comes of it.
    #[inline]
    pub fn spec(&self, method: u32) -> MethodSpec {
        self.specs.of(method).unwrap_or_default()
    }

    /// Whether both ends have agreed on it.
    pub fn is_open(&self) -> bool {
        self.guard.index != 0
    }

    /// How long to wait for the answer to a packet that is a whole call, before sending it again.
    #[inline]
    pub fn answer_timeout(&self, config: &Config) -> u64 {
        self.answers.timeout(config.rto_initial_ns, config.rto_min_ns)
    }

    /// How long to wait for the ack of a fragment, before sending it again.
    pub fn ack_timeout(&self, config: &Config) -> u64 {
        let initial = self.answers.timeout(config.rto_initial_ns, config.rto_min_ns);
        self.flow.round_trip.timeout(initial, config.rto_min_ns)
    }

    /// The smoothed round trip, in ns; 0 before the first.
    pub fn round_trip_ns(&self) -> u64 {
        match self.flow.round_trip.smoothed() {
            0 => self.answers.smoothed(),
            network => network,
        }
    }

    /// A header-only packet, sealed and counted as sent.
    pub fn packet(&mut self, kind: Kind, edit: impl FnOnce(&mut Header)) -> Header {
        let mut header = Header::new(kind);
        edit(&mut header);
        self.signer.sign(&mut header, &[]);
        self.signer.sent();
        header
    }

    /// The guard of a session just agreed on.
    pub fn open(&mut self, role: Role, peer_index: u32, key: [u64; 2]) -> Guard {
        let Peer { address, port } = self.peer;
        self.signer = Signer { session: peer_index, key, sequence: 1 };
        self.guard = Guard {
            index: self.index,
            peer_index,
            peer: address,
            peer_port: port,
            role: role as u8,
            reserved: 0,
            identity: 0,
            key,
            replay: Replay::NONE,
        };
        self.guard
    }

    /// The client's state, at the client.
    #[inline]
    pub fn client(&mut self) -> Option<&mut Client> {
        match &mut self.end {
            End::Client(client) => Some(client),
            End::Server(_) => None,
        }
    }

    /// The server's state, at the server.
    #[inline]
    pub fn server(&mut self) -> Option<&mut Server> {
        match &mut self.end {
            End::Server(server) => Some(server),
            End::Client(_) => None,
        }
    }
}

/// Numbers and signs packets of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signer {
    /// The index that the peer chose.
    session: u32,
    key: Key,
    /// The next packet's number.
    sequence: u64,
}

impl Signer {
    /// The number of the next packet.
    pub fn next(&self) -> u64 {
        self.sequence
    }

    /// Numbers and signs a packet. The number is used up once [`Signer::sent`] says so.
    #[inline]
    pub fn sign(&self, header: &mut Header, flat: &[u8]) {
        header.session = self.session;
        header.sequence = self.sequence;
        // Fails for a flat block shorter than the header says, which none of ours is.
        header.tag = tag(self.key, header, Cursor::new(flat)).unwrap_or(0);
    }

    /// The signed packet has left.
    #[inline]
    pub fn sent(&mut self) {
        self.sequence += 1;
    }

    /// Sends an ack packet of a call.
    pub fn send_ack(
        &mut self,
        route: Route,
        call: u64,
        flags: u8,
        body: &[u8],
        out: Out<'_>,
    ) -> Result<(), Blocked> {
        let message_len = body.len() as u32;
        let mut header = Header { flags, call, message_len, ..Header::new(Kind::Ack) };
        self.sign(&mut header, &[]);
        out(Transmit { body: Body::Inline(body), ..Transmit::bare(route, &header) })?;
        self.sent();
        Ok(())
    }
}

/// A guard that nothing passes.
const fn no_guard() -> Guard {
    Guard {
        index: 0,
        peer_index: 0,
        peer: Address([0; 4]),
        peer_port: 0,
        role: 0,
        reserved: 0,
        identity: 0,
        key: [0; 2],
        replay: Replay::NONE,
    }
}

/// Sessions by their index. An index's low bits are its place; the rest changes whenever the place is used again.
pub(crate) struct Table {
    places: Vec<Option<Box<Session>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl Table {
    /// An empty table whose indices differ from those of the process's previous life.
    pub fn new(secret: &[u8; 32]) -> Table {
        let [a, b, c, d, ..] = *secret;
        let start = u32::from_le_bytes([a, b, c, d]);
        let count = SESSION_SLOTS as usize;
        Table {
            places: std::iter::repeat_with(|| None).take(count).collect(),
            generations: vec![start; count],
            // Place 0 stays free, so that no index is ever 0.
            free: (1..SESSION_SLOTS).rev().collect(),
        }
    }

    /// Sessions there are.
    pub fn len(&self) -> usize {
        self.places.len() - 1 - self.free.len()
    }

    /// Puts a session, made for its index, into a free place.
    pub fn insert(&mut self, make: impl FnOnce(u32) -> Session) -> Option<u32> {
        let place = self.free.pop()?;
        let generation = &mut self.generations[place as usize];
        *generation = generation.wrapping_add(1);
        let index = *generation << SESSION_SLOTS.trailing_zeros() | place;
        self.places[place as usize] = Some(Box::new(make(index)));
        Some(index)
    }

    /// The session with exactly this index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        let session = self.places[place(index) as usize].as_deref_mut()?;
        (session.index == index).then_some(session)
    }

    /// Takes a session out.
    pub fn remove(&mut self, index: u32) -> Option<Box<Session>> {
        self.get_mut(index)?;
        self.free.push(place(index));
        self.places[place(index) as usize].take()
    }

    /// Every session.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.places.iter().flatten().map(|session| &**session)
    }
}
