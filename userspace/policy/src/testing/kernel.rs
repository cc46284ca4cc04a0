//! A test's calls in the kernel: packets on a session, through the root program and the policy's object, and what came
//! of them. The clock of the object is the test's.
//!
//! Not here: loading programs, which this crate does not; whoever can implements [`Kernel`].

use crate::engine::Change;
use crate::{Clock, Compiled, Home, Options, PeerView, Source, State, TableSpec, Verdict, compile};
use std::net::{IpAddr, Ipv6Addr};
use tollfree_schema::{Manifest, Method};
use tollfree_wire::header::{HEADER_LEN, MESSAGE_MAX, NO_DEADLINE};
use tollfree_wire::maps::{self, Config, JUDGED, PeerEntry};
use tollfree_wire::session::{Guard, Role, place};
use tollfree_wire::tag::{Key, tag};
use tollfree_wire::{Code, Cursor, Header, Kind, Packet, Reason, Replay, SessionEntry};
use zerocopy::IntoBytes;

/// The kernel, with the XDP programs of an interface in it.
pub trait Kernel {
    /// Puts a policy's object in force. Tables that the one before had too keep what is in them.
    ///
    /// # Errors
    /// A sentence.
    fn load(&mut self, object: &[u8], generation: u64) -> Result<(), String>;

    /// Runs the root program on a frame.
    ///
    /// # Errors
    /// A sentence.
    fn run(&mut self, frame: &[u8]) -> Result<Ran, String>;

    /// Whether the programs have a map.
    fn has(&self, map: &str) -> bool;

    /// An entry's value in a map; of a counter the sum over all CPUs.
    ///
    /// # Errors
    /// A sentence.
    fn get(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Every entry of a map.
    ///
    /// # Errors
    /// A sentence.
    fn entries(&self, map: &str) -> Result<Vec<KeyValue>, String>;

    /// Sets an entry.
    ///
    /// # Errors
    /// A sentence.
    fn set(&self, map: &str, key: &[u8], value: &[u8]) -> Result<(), String>;

    /// Removes an entry, if it is there.
    ///
    /// # Errors
    /// A sentence.
    fn delete(&self, map: &str, key: &[u8]) -> Result<(), String>;
}

/// A key and its value, as a map has them.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The root program's return value.
    pub action: u32,
    /// The frame as it was left.
    pub frame: Vec<u8>,
    /// What was counted meanwhile, and how often.
    pub reasons: Vec<(Reason, u64)>,
}

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// The session that all calls come by.
const SESSION: u32 = 5;
const PEER_SESSION: u32 = 77;
const PEER_PORT: u16 = 7401;
const KEY: Key = [0x0123_4567_89ab_cdef, 0xfeed_face_cafe_beef];
/// Bytes of body in the first of several fragments.
const FRAGMENT: u32 = 1024;
/// Ethernet's header: to a host, from a host.
const HOSTS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// A policy's object in the kernel.
pub(super) struct Xdp<'k> {
    kernel: &'k mut dyn Kernel,
    generation: u64,
    /// Packets so far.
    sequence: u64,
    decided: Vec<u8>,
}

/// A request as it arrives.
pub(super) struct Request<'c> {
    pub method: &'c Method,
    pub flat: &'c [u8],
    /// Bytes of flat block and body.
    pub size: u32,
    pub deadline_ns: Option<u64>,
    pub port: u16,
    pub peer: &'c PeerView<'c>,
    pub now_ns: u64,
    pub idle_ns: u64,
}

/// What became of it.
pub(super) struct Judged {
    pub end: End,
    /// The request's flat block as it goes on; what it was answered with, where it was.
    pub flat: Vec<u8>,
    /// How often an element in a dry run would have refused it.
    pub audited: u32,
}

/// Where a call's way through XDP ended.
pub(super) enum End {
    /// It goes on to the service.
    Sent,
    /// It goes on to the elements that are left to the engine.
    Rest,
    /// There, with this verdict.
    Ended(Verdict),
}

