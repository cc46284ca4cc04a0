//! Streams between two engines in a world without clocks, sockets and threads: a network that loses, repeats and reorders
//! packets, applications that read and write as they like, that die, and whose hosts do. All of it follows from a seed, so
//! that a seed that fails fails again: `STREAM_SEED=N cargo test -p tollfree-engine simulation`. `STREAM_SEEDS=N` runs more.
//!
//! What is checked: every stream ends exactly once at both ends; messages arrive in order, none lost, doubled or altered;
//! nobody is sent more than it gave credit for; nothing is left of streams that are over.

mod caller;
mod network;
mod random;
mod service;
mod stream;

use crate::command::Attach;
use crate::{AppId, Config, Engine, NoDriver};
use caller::{Caller, Plan};
use network::{End, Faults, Network};
use random::Random;
use service::{Seen, Service};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::mpsc::channel;
use tollfree_ring::app::Port;
use tollfree_ring::{Geometry, Span, daemon};
use tollfree_schema::Manifest;
use tollfree_wire::Code;
use tollfree_wire::frame::Peer;

/// Seeds that every run tries.
const SEEDS: u64 = 300;
const GEOMETRY: Geometry = Geometry { slots: 256, tx_bytes: 1 << 20, rx_bytes: 1 << 20, long_bytes: 1 << 20 };
/// When whatever is to happen has happened, in ns: long after a silent peer counts as dead.
const PATIENCE: u64 = 200_000_000_000;
/// Turns that are more than enough for it.
const STEPS_MAX: u64 = 400_000;

/// Which directions stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Down,
    Up,
    Both,
}

const KINDS: [(Kind, &str); 3] =
    [(Kind::Down, "/test.Feed/Down"), (Kind::Up, "/test.Feed/Up"), (Kind::Both, "/test.Feed/Both")];

impl Kind {
    /// How many messages there are each way, where each may have so many.
    fn totals(self, (requests, responses): (u32, u32)) -> (u32, u32) {
        match self {
            Kind::Down => (1, responses),
            Kind::Up => (requests, 0),
            Kind::Both => (requests, responses),
        }
    }
}

/// What both applications know.
#[derive(Clone)]
pub struct Schema {
    manifest: Manifest,
    layout: u32,
}

impl Schema {
    fn new() -> Schema {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("feed.proto");
        let text = "syntax = \"proto3\"; package test;\n\
                    message Note { bytes data = 1; }\n\
                    service Feed {\n\
                    rpc Down(Note) returns (stream Note);\n\
                    rpc Up(stream Note) returns (Note);\n\
                    rpc Both(stream Note) returns (stream Note); }\n";
        std::fs::write(&file, text).unwrap();
        let manifest = Manifest::from_proto(&[file], &[]).unwrap();
        let layout = manifest.method(tollfree_schema::method_id(KINDS[0].1)).unwrap().request.fingerprint;
        Schema { manifest, layout }
    }

    fn method(&self, kind: Kind) -> u32 {
        let (_, path) = KINDS.iter().find(|(known, _)| *known == kind).unwrap();
        tollfree_schema::method_id(path)
    }

    fn kind(&self, method: u32) -> Kind {
        KINDS.iter().find(|(_, path)| tollfree_schema::method_id(path) == method).unwrap().0
    }
}

/// Whether all of an application's region can be taken.
fn region_is_free(port: &mut Port) -> bool {
    let all = port.geometry().tx_bytes / 8;
    let spans: Vec<Span> = std::iter::from_fn(|| port.alloc(all)).collect();
    let free = spans.len() == 8;
    spans.into_iter().for_each(|span| port.free(span));
    free
}

/// What happens in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Nobody,
    Caller,
    Service,
    ClientHost,
    ServerHost,
    /// It comes back at once, as another life.
    ServerDaemon,
}

struct World {
    now: u64,
    random: Random,
    schema: Schema,
    network: Rc<RefCell<Network>>,
    client: Option<Host>,
    server: Option<Host>,
    caller: Option<(Caller, AppId)>,
    service: Option<(Service, AppId)>,
}

