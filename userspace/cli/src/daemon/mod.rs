//! What `tollfree run` keeps running: the engine on its own thread, and around it the sockets for applications and
//! commands, policies, and an orderly end. Nothing here is on a call's path.

mod admin;
mod apps;
mod backend;
pub mod config;
mod needs;
mod policies;
mod report;
mod sockets;

use crate::paths;
use anyhow::{Context, Result, anyhow, bail};
pub use backend::addresses;
use config::Config;
use policies::{Policies, Record};
use sockets::{Lock, SocketFile};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, oneshot};
use tokio::task::LocalSet;
use tollfree_engine::{Command, Handle};
use tracing::{info, warn};

/// Permissions of the socket for commands: whoever may write it rules the daemon.
const ADMIN_MODE: u32 = 0o600;
/// How long the engine may take to end: it closes its sessions and no more.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often the interface's addresses are looked up again.
const ADDRESSES_EVERY: Duration = Duration::from_secs(2);

/// Runs until a signal, or until the engine fails.
///
/// # Errors
/// When anything that the configuration asks for cannot be had, or the packet backend fails for good.
pub fn run(config: Config) -> Result<()> {
    let _lock = Lock::take(&config.state_dir)?;
    // One thread is plenty: it sleeps unless someone attaches or commands.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the daemon")?;
    let ended = LocalSet::new().block_on(&runtime, serve(config));
    // A greeting in progress must not delay the end.
    runtime.shutdown_background();
    ended
}

/// What commands act on.
pub struct Daemon {
    config: Config,
    started: Instant,
    listen: Option<SocketAddr>,
    engine: Handle,
    policies: Mutex<Policies>,
}

async fn serve(config: Config) -> Result<()> {
    // Before anything is changed, so that a signal during start-up ends in order too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    // Before anything runs that is to be judged.
    let record = Record::read(&config.state_dir)?;
    let backend::Running { engine, thread, mut ended, listen, xdp, known } = backend::start(&config)?;
    let port = listen.map_or(config.ports().first, |listen| listen.port());
    let policies = Policies::new(engine.clone(), xdp, known, &config, port, record);
    let daemon =
        Rc::new(Daemon { config, started: Instant::now(), listen, engine, policies: Mutex::new(policies) });
    let mut over = false;
    let result = tokio::select! {
        result = daemon.clone().attend() => result,
        _ = interrupt.recv() => stop("SIGINT"),
        _ = terminate.recv() => stop("SIGTERM"),
        // The thread's own result says why.
        _ = &mut ended => {
            over = true;
            Ok(())
        }
    };

    // Sockets are gone by now, so nobody new comes; those attached hear of the end by their sockets' closing.
    let _ = daemon.engine.send(Command::Stop);
    if !over && tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
        bail!("the engine did not stop within {} s; this is a bug", STOP_PATIENCE.as_secs());
    }
    let engine_result = thread.join().unwrap_or_else(|_| Err(anyhow!("the engine panicked; this is a bug")));
    daemon.policies.lock().await.leave();
    info!("stopped");
    result.and(engine_result)
}

fn stop(signal: &str) -> Result<()> {
    info!("{signal}: stopping");
    Ok(())
}

impl Daemon {
    /// Puts the configured policy in force, opens the sockets, and serves them. Returns only on failure; dropping it
    /// removes the sockets.
    async fn attend(self: Rc<Daemon>) -> Result<()> {
        self.put_in_force().await?;
        let app_path = self.config.app_socket();
        let admin_path = self.config.admin_socket();
        let (_app_file, app): (SocketFile, UnixListener) =
            SocketFile::listen(&app_path, self.config.app_socket_mode)?;
        let (_admin_file, admin) = SocketFile::listen(&admin_path, ADMIN_MODE)?;
        info!("ready: applications attach at {}, commands at {}", app_path.display(), admin_path.display());
        tokio::select! {
            () = apps::serve(app, self.engine.clone(), self.config.rings()) => {}
            () = admin::serve(admin, self.clone()) => {}
            () = self.follow_addresses() => {}
        }
        Ok(())
    }

    /// What was in force when the daemon before ended, and the configured policy where that is a new one.
    async fn put_in_force(&self) -> Result<()> {
        let mut policies = self.policies.lock().await;
        policies.resume().await?;
        for applied in policies.configure(self.config.policy.as_ref()).await? {
            let crate::admin::Applied { policy, target, place, at, generation, .. } = applied;
            info!(place, target, at = at.name(), generation, "policy {policy} is in force");
        }
        Ok(())
    }

    /// Addresses come and go; packets for those gone must reach the kernel again.
    async fn follow_addresses(&self) {
        let mut known = None;
        loop {
            if let Some(interface) = &self.config.interface {
                let now = addresses(interface);
                if known.as_ref() != Some(&now) {
                    match self.policies.lock().await.set_addresses(&now) {
                        Ok(()) => info!(interface, addresses = ?now, "addresses of this host"),
                        Err(error) => warn!("cannot follow addresses: {}", crate::exit::flatten(&error)),
                    }
                    known = Some(now);
                }
            }
            tokio::time::sleep(ADDRESSES_EVERY).await;
        }
    }
}

/// Sends the engine a command and waits for its result.
///
/// # Errors
/// When the engine has stopped or has refused.
pub async fn ask<T: Send + 'static>(
    engine: &Handle,
    command: impl FnOnce(Box<dyn FnOnce(T) + Send>) -> Command,
) -> Result<T> {
    answered(tell(engine, command)?).await
}

/// Asks the engine for something; its answer can be waited for later.
///
/// # Errors
/// Where the engine has stopped.
pub fn tell<T: Send + 'static>(
    engine: &Handle,
    command: impl FnOnce(Box<dyn FnOnce(T) + Send>) -> Command,
) -> Result<oneshot::Receiver<T>> {
    let (answer, answered) = oneshot::channel();
    engine.send(command(Box::new(move |value| drop(answer.send(value)))))?;
    Ok(answered)
}

/// Waits for the engine's answer.
///
/// # Errors
/// Where the engine has stopped or refused.
pub async fn answered<T>(answer: oneshot::Receiver<T>) -> Result<T> {
    answer.await.map_err(|_| anyhow!("the engine has stopped or refused; its log says why"))
}

/// The configuration of `tollfree run`, with what the command line says on top.
///
/// # Errors
/// Mistakes in the file, by line and key.
pub fn configuration(
    file: Option<&std::path::Path>,
    state_dir: Option<std::path::PathBuf>,
    bpffs: Option<std::path::PathBuf>,
) -> Result<Config> {
    let mut config = file.map(Config::read).transpose()?.unwrap_or_default();
    if let Some(file) = file.filter(|_| !config.psk.is_empty()) {
        let mode = std::fs::metadata(file).map_or(0, |found| found.permissions().mode());
        if mode & 0o077 != 0 {
            warn!("{} holds `psk`, but others than its owner can read it: chmod 600", file.display());
        }
    }
    let paths::Places { state, bpffs } = paths::Places::new(
        state_dir.or_else(|| Some(config.state_dir.clone())),
        bpffs.or_else(|| Some(config.bpffs.clone())),
    );
    (config.state_dir, config.bpffs) = (state, bpffs);
    Ok(config)
}