impl<'k> Xdp<'k> {
    /// Loads an object and fills its tables with what the engine's have.
    pub fn new(kernel: &'k mut dyn Kernel, compiled: &Compiled, state: &State) -> Result<Xdp<'k>, String> {
        let mut xdp = Xdp { kernel, generation: 0, sequence: 0, decided: Vec::new() };
        xdp.load(compiled)?;
        for (at, spec) in xdp_tables(compiled) {
            if let Some(value) = spec.first_value() {
                xdp.kernel.set(&spec.name, &[0; 4], &value)?;
            }
            let mut done = Ok(());
            state.each_entry(at, |key, value| {
                if done.is_ok() {
                    done = xdp.kernel.set(&spec.name, key, value);
                }
            });
            done?;
        }
        Ok(xdp)
    }

    /// Goes to another time.
    pub fn advance(&mut self, policy: &Source<'_>, schema: &Manifest, now_ns: u64) -> Result<(), String> {
        let options =
            Options { side: Some(crate::Side::Server), clock: Clock::Fixed(now_ns), ..Options::default() };
        let compiled = compile(policy, schema, options).map_err(|mistakes| mistakes.to_string())?;
        self.load(&compiled)
    }

    fn load(&mut self, compiled: &Compiled) -> Result<(), String> {
        let object = compiled.object.as_deref().ok_or("nothing of the policy runs in XDP")?;
        self.generation += 1;
        self.decided.clear();
        self.kernel.load(object, self.generation)
    }

    /// Runs the programs on a request.
    pub fn judge(&mut self, compiled: &Compiled, request: &Request<'_>) -> Result<Judged, String> {
        self.open_session(compiled, request)?;
        let (frame, offset) = self.frame(request)?;
        let Ran { action, frame, reasons } = self.kernel.run(&frame)?;
        let audits = reasons.iter().filter(|(reason, _)| *reason == Reason::PolicyAudit);
        let audited = audits.map(|(_, times)| *times as u32).sum();
        let reason = reasons.iter().map(|(reason, _)| *reason).find(|reason| *reason != Reason::PolicyAudit);
        let strange = || format!("the programs returned {action} and counted {reasons:?}, which is a bug");
        let packet = || {
            let payload = frame.get(offset..).ok_or_else(strange)?;
            Packet::decode(payload).map_err(|_| strange())
        };
        let (end, flat) = match (action, reason) {
            (XDP_REDIRECT, Some(Reason::Delivered)) => {
                let Packet { header, flat, .. } = packet()?;
                let end = match header.tag {
                    JUDGED => End::Sent,
                    generation if generation == self.generation => End::Rest,
                    _ => return Err(strange()),
                };
                (end, flat.to_vec())
            }
            (XDP_TX, Some(reason)) => {
                let Packet { header, kind, flat, .. } = packet()?;
                let verdict = match (kind, Code::from_wire(header.status)) {
                    (Kind::Reject, Code::Ok) if reason == Reason::PolicyAnswer => Verdict::Answer,
                    (Kind::Reject, code) if code != Code::Ok => Verdict::Reject(code, reason),
                    _ => return Err(strange()),
                };
                (End::Ended(verdict), flat.to_vec())
            }
            (XDP_DROP, Some(reason @ Reason::PolicyDrop)) => {
                (End::Ended(Verdict::Drop(reason)), request.flat.to_vec())
            }
            _ => return Err(strange()),
        };
        Ok(Judged { end, flat, audited })
    }

    /// Tells the kernel of the session: who calls now, and what the policy decides of it.
    fn open_session(&mut self, compiled: &Compiled, request: &Request<'_>) -> Result<(), String> {
        let Request { port, peer, now_ns, idle_ns, .. } = *request;
        let config = Config { ports: port.into(), reserved: [0; 2] };
        self.kernel.set(maps::CONFIG, &[0; 4], bytemuck::bytes_of(&config))?;
        let guard = Guard {
            index: SESSION,
            peer_index: PEER_SESSION,
            peer: IpAddr::from(peer.address).into(),
            peer_port: PEER_PORT,
            role: Role::Server as u8,
            reserved: 0,
            identity: 0,
            key: KEY,
            replay: Replay::up_to(self.sequence),
        };
        let key = place(SESSION).to_ne_bytes();
        let known = self.kernel.get(maps::SESSIONS, &key)?.filter(|_| self.sequence > 0);
        let mut entry = match known.as_deref().map(bytemuck::try_pod_read_unaligned::<SessionEntry>) {
            Some(Ok(entry)) => entry,
            _ => SessionEntry::new(guard, now_ns, idle_ns),
        };
        entry.guard = guard;
        let known = PeerEntry::new(SESSION, peer.address, peer.identity, peer.namespace);
        self.kernel.set(maps::PEERS, &key, bytemuck::bytes_of(&known))?;
        if let Some(decisions) = compiled.decisions.as_ref().filter(|_| self.kernel.has(maps::DECISIONS)) {
            let decided = [&SESSION.to_ne_bytes()[..], &decisions.decide(peer, port)].concat();
            if decided != self.decided {
                self.kernel.set(maps::DECISIONS, &key, &decided)?;
                self.decided = decided;
            }
        }
        self.kernel.set(maps::SESSIONS, &key, bytemuck::bytes_of(&entry))
    }

    /// The request's first packet, and where in its frame the base header is.
    fn frame(&mut self, request: &Request<'_>) -> Result<(Vec<u8>, usize), String> {
        let Request { method, flat, size, deadline_ns, port, peer, .. } = *request;
        self.sequence += 1;
        let message_len =
            size.checked_sub(flat.len() as u32).filter(|length| *length <= MESSAGE_MAX).ok_or_else(|| {
                format!("a call has from {} bytes, its flat block, to 16 MiB more, not {size}", flat.len())
            })?;
        let body = if message_len > FRAGMENT { FRAGMENT } else { message_len };
        let mut header = Header {
            session: SESSION,
            method: method.id,
            layout: method.request.fingerprint,
            // Each call in the slot of the one before, as counts above it tell.
            call: self.sequence << 8,
            sequence: self.sequence,
            flat_len: flat.len() as u16,
            message_len,
            fragments: message_len.div_ceil(FRAGMENT).max(1) as u16,
            deadline_us: deadline_ns
                .map_or(NO_DEADLINE, |ns| u32::try_from(ns / 1000).unwrap_or(NO_DEADLINE - 1)),
            ..Header::new(Kind::Request)
        };
        let mut padded = flat.to_vec();
        padded.resize(header.flat_span(), 0);
        header.tag = tag(KEY, &header, Cursor::new(&padded)).map_err(|_| "a flat block is too long")?;
        let udp_len = (8 + HEADER_LEN + padded.len() + body as usize) as u16;
        let mut frame = HOSTS.to_vec();
        match Ipv6Addr::from(peer.address).to_ipv4_mapped() {
            Some(address) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + udp_len).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
                frame.extend(address.octets());
                frame.extend([10, 255, 255, 254]);
            }
            None => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(udp_len.to_be_bytes());
                frame.extend([17, 64]);
                frame.extend(peer.address);
                frame.extend([0xfd; 16]);
            }
        }
        for word in [PEER_PORT, port, udp_len, 0] {
            frame.extend(word.to_be_bytes());
        }
        let offset = frame.len();
        frame.extend(header.as_bytes());
        frame.extend(padded);
        frame.resize(frame.len() + body as usize, 0);
        Ok((frame, offset))
    }

    /// Writes to the maps what the engine has changed in tables that XDP reads.
    pub fn write_through(&mut self, compiled: &Compiled, state: &mut State) -> Result<(), String> {
        let mut done = Ok(());
        let mut whole = Vec::new();
        state.take_changes(|change| match change {
            Change::Entry { table, key, value } => {
                let Some(spec) = compiled.tables.get(table).filter(|_| done.is_ok()) else { return };
                done = match value {
                    Some(value) => self.kernel.set(&spec.name, key, value),
                    None => self.kernel.delete(&spec.name, key),
                };
            }
            Change::All { table } => whole.push(table),
        });
        done?;
        for (at, spec) in whole.into_iter().filter_map(|at| Some((at, compiled.tables.get(at)?))) {
            for (key, _) in self.kernel.entries(&spec.name)? {
                self.kernel.delete(&spec.name, &key)?;
            }
            let mut done = Ok(());
            state.each_entry(at, |key, value| {
                if done.is_ok() {
                    done = self.kernel.set(&spec.name, key, value);
                }
            });
            done?;
        }
        Ok(())
    }

    /// What a table has for a key.
    pub fn table_get(&self, spec: &TableSpec, key: &str) -> Result<Option<String>, String> {
        let key = spec.parse_key(key).map_err(|error| error.to_string())?;
        Ok(self.kernel.get(&spec.name, &key)?.map(|value| spec.format_value(&value)))
    }

    /// Every entry of a table, by key.
    pub fn table_dump(&self, spec: &TableSpec) -> Result<Vec<(String, String)>, String> {
        let entries = self.kernel.entries(&spec.name)?;
        let mut entries: Vec<(String, String)> =
            entries.iter().map(|(key, value)| (spec.format_key(key), spec.format_value(value))).collect();
        entries.sort();
        Ok(entries)
    }
}

/// The tables that XDP uses, with their places.
pub(super) fn xdp_tables(compiled: &Compiled) -> impl Iterator<Item = (usize, &TableSpec)> {
    let homes = compiled.tables.iter().zip(&compiled.homes).enumerate();
    homes.filter(|(_, (_, home))| **home != Home::Engine).map(|(at, (spec, _))| (at, spec))
}
