//! Two hosts, a daemon on each, and applications on them.

use crate::{
    cli::{Cli, Programs},
    leftovers,
    netns::{self, INTERFACE, Namespace},
    process::Process,
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

/// How long a daemon or a service may take to be ready. A debug build on a busy machine is not quick.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Tollfree's UDP port on a host of its own.
pub const PORT: u16 = 7400;

/// The protocol that packets between the hosts use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// Where hosts are and how they reach each other.
#[derive(Clone, Debug)]
pub enum Place {
    /// In network namespaces of this prefix, by `afxdp` over a veth pair. Needs root.
    Namespaces(String),
    /// Like [`Place::Namespaces`], with a third one between them, in which a program is the cable. Needs root.
    Cable(String),
    /// In this process's own network, by `udp` over the loopback interface, on the two ports after this one. Needs
    /// nothing.
    Loopback(u16),
}

/// The namespace between two hosts.
#[derive(Debug)]
pub struct Cable {
    /// Where frames have to be carried,
    pub middle: Namespace,
    /// from one of these interfaces to the other, and back.
    pub halves: Vec<(String, String)>,
}

/// A client's host and a server's, and the cable between them. Dropped, nothing of them is left.
#[derive(Debug)]
pub struct Hosts {
    /// Where calls come from. Dropped first, so that no call is cut short by a server's absence.
    pub client: Host,
    /// Where services run.
    pub server: Host,
    /// What is between them, in [`Place::Cable`].
    pub cable: Option<Cable>,
    folder: PathBuf,
    bpffs: PathBuf,
}

impl Hosts {
    /// Makes both, without daemons. `folder` is theirs alone and goes with them.
    ///
    /// # Errors
    /// Without the privilege, or where something of that name is there already.
    pub fn create(place: &Place, folder: &Path, bpffs: &Path, programs: &Programs) -> Result<Hosts> {
        let mut cable = None;
        let [client, server] = match place {
            Place::Namespaces(prefix) | Place::Cable(prefix) => {
                let client = Namespace::create(&format!("{prefix}-client"))?;
                let server = Namespace::create(&format!("{prefix}-server"))?;
                if let Place::Cable(_) = place {
                    let middle = Namespace::create(&format!("{prefix}-cable"))?;
                    let halves = netns::connect_through(&middle, (&client, 1), (&server, 2))?;
                    cable = Some(Cable { middle, halves });
                } else {
                    netns::connect(&client, 1, &server, 2)?;
                }
                [Some(Arc::new(client)), Some(Arc::new(server))]
            }
            Place::Loopback(_) => [None, None],
        };
        let host = |name: &str, number: u8, namespace: Option<Arc<Namespace>>| -> Result<Host> {
            let state = folder.join(name);
            fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
            let cli =
                Cli { programs: programs.clone(), namespace, state, bpffs: bpffs.join(name), core: None };
            // On loopback one network serves both, so ports tell them apart.
            let port = match place {
                Place::Namespaces(_) | Place::Cable(_) => PORT,
                Place::Loopback(base) => base + u16::from(number),
            };
            Ok(Host { name: name.to_owned(), number, port, cli, settings: String::new(), daemon: None })
        };
        let (client, server) = (host("client", 1, client)?, host("server", 2, server)?);
        Ok(Hosts { client, server, cable, folder: folder.to_owned(), bpffs: bpffs.to_owned() })
    }
}

impl Hosts {
    /// Gives each host a core of its own, as two hosts have. False: there is only one. For what is started from now on.
    pub fn separate(&mut self) -> bool {
        let enough = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2);
        if enough {
            (self.client.cli.core, self.server.cli.core) = (Some(0), Some(1));
        }
        enough
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Daemons first, so that nothing appears in the folder after it was removed.
        self.client.shut_down();
        self.server.shut_down();
        leftovers::remove_folder(&self.bpffs);
        leftovers::remove_folder(&self.folder);
    }
}

/// One host.
#[derive(Debug)]
pub struct Host {
    name: String,
    number: u8,
    port: u16,
    /// Its `tollfree` command.
    pub cli: Cli,
    /// What its daemon's configuration says besides where it is and what it reaches: tables, in TOML.
    pub settings: String,
    daemon: Option<Process>,
}

