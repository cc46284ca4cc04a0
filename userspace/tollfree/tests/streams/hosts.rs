//! Hosts for tests: real engines over UDP on loopback, with a socket that applications attach to.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tollfree_engine::{Attach, Command, Config, Engine, Handle, NoDriver, Status};
use tollfree_nic::udp::Udp;
use tollfree_ring::daemon::Port;
use tollfree_ring::{Geometry, attach};
use tollfree_schema::Manifest;

/// A host. Ends with the value.
pub struct Host {
    pub socket: PathBuf,
    pub address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Host {
    pub fn start(routes: &[(&str, SocketAddr)]) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("app.sock");
        let nic = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = nic.local_addr();
        let routes: HashMap<_, _> =
            routes.iter().map(|(service, to)| ((*service).to_owned(), (*to).into())).collect();
        let config = Config { routes, ..Config::default() };
        let transport =
            tollfree_transport::Config { secret: [address.port() as u8; 32], epoch: 1, ..Default::default() };
        let (mut engine, handle) = Engine::new(config, nic, NoDriver, transport).unwrap();
        let thread = std::thread::spawn(move || engine.run().unwrap());
        let listener = UnixListener::bind(&socket).unwrap();
        let attaching = handle.clone();
        // Ends with the process: tests are short.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                greet(stream.unwrap(), &attaching);
            }
        });
        Host { socket, address, handle, thread: Some(thread), _folder: folder }
    }

    pub fn status(&self) -> Status {
        let (sender, receiver) = mpsc::channel();
        self.handle.send(Command::Status(Box::new(move |status| drop(sender.send(status))))).unwrap();
        receiver.recv_timeout(Duration::from_secs(5)).expect("the engine answers its owner")
    }

    /// Calls under way, by the engine's count, once there are as many or a while has passed.
    pub async fn calls_settle(&self, expected: usize) -> usize {
        for _ in 0..500 {
            if self.status().calls_open == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.status().calls_open
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

fn greet(mut stream: UnixStream, engine: &Handle) {
    let (said, peer) = attach::accept(&mut stream).unwrap();
    let mut manifest = Manifest::default();
    for set in &said.descriptor_sets {
        manifest.services.extend(Manifest::from_descriptor_set(set).unwrap().services);
    }
    let (port, handover) = Port::create(&Geometry::default()).unwrap();
    let attach = Attach {
        port,
        name: said.name,
        pid: peer.pid,
        manifest,
        serves: said.serves,
        on_gone: Box::new(drop),
    };
    let (sender, receiver) = mpsc::channel();
    let attached = Command::Attach(
        Box::new(attach),
        Box::new(move |id| {
            let _ = sender.send(id);
        }),
    );
    engine.send(attached).unwrap();
    let id = receiver.recv_timeout(Duration::from_secs(5)).expect("the engine takes the application");
    attach::reply(&stream, Ok(&handover)).unwrap();
    let engine = engine.clone();
    std::thread::spawn(move || {
        // Nothing is said after the greeting: this returns when the application is gone.
        let _ = stream.set_read_timeout(None).and_then(|()| stream.read(&mut [0]));
        let _ = engine.send(Command::Detach(id));
    });
}