type Host = Engine<End, NoDriver>;

fn peer(host: u8) -> Peer {
    std::net::SocketAddr::from(([10, 0, 0, host], 7400)).into()
}

fn host(network: &Rc<RefCell<Network>>, number: u8, life: u8) -> Host {
    let routes = if number == 1 { vec![("test.Feed".to_owned(), peer(2))] } else { vec![] };
    let config = Config { routes: routes.into_iter().collect(), ..Config::default() };
    let mut secret = [number; 32];
    secret[0] = life;
    let transport = tollfree_transport::Config { secret, epoch: life.into(), ..Default::default() };
    Engine::new(config, End::new(network, peer(number)), NoDriver, transport).unwrap().0
}

fn attach(host: &mut Host, schema: &Schema, serves: &[&str]) -> (Port, AppId) {
    let (port, handover) = daemon::Port::create(&GEOMETRY).unwrap();
    let attach = Attach {
        port,
        name: "an application".to_owned(),
        pid: 1,
        manifest: schema.manifest.clone(),
        serves: serves.iter().map(|name| (*name).to_owned()).collect(),
        on_gone: Box::new(|why| panic!("dismissed: {why:?}")),
    };
    let (told, id) = channel();
    host.attach(attach, Box::new(move |id| told.send(id).unwrap()));
    (Port::open(handover).unwrap(), id.recv().unwrap())
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let faults = match random.below(4) {
            0 => Faults { loses: 0, repeats: 0, holds_back: 0 },
            1 => Faults { loses: 100, repeats: 0, holds_back: 0 },
            2 => Faults { loses: 0, repeats: 20, holds_back: 5 },
            _ => Faults { loses: 15, repeats: 15, holds_back: 10 },
        };
        let network = Network::new(random.split(), faults);
        let schema = Schema::new();
        let (mut client, mut server) = (host(&network, 1, 1), host(&network, 2, 1));
        let (port, id) = attach(&mut server, &schema, &["test.Feed"]);
        let refuses = if random.one_in(3) { 300 } else { 0 };
        let service = (Service::new(port, schema.clone(), random.split(), refuses), id);
        let (port, id) = attach(&mut client, &schema, &[]);
        let caller = (Caller::new(port, schema.clone(), random.split()), id);
        World {
            now: 1_000_000,
            random,
            schema,
            network,
            client: Some(client),
            server: Some(server),
            caller: Some(caller),
            service: Some(service),
        }
    }

    /// Everybody has a turn; time passes.
    fn step(&mut self) {
        let busy = self.caller.as_ref().map_or(0, |(caller, _)| caller.open())
            + self.service.as_ref().map_or(0, |(service, _)| service.open());
        if let Some((caller, _)) = &mut self.caller {
            caller.act(self.now);
        }
        if let Some((service, _)) = &mut self.service {
            service.act();
        }
        for host in [&mut self.client, &mut self.server].into_iter().flatten() {
            let now = self.now;
            host.turn(now, || now).unwrap();
        }
        // Little by little while something moves, up to a tick while nothing does.
        let due = self.network.borrow().due();
        let most = if busy > 0 && due.is_some() { 20_000 } else { 5_000_000 };
        self.now += 1_000 + self.random.below(most);
        self.network.borrow_mut().advance(self.now);
    }

    fn die(&mut self, death: Death) {
        let now = self.now;
        match death {
            Death::Nobody => {}
            Death::Caller => {
                if let (Some((_, id)), Some(client)) = (self.caller.take(), &mut self.client) {
                    client.detach(now, id);
                }
            }
            Death::Service => {
                if let (Some((_, id)), Some(server)) = (self.service.take(), &mut self.server) {
                    server.detach(now, id);
                }
            }
            Death::ClientHost => {
                (self.client, self.caller) = (None, None);
                self.network.borrow_mut().cut(peer(1));
            }
            Death::ServerHost => {
                (self.server, self.service) = (None, None);
                self.network.borrow_mut().cut(peer(2));
            }
            Death::ServerDaemon => {
                let mut server = host(&self.network, 2, 2);
                let (port, id) = attach(&mut server, &self.schema, &["test.Feed"]);
                let service = Service::new(port, self.schema.clone(), self.random.split(), 0);
                (self.server, self.service) = (Some(server), Some((service, id)));
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let death = match world.random.below(10) {
        0 => Death::Caller,
        1 => Death::Service,
        2 => Death::ClientHost,
        3 => Death::ServerHost,
        4 => Death::ServerDaemon,
        _ => Death::Nobody,
    };
    let streams = 1 + world.random.below(if death == Death::Nobody { 24 } else { 10 }) as u32;
    let most = if world.random.one_in(4) { 600 } else { 40 };
    let dies_after = world.random.below(3_000_000);
    let mut planned = Vec::new();
    for id in 1..=streams {
        let kind = KINDS[world.random.below(3) as usize].0;
        let plan = match world.random.below(8) {
            0 => Plan::Cancel(world.random.below(3_000_000)),
            1 => Plan::Deadline(1_000 + world.random.below(20_000_000)),
            _ => Plan::Complete,
        };
        let totals = (1 + world.random.below(most) as u32, world.random.below(most) as u32);
        if let Some((service, _)) = &mut world.service {
            service.responses.insert(id, kind.totals(totals).1);
        }
        planned.push((id, kind, plan, totals));
    }
    planned.reverse();
    let (started, mut steps) = (world.now, 0);
    let mut dead = death == Death::Nobody;
    let is_idle = |host: &Option<Host>| host.as_ref().is_none_or(|host| host.is_idle());
    loop {
        if let Some((caller, _)) = &mut world.caller
            && let Some(&(id, kind, plan, totals)) = planned.last()
            && world.random.one_in(4)
            && caller.call(id, kind, plan, totals, world.now)
        {
            planned.pop();
        }
        world.step();
        if !dead && world.now > started + dies_after {
            dead = true;
            world.die(death);
        }
        let open = world.caller.as_ref().map_or(0, |(caller, _)| caller.open())
            + world.service.as_ref().map_or(0, |(service, _)| service.open());
        let said = planned.is_empty() || world.caller.is_none();
        if dead && said && open == 0 && is_idle(&world.client) && is_idle(&world.server) {
            break;
        }
        steps += 1;
        assert!(
            world.now < started + PATIENCE && steps < STEPS_MAX,
            "{open} streams have not ended after {} ms and {steps} steps; {death:?}",
            (world.now - started) / 1_000_000
        );
    }
    check(&mut world, death, streams);
}

fn check(world: &mut World, death: Death, streams: u32) {
    if let Some((caller, _)) = &mut world.caller {
        assert_eq!(caller.ends.len(), streams as usize, "every stream ends");
        assert!(caller.is_tidy(), "the caller's region is in use");
    }
    if let Some((service, _)) = &mut world.service {
        assert!(service.is_tidy(), "the service's region is in use");
    }
    let (Some((caller, _)), Some((service, _)), Death::Nobody) = (&world.caller, &world.service, death)
    else {
        return;
    };
    let refused: BTreeSet<u32> = service.refused.iter().copied().collect();
    for (id, (status, why)) in &caller.ends {
        match status {
            Code::Ok => assert_eq!(service.ends.get(id), Some(&Seen::Answered), "stream {id}"),
            Code::Aborted => assert!(refused.contains(id), "stream {id}"),
            Code::Cancelled | Code::DeadlineExceeded => {}
            other => panic!("stream {id} ended {other:?} although nobody died: {why}"),
        }
    }
}

#[test]
fn streams_end_once_and_whole_whatever_the_network_does() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("STREAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STREAM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(why) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!(
                "seed {seed} fails; again: STREAM_SEED={seed} cargo test -p tollfree-engine simulation"
            );
            std::panic::resume_unwind(why);
        }
    }
}
