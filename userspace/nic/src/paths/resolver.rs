//! The thread that asks the kernel for routes and neighbours, and waits for ARP and neighbour discovery.

use super::netlink::{Client, Neighbour, Route};
use crate::{Error, headers::Path};
use std::{
    net::IpAddr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tollfree_wire::frame::Peer;

/// Peers waiting to be resolved; more than that wait for their next attempt.
const BACKLOG: usize = 1024;
/// How long a neighbour may take to answer. The kernel itself gives up after three probes a second apart.
const PATIENCE: Duration = Duration::from_millis(3500);
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What became of a request: the path, or a sentence saying why there is none.
pub type Outcome = (Peer, Result<Path, String>);

/// The polling thread's end.
pub struct Resolver {
    requests: Option<SyncSender<Peer>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts the thread, in the caller's network namespace.
    pub fn start(interface: &str, index: u32) -> Result<Resolver, Error> {
        let failed = |error: std::io::Error| Error::Interface {
            interface: interface.to_owned(),
            problem: format!("its routes cannot be asked for: {error}"),
        };
        let client = Client::open().map_err(failed)?;
        let (requests, inbox) = mpsc::sync_channel(BACKLOG);
        let (outbox, outcomes) = mpsc::channel();
        let mut worker =
            Worker { client, interface: interface.to_owned(), index, jobs: Vec::new(), inbox, outbox };
        let thread = std::thread::Builder::new()
            .name("tollfree-paths".into())
            .spawn(move || worker.run())
            .map_err(failed)?;
        Ok(Resolver { requests: Some(requests), outcomes, thread: Some(thread) })
    }

    /// Asks for a path; false if too much is asked already.
    pub fn request(&self, peer: Peer) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.try_send(peer).is_ok())
    }

    /// One finished request, if there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The thread ends when nobody can ask any more.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Job {
    peer: Peer,
    started: Instant,
    due: Instant,
    wait: Duration,
    probed: bool,
}

enum Step {
    Done(Path),
    /// The neighbour has been asked for its address; `failed` if the kernel has given up on it.
    Waiting {
        next: IpAddr,
        failed: bool,
    },
}

struct Worker {
    client: Client,
    interface: String,
    index: u32,
    jobs: Vec<Job>,
    inbox: Receiver<Peer>,
    outbox: mpsc::Sender<Outcome>,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let due = self.jobs.iter().map(|job| job.due).min();
            let received = match due {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self.inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let now = Instant::now();
            match received {
                Ok(peer) => {
                    self.jobs.push(Job { peer, started: now, due: now, wait: FIRST_WAIT, probed: false })
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for mut job in std::mem::take(&mut self.jobs) {
                let outcome = if job.due > now { None } else { self.work(&mut job, now) };
                match outcome {
                    None => self.jobs.push(job),
                    Some(outcome) => {
                        // Nobody listening means that the thread is about to end.
                        let _ = self.outbox.send((job.peer, outcome));
                    }
                }
            }
        }
    }

    fn work(&mut self, job: &mut Job, now: Instant) -> Option<Result<Path, String>> {
        match self.step(job) {
            Err(problem) => Some(Err(problem)),
            Ok(Step::Done(path)) => Some(Ok(path)),
            Ok(Step::Waiting { next, failed }) if failed || now - job.started > PATIENCE => {
                let kind = if next.is_ipv4() { "ARP" } else { "neighbour discovery" };
                Some(Err(format!("{next} does not answer {kind} on interface {}", self.interface)))
            }
            Ok(Step::Waiting { .. }) => {
                job.due = now + job.wait;
                job.wait = (job.wait * 2).min(LONGEST_WAIT);
                None
            }
        }
    }

    fn step(&mut self, job: &mut Job) -> Result<Step, String> {
        let address = IpAddr::from(job.peer.address);
        let failed = |error| format!("the kernel does not say how to reach {address}: {error}");
        let route = self.client.route(address).map_err(failed)?;
        let (oif, gateway, source) = match route {
            Route::Unicast { oif, gateway, source } => (oif, gateway, source),
            Route::Local => {
                return Err(format!("{address} is this host's own address, which no interface leads to"));
            }
            Route::Other(kind) => {
                return Err(format!("the route to {address} is of type {kind:?}, not unicast"));
            }
        };
        let source = source.ok_or_else(|| {
            format!("this host has no address to reach {address} from; give interface {} one", self.interface)
        })?;
        let link = self.client.link(oif).map_err(failed)?;
        let vlan = link.vlan.filter(|vlan| vlan.parent == self.index).map(|vlan| vlan.id);
        if oif != self.index && vlan.is_none() {
            let (other, this) = (link.name, &self.interface);
            return Err(format!("the route to {address} leaves by interface {other}, not by {this}"));
        }
        let next = gateway.unwrap_or(address);
        let neighbour = self.client.neighbour(oif, next).map_err(failed)?;
        let first = !job.probed;
        let probe = first && !matches!(neighbour, Neighbour::Reachable(_));
        if probe {
            job.probed = true;
            let result = self.client.probe(oif, next);
            // Without the right to ask, an address that is there already will do.
            if let (Err(error), Neighbour::Unknown | Neighbour::Failed) = (result, neighbour) {
                let hint = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => " (this needs CAP_NET_ADMIN)",
                    _ => "",
                };
                return Err(format!("{next} cannot be looked up on {}: {error}{hint}", self.interface));
            }
        }
        Ok(match neighbour {
            Neighbour::Reachable(mac) | Neighbour::Stale(mac) => {
                Step::Done(Path { source_mac: link.mac, next_mac: mac, vlan, source: source.into() })
            }
            Neighbour::Unknown => Step::Waiting { next, failed: false },
            Neighbour::Failed => Step::Waiting { next, failed: !first },
        })
    }
}
