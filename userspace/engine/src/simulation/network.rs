//! A network in memory that loses, repeats and reorders packets as a seed says, and a backend to it.

use super::random::Random;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tollfree_nic::{Counters, Error, Nic, Peer, Received, TxError};

/// How often the network does what it should not, each as one packet in so many.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loses: u64,
    pub repeats: u64,
    pub holds_back: u64,
}

/// What is under way.
pub struct Network {
    random: Random,
    faults: Faults,
    now: u64,
    count: u64,
    packets: BTreeMap<(u64, u64), Packet>,
    /// Hosts that are no more.
    gone: Vec<Peer>,
}

struct Packet {
    from: Peer,
    to: Peer,
    payload: Vec<u8>,
}

impl Network {
    pub fn new(random: Random, faults: Faults) -> Rc<RefCell<Network>> {
        Rc::new(RefCell::new(Network {
            random,
            faults,
            now: 0,
            count: 0,
            packets: BTreeMap::new(),
            gone: vec![],
        }))
    }

    /// Time passes.
    pub fn advance(&mut self, now: u64) {
        self.now = now;
    }

    /// Whatever is sent to a host is lost from now on.
    pub fn cut(&mut self, host: Peer) {
        self.packets.retain(|_, packet| packet.to.address != host.address);
        self.gone.push(host);
    }

    /// When the next packet arrives.
    pub fn due(&self) -> Option<u64> {
        self.packets.first_key_value().map(|((due, _), _)| *due)
    }

    fn send(&mut self, from: Peer, to: Peer, payload: &[u8]) {
        if self.random.one_in(self.faults.loses) || self.gone.iter().any(|gone| gone.address == to.address) {
            return;
        }
        let copies = if self.random.one_in(self.faults.repeats) { 2 } else { 1 };
        for _ in 0..copies {
            let late =
                if self.random.one_in(self.faults.holds_back) { self.random.below(500_000) } else { 0 };
            let due = self.now + 10_000 + self.random.below(5_000) + late;
            self.count += 1;
            self.packets.insert((due, self.count), Packet { from, to, payload: payload.to_vec() });
        }
    }

    fn take(&mut self, to: Peer) -> Option<Packet> {
        let now = self.now;
        let arrived =
            self.packets.range(..=(now, u64::MAX)).find(|(_, packet)| packet.to.address == to.address);
        let key = *arrived?.0;
        self.packets.remove(&key)
    }
}

/// One host's end of the network.
pub struct End {
    network: Rc<RefCell<Network>>,
    here: Peer,
    /// Nobody waits for it: time is made here.
    fd: OwnedFd,
}

impl End {
    pub fn new(network: &Rc<RefCell<Network>>, here: Peer) -> End {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).expect("a file descriptor");
        End { network: network.clone(), here, fd }
    }
}

impl Nic for End {
    const VERIFIED: bool = false;

    fn max_payload(&self) -> usize {
        1472
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(Received<'_>)) -> Result<usize, Error> {
        let mut count = 0;
        while count < budget {
            let Some(Packet { from, payload, .. }) = self.network.borrow_mut().take(self.here) else { break };
            sink(Received { from, payload: &payload, marked: false });
            count += 1;
        }
        Ok(count)
    }

    fn ports(&self) -> u16 {
        4
    }

    fn transmit(
        &mut self,
        from: u16,
        to: &Peer,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TxError> {
        let mut payload = vec![0; len];
        fill(&mut payload);
        let from = Peer { port: self.here.port + from, ..self.here };
        self.network.borrow_mut().send(from, *to, &payload);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn tick(&mut self, _: u64) {}
}
