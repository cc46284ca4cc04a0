//! A daemon small enough for a test: it attaches applications and carries calls between them, without policies,
//! sessions or packets. It is strict where the real one may be lenient, so that what it does not forgive is noticed.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tollfree::{Code, VerdictAt};
use tollfree_ring::daemon::Port;
use tollfree_ring::{AppOp, DaemonOp, DeliveryHeader, Geometry, Span, attach};
use tollfree_wire::header::NO_DEADLINE;

/// Ends with the value, as a killed daemon would: sockets close, nothing is said.
pub struct Daemon {
    pub path: PathBuf,
    /// Cancellations that reached the service.
    pub cancelled: Arc<AtomicUsize>,
    geometry: Geometry,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Daemon {
    pub fn start(geometry: Geometry) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let mut daemon = Daemon {
            path,
            cancelled: Arc::default(),
            geometry,
            stop: Arc::default(),
            thread: None,
            _folder: folder,
        };
        daemon.listen();
        daemon
    }

    /// Another one, at the same place.
    pub fn restart(&mut self) {
        self.kill();
        std::fs::remove_file(&self.path).unwrap();
        self.listen();
    }

    fn listen(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.stop = Arc::default();
        let (stopping, counting, geometry) = (self.stop.clone(), self.cancelled.clone(), self.geometry);
        self.thread = Some(std::thread::spawn(move || carry(&listener, &geometry, &stopping, &counting)));
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kill(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct App {
    port: Port,
    _stream: std::os::unix::net::UnixStream,
    serves: bool,
    backlog: VecDeque<(DeliveryHeader, Vec<u8>, Vec<u8>)>,
}

impl App {
    fn deliver(&mut self, header: DeliveryHeader, flat: Vec<u8>, body: Vec<u8>) {
        self.backlog.push_back((header, flat, body));
    }

    fn flush(&mut self) -> bool {
        let mut any = false;
        while let Some((header, flat, body)) = self.backlog.front() {
            if self
                .port
                .deliver(header, flat, |at, out| out.copy_from_slice(&body[at..at + out.len()]), body.len())
                .is_err()
            {
                break;
            }
            self.backlog.pop_front();
            any = true;
        }
        self.port.commit();
        self.port.publish();
        any
    }
}

/// The poll loop: spins politely, and sleeps a little when idle, so that applications do get to sleep.
fn carry(listener: &UnixListener, geometry: &Geometry, stop: &AtomicBool, cancelled: &AtomicUsize) {
    let mut apps: Vec<App> = Vec::new();
    // The daemon's handle of a call: who asked, and by what cookie.
    let mut callers: HashMap<u64, (usize, u64)> = HashMap::new();
    let mut handles = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            let (greeting, _) = attach::accept(&mut stream).unwrap();
            let (port, handover) = Port::create(geometry).unwrap();
            attach::reply(&stream, Ok(&handover)).unwrap();
            apps.push(App {
                port,
                _stream: stream,
                serves: !greeting.serves.is_empty(),
                backlog: VecDeque::new(),
            });
        }
        let service = apps.iter().rposition(|app| app.serves);
        let mut any = false;
        for index in 0..apps.len() {
            while let Some(submission) = apps[index].port.pop().unwrap() {
                any = true;
                let copy = |span: Span| {
                    let mut bytes = vec![0; span.len as usize];
                    apps[index].port.read(span, 0, &mut bytes);
                    bytes
                };
                let (flat, body) = (copy(submission.flat), copy(submission.body));
                let header = |op, call| DeliveryHeader {
                    status: submission.status,
                    flags: submission.flags,
                    method: submission.method,
                    layout: submission.layout,
                    deadline_us: submission.deadline_us,
                    ..DeliveryHeader::new(op, call)
                };
                match (submission.op, service) {
                    (AppOp::Call, Some(service)) => {
                        handles += 1;
                        callers.insert(handles, (index, submission.call));
                        apps[service].deliver(header(DaemonOp::Request, handles), flat, body);
                    }
                    (AppOp::Call, None) => {
                        let refused = DeliveryHeader {
                            status: Code::Unavailable,
                            verdict_at: VerdictAt::Engine,
                            deadline_us: NO_DEADLINE,
                            ..header(DaemonOp::Response, submission.call)
                        };
                        apps[index].deliver(refused, vec![], b"nobody serves it".to_vec());
                    }
                    (AppOp::Respond, _) => {
                        if let Some((caller, cookie)) = callers.remove(&submission.call) {
                            apps[caller].deliver(header(DaemonOp::Response, cookie), flat, body);
                        }
                        apps[index].deliver(header(DaemonOp::Released, submission.call), vec![], vec![]);
                    }
                    (AppOp::Cancel, service) => {
                        let handle = callers.iter().find(|(_, caller)| **caller == (index, submission.call));
                        if let Some(handle) = handle.map(|(handle, _)| *handle) {
                            callers.remove(&handle);
                            cancelled.fetch_add(1, Ordering::Relaxed);
                            if let Some(service) = service {
                                apps[service].deliver(header(DaemonOp::Cancelled, handle), vec![], vec![]);
                            }
                            apps[index].deliver(header(DaemonOp::Cancelled, submission.call), vec![], vec![]);
                        }
                    }
                    (streaming, _) => panic!("no method here streams: {streaming:?}"),
                }
            }
        }
        for app in &mut apps {
            any |= app.flush();
        }
        if !any {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}
