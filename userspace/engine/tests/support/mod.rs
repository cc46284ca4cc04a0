//! Hosts and applications for tests: real engines over UDP on loopback, real rings, everything in one process.

pub mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tollfree_engine::{AppId, Attach, Command, Config, Engine, Gone, Handle, NoDriver, Side, Status};
use tollfree_nic::udp::Udp;
use tollfree_ring::{AppOp, DaemonOp, Flags, Geometry, Span, Submission, VerdictAt, app, daemon};
use tollfree_schema::Manifest;
use tollfree_wire::Code;
use tollfree_wire::header::NO_DEADLINE;

pub const HASH: &str = "/demo.Hash/Sha256";

/// A schema with the request fields given, as `.proto` text after the `user` field.
pub fn schema(fields: &str) -> Manifest {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hash.proto");
    let text = format!(
        "syntax = \"proto3\"; package demo; import \"tollfree/options.proto\";\n\
         message HashRequest {{ {fields} }}\n\
         message HashResponse {{ bytes digest = 1; }}\n\
         service Hash {{ rpc Sha256(HashRequest) returns (HashResponse); }}\n"
    );
    std::fs::write(&file, text).unwrap();
    Manifest::from_proto(&[file], &[]).unwrap()
}

/// The usual schema: a flat user, a body.
pub fn plain() -> Manifest {
    schema("string user = 1 [(tollfree.flat) = { max_len: 15 }]; bytes data = 2;")
}

/// An engine on its own thread.
pub struct Host {
    pub handle: Handle,
    pub address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub fn start(routes: &[(&str, SocketAddr)]) -> Host {
        Host::start_on("127.0.0.1:0".parse().unwrap(), routes, 1)
    }

    pub fn start_on(listen: SocketAddr, routes: &[(&str, SocketAddr)], epoch: u32) -> Host {
        let nic = Udp::bind(listen).unwrap();
        let address = nic.local_addr();
        let routes: HashMap<_, _> =
            routes.iter().map(|(service, to)| ((*service).to_owned(), (*to).into())).collect();
        let config = Config { routes, ..Config::default() };
        let mut secret = [epoch as u8; 32];
        secret[..2].copy_from_slice(&address.port().to_le_bytes());
        let transport = tollfree_transport::Config { secret, epoch, ..Default::default() };
        let (mut engine, handle) = Engine::new(config, nic, NoDriver, transport).unwrap();
        let thread = std::thread::spawn(move || engine.run().unwrap());
        Host { handle, address, thread: Some(thread) }
    }

    pub fn attach(&self, name: &str, manifest: &Manifest, serves: &[&str]) -> App {
        let (port, handover) = daemon::Port::create(&Geometry::default()).unwrap();
        let (gone, gone_at) = mpsc::channel();
        let attach = Attach {
            port,
            name: name.to_owned(),
            pid: std::process::id(),
            manifest: manifest.clone(),
            serves: serves.iter().map(|name| (*name).to_owned()).collect(),
            on_gone: Box::new(move |why| {
                let _ = gone.send(why);
            }),
        };
        let id = self.ask(|reply| Command::Attach(Box::new(attach), reply));
        let manifest = manifest.clone();
        App { port: app::Port::open(handover).unwrap(), id, manifest, gone: gone_at, spans: HashMap::new() }
    }

