//! The socket that commands speak to: reads requests, lets the daemon act, writes replies. One line each.

use super::Daemon;
use super::config::Side;
use crate::admin::{Applied, InForceView, Reply, Request, TableOp};
use crate::input::Policy;
use anyhow::{Context, Result};
use std::rc::Rc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

/// The longest request, in bytes: a policy and its schema are the bulk of it.
const REQUEST_MAX: u64 = 16 << 20;

/// Serves commands until the task is dropped. Must run on the daemon's own `LocalSet`.
pub async fn serve(listener: UnixListener, daemon: Rc<Daemon>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = daemon.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &daemon).await {
                        debug!("admin connection ended: {}", crate::exit::flatten(&error));
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a command");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, daemon: &Daemon) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        (&mut stream).take(REQUEST_MAX).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
        let reply = Reply::from(answer(&line, daemon).await);
        let mut text = serde_json::to_string(&reply)?;
        text.push('\n');
        stream.get_mut().write_all(text.as_bytes()).await?;
    }
}

async fn answer(line: &str, daemon: &Daemon) -> Result<serde_json::Value> {
    let request = serde_json::from_str(line)
        .context("not a request this daemon knows; is the command of another version?")?;
    match request {
        Request::Status => Ok(serde_json::to_value(daemon.status().await?)?),
        Request::Interface => Ok(serde_json::to_value(daemon.interface())?),
        Request::PolicyApply { name, text, manifest, at } => {
            let policy = Policy { name, text, manifest: *manifest };
            Ok(serde_json::to_value(daemon.policy_apply(policy, at).await?)?)
        }
        Request::PolicyInForce { at } => Ok(serde_json::to_value(daemon.policy_in_force(at).await)?),
        Request::PolicyRollback { at } => Ok(serde_json::to_value(daemon.policy_rollback(at).await?)?),
        Request::PolicyClear { at } => {
            daemon.policy_clear(at).await?;
            Ok(serde_json::Value::Null)
        }
        Request::Table { at, table } => daemon.table(at, table).await,
    }
}

impl Daemon {
    /// See [`super::policies::Policies::apply`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_apply(&self, policy: Policy, at: Option<Side>) -> Result<Vec<Applied>> {
        self.policies.lock().await.apply(&policy, at).await
    }

    /// The policy in force on a side, as it was given.
    pub async fn policy_in_force(&self, at: Side) -> Option<InForceView> {
        let policies = self.policies.lock().await;
        let Policy { name, text, manifest } = policies.in_force(at)?.source.clone();
        Some(InForceView { name, text, manifest })
    }

    /// See [`super::policies::Policies::rollback`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_rollback(&self, at: Side) -> Result<Option<Applied>> {
        self.policies.lock().await.rollback(at).await
    }

    /// See [`super::policies::Policies::clear`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_clear(&self, at: Side) -> Result<()> {
        self.policies.lock().await.clear(at).await
    }

    /// See [`super::policies::Policies::table`].
    ///
    /// # Errors
    /// As there.
    pub async fn table(&self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        self.policies.lock().await.table(at, op).await
    }
}