impl Host {
    /// Its namespace, where it has one.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.cli.namespace.as_deref()
    }

    /// Where its engine is reached.
    pub fn engine(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address(family), self.port)
    }

    /// One of its addresses.
    pub fn address(&self, family: Family) -> IpAddr {
        match (&self.cli.namespace, family) {
            (Some(_), Family::V4) => Ipv4Addr::new(10, 77, 0, self.number).into(),
            (Some(_), Family::V6) => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number)).into(),
            (None, Family::V4) => Ipv4Addr::LOCALHOST.into(),
            (None, Family::V6) => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The socket that applications attach to.
    pub fn app_socket(&self) -> PathBuf {
        self.cli.state.join("app.sock")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.cli.state.join("daemon.log")
    }

    /// (Re)starts the daemon. Each route sends one service's calls to an engine. `family` matters on loopback only, where
    /// the daemon listens on one address.
    ///
    /// # Errors
    /// When it does not come up: with what it said.
    pub fn start_daemon(&mut self, family: Family, routes: &[(&str, SocketAddr)]) -> Result<()> {
        self.stop_daemon();
        let mut config = match &self.cli.namespace {
            Some(_) => format!("backend = \"afxdp\"\ninterface = \"{INTERFACE}\"\nport = {}\n", self.port),
            None => format!("backend = \"udp\"\nlisten = \"{}\"\n", self.engine(family)),
        };
        config += &format!("state_dir = {:?}\nbpffs = {:?}\n", self.cli.state, self.cli.bpffs);
        for (service, peer) in routes {
            config += &format!("[[route]]\nservice = \"{service}\"\npeer = \"{peer}\"\n");
        }
        config += &self.settings;
        let file = self.cli.state.join("config.toml");
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;

        let (name, log) = (format!("the daemon on the {}", self.name), self.log());
        let mut daemon = self.cli.inside(|| {
            Process::spawn_logged(&name, self.cli.command().arg("run").arg("--config").arg(&file), &log)
        })?;
        let sockets = ["app.sock", "admin.sock"].map(|socket| self.cli.state.join(socket));
        daemon.until("listening", START_LIMIT, || {
            sockets.iter().all(|path| UnixStream::connect(path).is_ok())
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the daemon in order. What it attached stays attached.
    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// Ends the daemon as a crash would.
    pub fn kill_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// The daemon, to look after.
    pub fn daemon(&mut self) -> Option<&mut Process> {
        self.daemon.as_mut()
    }

    /// Starts an application of the demo's, with the host's socket.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let log = self.cli.state.join(format!("{name}.log"));
        self.cli.inside(|| Process::spawn_logged(name, self.app(name).args(arguments), &log))
    }

    /// The command of an application of the demo's, with the host's socket.
    pub fn app(&self, name: &str) -> Command {
        let mut command = Command::new(self.cli.programs.path(name));
        command.env("TOLLFREE_SOCKET", self.app_socket());
        command
    }

    /// Starts a hash service and waits until it can be called.
    ///
    /// # Errors
    /// When it does not come up: with what it said.
    pub fn start_service(&self) -> Result<Process> {
        self.start_serving("hash-service", &[], "demo.Hash")
    }

    /// Starts an application that serves a service, and waits until that can be called.
    ///
    /// # Errors
    /// When it does not come up: with what it said.
    pub fn start_serving(&self, program: &str, arguments: &[&str], service: &str) -> Result<Process> {
        let mut process = self.spawn(program, arguments)?;
        let serves =
            |cli: &Cli| cli.status().is_ok_and(|status| status.serves.iter().any(|name| name == service));
        process.until("serving", START_LIMIT, || serves(&self.cli))?;
        Ok(process)
    }

    /// Ends the daemon and takes XDP off the host's interface again, where it is there.
    ///
    /// # Errors
    /// With what the command said.
    pub fn detach(&mut self) -> Result<()> {
        self.stop_daemon();
        if self.cli.namespace.is_some() { self.cli.run(&["clean"]).map(drop) } else { Ok(()) }
    }

    fn shut_down(&mut self) {
        self.stop_daemon();
        if self.cli.bpffs.exists()
            && let Err(error) = self.cli.run(&["clean"])
        {
            eprintln!("cannot clean up the {}: {error:#}", self.name);
        }
    }
}
