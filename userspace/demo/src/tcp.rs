//! An ordinary TCP conversation between two namespaces: what attaching XDP must never disturb.

use crate::netns::Namespace;
use anyhow::{Context, Result, bail};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);
const MESSAGE_LEN: usize = 1024;

/// A server that echoes, and one connection to it that is used all the time.
#[derive(Debug)]
pub struct Conversation {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    exchanges_seen: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    exchanges: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Conversation {
    /// Starts both ends. The sockets belong to the namespaces they are made in, wherever they are used.
    ///
    /// # Errors
    /// When they cannot be connected.
    pub fn start(server: &Namespace, client: &Namespace, address: SocketAddr) -> Result<Conversation> {
        let listener = server.enter(|| TcpListener::bind(address).context("cannot listen for TCP"))?;
        listener.set_nonblocking(true).context("cannot listen for TCP")?;
        let shared = Arc::new(Shared::default());
        let echoing = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        let mut conversation = Conversation { address, shared, threads: vec![echoing], exchanges_seen: 0 };
        let stream = conversation.connect(client)?;
        let shared = conversation.shared.clone();
        conversation.threads.push(std::thread::spawn(move || talk(stream, &shared)));
        Ok(conversation)
    }

    fn connect(&self, client: &Namespace) -> Result<TcpStream> {
        let stream = client.enter(|| {
            TcpStream::connect_timeout(&self.address, PATIENCE)
                .with_context(|| format!("an ordinary TCP connection to {} fails", self.address))
        })?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set up a TCP socket")?;
        stream.set_write_timeout(Some(PATIENCE)).context("cannot set up a TCP socket")?;
        Ok(stream)
    }

    /// A new connection works, and the old one has gone on working since the last time. Returns how many messages it
    /// has carried in the meantime.
    ///
    /// # Errors
    /// When either does not.
    pub fn check(&mut self, client: &Namespace) -> Result<u64> {
        let mut fresh = self.connect(client)?;
        for number in 0..16 {
            exchange(&mut fresh, number).context("a new TCP connection does not carry data")?;
        }
        let seen = self.exchanges_seen;
        for _ in 0..500 {
            if let Some(failure) = self.shared.failure.lock().ok().and_then(|failure| failure.clone()) {
                bail!("the TCP connection that was there all the time broke: {failure}");
            }
            self.exchanges_seen = self.shared.exchanges.load(Ordering::Relaxed);
            if self.exchanges_seen > seen {
                return Ok(self.exchanges_seen - seen);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the TCP connection that was there all the time has stalled");
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panicked thread has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                serving.push(std::thread::spawn(move || echo(stream, &shared)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    for thread in serving {
        let _ = thread.join();
    }
}

fn echo(mut stream: TcpStream, shared: &Shared) {
    let mut buffer = [0; MESSAGE_LEN];
    let ready =
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(50))));
    if ready.is_err() {
        return; // the other end notices
    }
    while !shared.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn talk(mut stream: TcpStream, shared: &Shared) {
    let mut number = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        if let Err(error) = exchange(&mut stream, number) {
            if !shared.stop.load(Ordering::Relaxed)
                && let Ok(mut failure) = shared.failure.lock()
            {
                *failure = Some(format!("{error:#}"));
            }
            return;
        }
        number += 1;
        shared.exchanges.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn exchange(stream: &mut TcpStream, number: u64) -> Result<()> {
    let mut message = [0; MESSAGE_LEN];
    for (chunk, at) in message.chunks_exact_mut(8).zip(number..) {
        chunk.copy_from_slice(&at.to_le_bytes());
    }
    stream.write_all(&message).context("cannot send")?;
    let mut back = [0; MESSAGE_LEN];
    stream.read_exact(&mut back).context("cannot receive")?;
    if back != message {
        bail!("what came back is not what was sent");
    }
    Ok(())
}
