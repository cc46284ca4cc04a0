//! From a configuration to a running engine: the packet backend, the XDP programs in front of it, the poll thread.

use super::config::{Backend, Config, IdentityRule, Wait};
use crate::mirror::{Known, Mirror};
use crate::output::count;
use crate::xdp::Attached;
use crate::{interfaces, paths, privilege};
use anyhow::{Context, Result, anyhow};
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use tollfree_engine::{Driver, Engine, Handle, Identities, Identity, Network, NoDriver, Waiting};
use tollfree_nic::afxdp::{self, AfXdp};
use tollfree_nic::udp::Udp;
use tollfree_nic::{Nic, Peer};
use tracing::info;

/// An engine on its thread.
pub struct Running {
    /// Speaks to it.
    pub engine: Handle,
    /// Its thread; ends when told to stop, or with the reason of a failure.
    pub thread: JoinHandle<Result<()>>,
    /// Resolves when the thread ends, whyever.
    pub ended: oneshot::Receiver<()>,
    /// Where the `udp` backend listens, its port known.
    pub listen: Option<SocketAddr>,
    /// The interface in front of it, for backend `afxdp`.
    pub xdp: Option<Attached>,
    /// What is known of its sessions, for policies there.
    pub known: Known,
}

/// Starts what the configuration asks for.
///
/// # Errors
/// One sentence about what is missing.
pub fn start(config: &Config) -> Result<Running> {
    match config.backend {
        Backend::Udp => {
            let listen = config.listen();
            // Made here to learn the port that a 0 turns into.
            let nic = Udp::bind(listen)?;
            let listen = nic.local_addr();
            let (engine, thread, ended) = spawn(config, listen.port(), move || Ok((nic, NoDriver)))?;
            info!("backend udp on {listen}: policies run in the engine");
            let known = Known::default();
            Ok(Running { engine, thread, ended, listen: Some(listen), xdp: None, known })
        }
        Backend::Afxdp => start_afxdp(config),
    }
}

fn start_afxdp(config: &Config) -> Result<Running> {
    let interface = config.interface.clone().context("the afxdp backend needs `interface`")?;
    interfaces::require(&interface)?;
    privilege::require("the afxdp backend", privilege::AFXDP)?;
    let places = paths::Places { state: config.state_dir.clone(), bpffs: config.bpffs.clone() };
    let mut xdp = Attached::open_or_attach(&places, &interface, config)?;
    xdp.set_addresses(&addresses(&interface))?;

    let settings =
        afxdp::Config { frames: config.frames, ports: config.ports(), ..afxdp::Config::new(&interface) };
    let known = Known::default();
    let mut mirror = Mirror::open(&places, &interface, known.clone())?;
    let (engine, thread, ended) = spawn(config, config.ports().first, move || {
        mirror.forget_sessions()?;
        let nic = AfXdp::open(settings, &mut |queue, socket| mirror.register(queue, socket))
            .context("cannot open AF_XDP sockets")?;
        let copies = match nic.mode() {
            afxdp::Mode::Copy => "copying",
            afxdp::Mode::ZeroCopy => "zero-copy",
        };
        info!("AF_XDP on {interface}: {copies}, {}", count(nic.queues(), "receive queue"));
        Ok((nic, mirror))
    })?;
    let port = config.ports().first;
    info!("backend afxdp on {}, port {port}: server-side policies run in XDP", xdp.interface());
    Ok(Running { engine, thread, ended, listen: None, xdp: Some(xdp), known })
}

type Spawned = (Handle, JoinHandle<Result<()>>, oneshot::Receiver<()>);

/// Makes the backend on the poll thread itself, whose rings need never move, and waits until it is there.
fn spawn<N: Nic, D: Driver>(
    config: &Config,
    port: u16,
    make: impl FnOnce() -> Result<(N, D)> + Send + 'static,
) -> Result<Spawned> {
    let settings = engine_config(config, port);
    let transport = transport_config(config)?;
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let (ending, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("tf-engine".into()).spawn(move || {
        let made = make().and_then(|(nic, driver)| Ok(Engine::new(settings, nic, driver, transport)?));
        let (mut engine, handle) = match made {
            Ok(made) => made,
            Err(error) => {
                drop(ready.send(Err(error)));
                return Ok(());
            }
        };
        drop(ready.send(Ok(handle)));
        let result = engine.run().context("the engine ended");
        // The daemon may have ended first.
        let _ = ending.send(());
        result
    })?;
    let handle = started.recv().map_err(|_| anyhow!("the engine panicked; this is a bug"))??;
    Ok((handle, thread, ended))
}

fn engine_config(config: &Config, port: u16) -> tollfree_engine::Config {
    let routes = config.routes.iter().map(|route| (route.service.clone(), Peer::from(route.peer)));
    let waiting = match config.wait {
        Wait::Busy => Waiting::Busy,
        Wait::Adaptive => Waiting::Adaptive,
        Wait::Sleep => Waiting::Sleep,
    };
    let identities = config.identities.iter().map(|rule| {
        let IdentityRule { address, name, namespace, labels } = rule.clone();
        let named = labels.into_iter().map(|(key, value)| (format!("label.{key}"), value)).collect();
        let identity = Identity { name, namespace, named };
        Network { address: address.address, bits: address.bits, identity }
    });
    let identities = Identities::new(identities.collect());
    tollfree_engine::Config { routes: routes.collect(), waiting, identities, port }
}

fn transport_config(config: &Config) -> Result<tollfree_transport::Config> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow!("the kernel gives no random bytes: {error}"))?;
    // Peers only compare epochs for equality with the last one they saw, so wrapping in 2106 is harmless.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
    Ok(tollfree_transport::Config {
        psk: config.psk.as_bytes().to_vec(),
        secret,
        epoch,
        idle_ms: config.idle_timeout.as_millis() as u32,
        reassembly_bytes: (config.reassembly_mib as usize) << 20,
        ..tollfree_transport::Config::default()
    })
}

/// The addresses of an interface; none where it has gone.
pub fn addresses(interface: &str) -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = all
        .filter(|entry| entry.interface_name == interface)
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_has_an_address() {
        let found = super::addresses("lo");
        // A fresh network namespace has its loopback down, and no address.
        assert!(found.is_empty() || found.iter().any(std::net::IpAddr::is_loopback), "{found:?}");
        assert!(super::addresses("no-such-interface").is_empty());
    }
}
