//! A wire between two hosts that a test can listen to and cut.

use super::Host;
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tollfree_wire::{Kind, Packet};

/// A packet that came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub method: u32,
    pub flags: u8,
    /// Bytes from the base header on.
    pub payload_len: usize,
}

/// Decides which packets get through.
type Filter = Box<dyn FnMut(&Packet<'_>) -> bool + Send>;

/// Carries packets to and from one host.
pub struct Wire {
    /// Where to reach the host through it.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    filter: Arc<Mutex<Filter>>,
    corrupt: Arc<Mutex<Option<Kind>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub fn to(host: &Host) -> Wire {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let address = front.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let filter: Arc<Mutex<Filter>> = Arc::new(Mutex::new(Box::new(|_| true)));
        let corrupt: Arc<Mutex<Option<Kind>>> = Arc::default();
        let shared = (seen.clone(), filter.clone(), corrupt.clone(), stop.clone());
        let to = host.address;
        let thread = std::thread::spawn(move || {
            let (seen, filter, corrupt, stop) = shared;
            let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut bytes = [0; 2048];
            let pass = |bytes: &mut [u8]| {
                let packet = Packet::decode(bytes).expect("hosts send what can be decoded");
                let Packet { header, kind, .. } = packet;
                seen.lock().unwrap().push(Seen {
                    kind,
                    method: header.method,
                    flags: header.flags,
                    payload_len: bytes.len(),
                });
                let passes = (filter.lock().unwrap())(&packet);
                if corrupt.lock().unwrap().take_if(|wanted| *wanted == kind).is_some() {
                    // Behind everything that the tag covers.
                    let last = bytes.len() - 5;
                    bytes[last] ^= 0x20;
                }
                passes
            };
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, client)) = front.recv_from(&mut bytes) {
                    let back = clients.entry(client).or_insert_with(|| {
                        let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                        back.connect(to).unwrap();
                        back.set_nonblocking(true).unwrap();
                        back
                    });
                    if pass(&mut bytes[..length]) {
                        let _ = back.send(&bytes[..length]);
                    }
                }
                for (client, back) in &clients {
                    while let Ok(length) = back.recv(&mut bytes) {
                        if pass(&mut bytes[..length]) {
                            let _ = front.send_to(&bytes[..length], client);
                        }
                    }
                }
            }
        });
        Wire { address, seen, filter, corrupt, stop, thread: Some(thread) }
    }

    /// Lets through only what `filter` says.
    pub fn filter(&self, filter: impl FnMut(&Packet<'_>) -> bool + Send + 'static) {
        *self.filter.lock().unwrap() = Box::new(filter);
    }

    /// Flips a bit in the body of the next packet of a kind.
    pub fn corrupt_next(&self, kind: Kind) {
        *self.corrupt.lock().unwrap() = Some(kind);
    }

    /// What came by since the last time.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
