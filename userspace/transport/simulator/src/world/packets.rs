//! How packets get from a host through the network, past the other's driver, into its transport.

use super::{METHOD, What, World, read_flat};
use crate::driver::Verdict as DriverVerdict;
use crate::trace::describe;
use tollfree_transport::{Blocked, Route, SessionChange, Transmit};
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{HEADER_LEN, Kind};
use tollfree_wire::{Packet, Reason};
use zerocopy::IntoBytes;

impl World {
    /// A packet reaches a host's network card.
    pub(super) fn arrive(&mut self, to: usize, from: Peer, bytes: Vec<u8>) {
        if self.config.verified && !self.admit(to, from, &bytes) {
            return;
        }
        let host = &mut self.hosts[to];
        if host.transport.is_some() {
            host.inbox.push_back((from, bytes));
            let poll = self.random.below(host.poll.clone());
            self.wake(to, self.now + poll);
        }
    }

    /// The driver's checks. True: the engine gets the packet.
    fn admit(&mut self, to: usize, from: Peer, bytes: &[u8]) -> bool {
        let verdict = match Packet::decode(bytes) {
            Ok(packet) => {
                let racing = self.random.chance(0.01);
                self.hosts[to].driver.judge(from, &packet, racing)
            }
            Err(reason) => DriverVerdict::Drop(reason),
        };
        match verdict {
            DriverVerdict::Deliver => return true,
            DriverVerdict::Answer(answer, reason) => {
                self.refused(to, reason, bytes);
                self.launch(to, from, answer.as_bytes().to_vec());
            }
            DriverVerdict::Drop(reason) => self.refused(to, reason, bytes),
        }
        false
    }

    /// A packet arrives now, whether the network carried it or not.
    pub fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.receive(to, self.hosts[from].peer, bytes);
    }

    pub(super) fn receive(&mut self, to: usize, from: Peer, bytes: &[u8]) {
        let now = self.local(to);
        let Some(mut transport) = self.hosts[to].transport.take() else { return };
        if let Err(reason) = transport.receive(now, from, bytes, &mut |event| self.on_event(to, event)) {
            self.refused(to, reason, bytes);
        }
        self.hosts[to].transport = Some(transport);
    }

    fn refused(&mut self, at: usize, reason: Reason, bytes: &[u8]) {
        *self.hosts[at].dropped.entry(reason.name()).or_default() += 1;
        if self.trace.is_some() {
            self.note(format_args!("  host {at} refuses ({reason}): {}", describe(bytes)));
        }
    }

    pub(super) fn transmit(&mut self, number: usize) {
        let now = self.local(number);
        let Some(mut transport) = self.hosts[number].transport.take() else { return };
        let host = &mut self.hosts[number];
        for change in transport.session_changes() {
            match change {
                SessionChange::Opened(guard, _) => host.guards.insert(guard.index, guard),
                SessionChange::Closed(index) => host.guards.remove(&index),
            };
            host.driver.mirror(change);
        }
        let mut blocked = self.network.blocked > 0.0;
        loop {
            let mut full = false;
            transport.transmit(now, &mut |packet| {
                if blocked && self.random.chance(self.network.blocked) {
                    full = true;
                    return Err(Blocked);
                }
                self.send(number, &packet);
                Ok(())
            });
            // The ring has room again at once: the simulated world has no event for it.
            if !full {
                break;
            }
            blocked = self.random.chance(0.5);
        }
        self.hosts[number].transport = Some(transport);
    }

    fn send(&mut self, from: usize, packet: &Transmit<'_>) {
        let host = &self.hosts[from];
        let mut bytes = vec![0; packet.payload_len()];
        packet.write(&mut bytes, |token, start, out| {
            let body = host.made.get(&token).map(|made| &made.body).or_else(|| host.held.get(&token));
            let body = body.expect("a body is asked for only while its token is in use");
            out.copy_from_slice(&body[start as usize..start as usize + out.len()]);
        });
        assert!(bytes.len() <= self.config.max_payload, "{} bytes do not fit", bytes.len());
        let decoded = Packet::decode(&bytes).expect("what is sent is well-formed");
        if decoded.kind == Kind::Hello {
            self.last_hello.clone_from(&bytes);
        }
        if let (Kind::Request, Some((uid, _)), Some(to)) =
            (decoded.kind, read_flat(decoded.flat), self.number(&packet.route.to))
        {
            self.first_sent.entry(uid).or_insert((to, packet.header.session));
        }
        if host.rogue {
            let last = self.hosts[from].sequences.entry(packet.header.session).or_default();
            *last = packet.header.sequence.max(*last);
        }
        let Route { from: port, to } = packet.route;
        let mut source = self.hosts[from].peer;
        source.port += port;
        self.launch_as(from, source, to, bytes);
    }

    /// Hands any bytes to the network. Those to nobody's address get lost.
    pub fn launch(&mut self, from: usize, to: Peer, bytes: Vec<u8>) {
        let source = self.hosts[from].peer;
        self.launch_as(from, source, to, bytes);
    }

    /// Like [`World::launch`], with a source address that may be a lie.
    pub fn launch_as(&mut self, from: usize, source: Peer, to: Peer, bytes: Vec<u8>) {
        self.mark(from, &bytes);
        let decoded = Packet::decode(&bytes);
        let mut passes = true;
        let mut protected = bytes.len();
        if let Ok(packet) = &decoded {
            *self.sent.entry(packet.kind).or_default() += 1;
            passes = (self.filter)(from, packet);
            let checked = self.spec.checksum && packet.header.method == METHOD;
            if !packet.kind.is_handshake() && !checked {
                // The body is UDP's checksum's business; header and flat block must survive without it.
                protected = HEADER_LEN + packet.flat_padded.len();
            }
        }
        passes &= bytes.len() <= self.network.carries;
        let Some(number) = self.number(&to).filter(|_| passes) else { return };
        let copies = self.network.fate(&mut self.random).copies;
        if self.trace.is_some() {
            let fate = match copies[..] {
                [] => "lost".to_owned(),
                [(delay, altered)] => {
                    format!("{} µs{}", delay / 1000, if altered { ", altered" } else { "" })
                }
                _ => format!("{} times", copies.len()),
            };
            self.note(format_args!("{from} → {number}: {} [{fate}]", describe(&bytes)));
        }
        for (delay, altered) in copies {
            let mut bytes = bytes.clone();
            if altered {
                self.network.alter(&mut self.random, &mut bytes, protected);
            }
            let from = (source.address.0, source.port);
            self.schedule(self.now + delay, What::Arrival { to: number, from, bytes });
        }
    }

    fn mark(&mut self, from: usize, bytes: &[u8]) {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        for word in [self.now, from as u64].into_iter().chain(words.take(8)) {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