    pub fn ask<T: Send + 'static>(&self, command: impl FnOnce(Box<dyn FnOnce(T) + Send>) -> Command) -> T {
        let (sender, receiver) = mpsc::channel();
        self.handle.send(command(Box::new(move |answer| drop(sender.send(answer))))).unwrap();
        receiver.recv_timeout(Duration::from_secs(5)).expect("the engine answers its owner")
    }

    pub fn status(&self) -> Status {
        self.ask(Command::Status)
    }

    pub fn reason(&self, name: &str) -> u64 {
        self.status().reasons.iter().find(|(reason, _)| reason == name).map_or(0, |(_, count)| *count)
    }

    pub fn policy(&self, side: Side, text: &str, manifest: &Manifest) -> u64 {
        let source = tollfree_policy::Source { name: "test.policy", text };
        let options = tollfree_policy::Options { xdp: false, ..Default::default() };
        let compiled = tollfree_policy::compile(&source, manifest, options).unwrap();
        self.ask(|reply| Command::Policy(side, Some(Box::new(compiled.program.into())), reply))
    }

    /// Puts a policy's transport block in force.
    pub fn carry(&self, side: Side, text: &str, manifest: &Manifest) {
        let source = tollfree_policy::Source { name: "test.policy", text };
        let options = tollfree_policy::Options { xdp: false, ..Default::default() };
        let compiled = tollfree_policy::compile(&source, manifest, options).unwrap();
        let named = compiled.explain.transport.iter().map(|method| (method.id, method.spec)).collect();
        self.ask(|reply| Command::Carry(side, named, reply)).unwrap();
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// What an application was handed.
#[derive(Debug)]
pub struct Message {
    pub op: DaemonOp,
    pub status: Code,
    pub call: u64,
    pub flat: Vec<u8>,
    pub body: Vec<u8>,
    pub at: VerdictAt,
}

impl Message {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// An application, by hand.
pub struct App {
    pub port: app::Port,
    pub id: AppId,
    pub gone: mpsc::Receiver<Gone>,
    manifest: Manifest,
    spans: HashMap<u64, Vec<Span>>,
}

impl App {
    fn put(&mut self, call: u64, bytes: &[u8]) -> Span {
        if bytes.is_empty() {
            return Span::default();
        }
        let span = self.port.alloc(bytes.len() as u32).expect("room in the region");
        assert!(self.port.write(span, 0, bytes));
        self.spans.entry(call).or_default().push(span);
        span
    }

    fn submit(&mut self, submission: Submission) {
        self.port.push(&submission).unwrap();
        self.port.publish();
    }

    /// Calls `/demo.Hash/Sha256`; the flat block has room for `user` and, zeroed, for whatever the schema has more.
    pub fn call(&mut self, cookie: u64, user: &str, body: &[u8], deadline: Option<Duration>) {
        let mut block = [0; 16];
        tollfree_wire::flat::put_bytes(&mut block, 0, 15, user.as_bytes()).unwrap();
        self.call_flat(cookie, &block, body, deadline);
    }

    /// Like [`App::call`], with the flat block's first bytes given.
    pub fn call_flat(&mut self, cookie: u64, start: &[u8], body: &[u8], deadline: Option<Duration>) {
        self.call_method(HASH, cookie, start, body, deadline);
    }

    /// Calls a method by its path.
    pub fn call_method(
        &mut self,
        path: &str,
        cookie: u64,
        start: &[u8],
        body: &[u8],
        deadline: Option<Duration>,
    ) {
        let method = tollfree_schema::method_id(path);
        let layout = &self.manifest.method(method).unwrap().request;
        let (fingerprint, mut block) = (layout.fingerprint, start.to_vec());
        block.resize(layout.flat_len.into(), 0);
        let (flat, body) = (self.put(cookie, &block), self.put(cookie, body));
        self.submit(Submission {
            method,
            layout: fingerprint,
            deadline_us: deadline.map_or(NO_DEADLINE, |deadline| deadline.as_micros() as u32),
            flat,
            body,
            ..Submission::new(AppOp::Call, cookie)
        });
    }

    /// Like [`App::call`] by alice, with metadata; returns where the body is.
    pub fn call_saying(&mut self, cookie: u64, said: &[u8], body: &[u8]) -> Span {
        let method = tollfree_schema::method_id(HASH);
        let layout = self.manifest.method(method).unwrap().request.fingerprint;
        let (flat, body) =
            (self.put(cookie, b"\x05alice\0\0\0\0\0\0\0\0\0\0"), self.put(cookie, &[said, body].concat()));
        let flags = Flags { metadata: true, ..Flags::default() };
        self.submit(Submission { method, layout, flat, body, flags, ..Submission::new(AppOp::Call, cookie) });
        body
    }

    pub fn cancel(&mut self, cookie: u64) {
        self.submit(Submission::new(AppOp::Cancel, cookie));
    }

    pub fn respond(&mut self, handle: u64, status: Code, body: &[u8]) {
        let body = self.put(handle, body);
        self.submit(Submission { status, body, ..Submission::new(AppOp::Respond, handle) });
    }

    /// What arrives next; `None` when nothing has for `wait`.
    pub fn next_within(&mut self, wait: Duration) -> Option<Message> {
        let until = Instant::now() + wait;
        loop {
            let popped = self.port.pop(|delivery| Message {
                op: delivery.op,
                status: delivery.status,
                call: delivery.call,
                flat: delivery.flat.to_vec(),
                body: delivery.body.to_vec(),
                at: delivery.verdict_at,
            });
            if let Some(message) = popped.expect("the daemon's ring is sound") {
                self.port.commit();
                if matches!(message.op, DaemonOp::Response | DaemonOp::Released | DaemonOp::Cancelled) {
                    for span in self.spans.remove(&message.call).unwrap_or_default() {
                        self.port.free(span);
                    }
                }
                if message.op != DaemonOp::Released {
                    return Some(message);
                }
            } else if Instant::now() > until {
                return None;
            } else {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }

    pub fn next(&mut self) -> Message {
        self.next_within(Duration::from_secs(10)).expect("something arrives within ten seconds")
    }
}
