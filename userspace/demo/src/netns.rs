//! Network namespaces as hosts, and the cable between two of them.

use crate::process::run;
use anyhow::{Context, Result, anyhow};
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{fs::File, path::Path, process::Command};

/// Where `ip netns` keeps its handles.
pub const FOLDER: &str = "/run/netns";

/// A network namespace with a name. Dropped, it is deleted, and with it the interfaces in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    ///
    /// # Errors
    /// Without the privilege, or where the name is taken.
    pub fn create(name: &str) -> Result<Namespace> {
        run(&mut ip(&["netns", "add", name]))?;
        let path = Path::new(FOLDER).join(name);
        let open = File::open(&path).with_context(|| format!("cannot open {}", path.display()));
        let handle = match open {
            Ok(handle) => handle,
            Err(error) => {
                // Best effort; the error that matters is the other one.
                let _ = run(&mut ip(&["netns", "del", name]));
                return Err(error);
            }
        };
        let namespace = Namespace { name: name.to_owned(), handle };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `action` on a thread that is in the namespace: sockets it makes and programs it starts are in there.
    /// Mounts stay the host's, so that `/sys/fs/bpf` is in sight (`ip netns exec` would hide it).
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the action fails or panics.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter the network namespace {}", self.name))?;
                action()
            });
            inside.join().unwrap_or_else(|_| Err(anyhow!("a thread in {} panicked", self.name)))
        })
    }

    /// `ip -n NAME …`
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let output = run(Command::new("ip").args(["-n", &self.name]).args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&mut ip(&["netns", "del", &self.name])) {
            eprintln!("cannot delete the network namespace {}: {error:#}", self.name);
        }
    }
}

fn ip(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments);
    command
}

/// Name of the interface at either end of the cable.
pub const INTERFACE: &str = "tf0";
/// Name of the interface at either end of the cable beside it, where there is one.
pub const TCP_INTERFACE: &str = "tcp0";

/// Connects two hosts by cables through a namespace between them, in which something carries frames from one half to the other:
/// `tf0` for Tollfree and `tcp0` for what it is compared with. Returns the names of the halves in the middle, cable by cable.
///
/// # Errors
/// With what `ip` said.
pub fn connect_through(
    middle: &Namespace,
    one: (&Namespace, u8),
    other: (&Namespace, u8),
) -> Result<Vec<(String, String)>> {
    let mut halves = Vec::new();
    for (interface, network) in [(INTERFACE, 77), (TCP_INTERFACE, 78)] {
        let mut names = Vec::new();
        for (namespace, host) in [one, other] {
            let name = format!("{interface}-{host}");
            let ends =
                ["netns", &namespace.name, "type", "veth", "peer", "name", &name, "netns", &middle.name];
            run(Command::new("ip").args(["link", "add", interface]).args(ends))?;
            let address = format!("10.{network}.0.{host}/24");
            namespace.ip(&["address", "add", &address, "dev", interface])?;
            // The middle is a cable and has nothing to say.
            middle.ip(&["link", "set", &name, "addrgenmode", "none", "arp", "off"])?;
            for (place, name) in [(namespace, interface), (middle, &name)] {
                place.ip(&["link", "set", name, "up"])?;
            }
            names.push(name);
        }
        let [left, right]: [String; 2] = names.try_into().map_err(|_| anyhow!("a cable has two ends"))?;
        halves.push((left, right));
    }
    Ok(halves)
}

/// Connects two namespaces by a veth pair for what Tollfree is compared with, `tcp0` on both sides.
///
/// # Errors
/// With what `ip` said.
pub fn connect_for_tcp(one: (&Namespace, u8), other: (&Namespace, u8)) -> Result<()> {
    let ends = ["netns", &one.0.name, "type", "veth", "peer", "name", TCP_INTERFACE, "netns", &other.0.name];
    run(Command::new("ip").args(["link", "add", TCP_INTERFACE]).args(ends))?;
    for (namespace, host) in [one, other] {
        namespace.ip(&["address", "add", &format!("10.78.0.{host}/24"), "dev", TCP_INTERFACE])?;
        namespace.ip(&["link", "set", TCP_INTERFACE, "up"])?;
    }
    Ok(())
}

/// Connects two namespaces by a veth pair, `tf0` on both sides, with the last part of both addresses given.
///
/// # Errors
/// With what `ip` said.
pub fn connect(one: &Namespace, one_host: u8, other: &Namespace, other_host: u8) -> Result<()> {
    let ends = ["netns", &one.name, "type", "veth", "peer", "name", INTERFACE, "netns", &other.name];
    run(Command::new("ip").args(["link", "add", INTERFACE]).args(ends))?;
    for (namespace, host) in [(one, one_host), (other, other_host)] {
        let v4 = format!("10.77.0.{host}/24");
        let v6 = format!("fd77::{host}/64");
        namespace.ip(&["address", "add", &v4, "dev", INTERFACE])?;
        // Nobody else is on this cable, so there is no duplicate to wait for.
        namespace.ip(&["address", "add", &v6, "dev", INTERFACE, "nodad"])?;
        namespace.ip(&["link", "set", INTERFACE, "up"])?;
    }
    Ok(())
}
