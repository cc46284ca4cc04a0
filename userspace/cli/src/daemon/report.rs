//! What the daemon says of itself.

use super::config::Side;
use super::{Daemon, ask};
use crate::admin::{AppView, DaemonView, EngineView, PolicyView, RouteView, SessionView, TransportView};
use anyhow::Result;
use tollfree_engine::Command;

impl Daemon {
    /// The interface it has, for backend `afxdp`.
    pub fn interface(&self) -> Option<&str> {
        self.config.interface.as_deref()
    }

    /// A report for `tollfree status`.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn status(&self) -> Result<DaemonView> {
        let status = ask(&self.engine, Command::Status).await?;
        let policies = self.policies.lock().await;
        let policy = |at: Side| {
            policies.in_force(at).map(|in_force| PolicyView {
                at,
                policy: in_force.name.clone(),
                place: in_force.place.to_owned(),
                generation: in_force.generation,
            })
        };
        let config = &self.config;
        let tollfree_engine::Status {
            apps,
            sessions,
            reasons,
            received,
            transmitted,
            calls_open,
            waiting,
            server_policy: _,
            client_policy: _,
            ..
        } = status;
        Ok(DaemonView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            backend: config.backend.name().to_owned(),
            interface: config.interface.clone(),
            listen: self.listen.map(|listen| listen.to_string()),
            port: self.listen.map_or(config.ports().first, |listen| listen.port()),
            app_socket: config.app_socket(),
            routes: config
                .routes
                .iter()
                .map(|route| RouteView { service: route.service.clone(), peer: route.peer.to_string() })
                .collect(),
            policies: [Side::Server, Side::Client].into_iter().filter_map(policy).collect(),
            transport: [Side::Server, Side::Client]
                .into_iter()
                .flat_map(|at| policies.carried(at).iter().map(move |method| (at, method)))
                .map(|(at, method)| TransportView {
                    at,
                    method: method.method.clone(),
                    carried: method.spec.to_string(),
                })
                .collect(),
            apps: apps
                .into_iter()
                .map(|app| AppView {
                    name: app.name,
                    pid: app.pid,
                    serves: app.serves,
                    calls_made: app.calls_made,
                    calls_served: app.calls_served,
                    backlog: app.backlog as u64,
                })
                .collect(),
            sessions: sessions
                .into_iter()
                .map(|session| SessionView {
                    index: session.index,
                    peer: session.peer,
                    role: session.role.to_owned(),
                    calls: session.calls,
                    idle_ms: session.idle_ms,
                })
                .collect(),
            engine: EngineView {
                waiting,
                received,
                transmitted,
                calls_open: calls_open as u64,
                reasons: reasons.into_iter().collect(),
            },
            xdp: policies.xdp().map(|xdp| xdp.view()).transpose()?,
        })
    }
}
