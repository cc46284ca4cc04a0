//! `tollfree status`: the daemon and the interfaces, as they are now.

use crate::admin::{Client, DaemonView, InterfaceView, Request, TransportView};
use crate::exit::Exit;
use crate::output::{Align, Output, Show, facts, table};
use crate::paths::Places;
use crate::xdp;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use tollfree_wire::Reason;

/// Prints the status. Without a daemon that is said, and the command fails, so that scripts can ask.
pub fn run(output: Output, places: &Places) -> Result<()> {
    let daemon = match Client::find(&places.admin_socket())? {
        Some(mut client) => Some(client.ask::<DaemonView>(&Request::Status)?),
        None => None,
    };
    let running = daemon.is_some();
    let socket = places.admin_socket().display().to_string();
    output.print(&Status { daemon, interfaces: xdp::views(places), socket })?;
    if running { Ok(()) } else { Err(Exit::Reported.into()) }
}

#[derive(Serialize)]
struct Status {
    daemon: Option<DaemonView>,
    interfaces: Vec<InterfaceView>,
    #[serde(skip)]
    socket: String,
}

impl Show for Status {
    fn text(&self) -> String {
        let mut text = match &self.daemon {
            Some(daemon) => daemon_text(daemon),
            None => format!("no daemon answers at {}\n", self.socket),
        };
        for interface in &self.interfaces {
            text.push('\n');
            text.push_str(&interface_text(interface));
        }
        text
    }
}

fn daemon_text(daemon: &DaemonView) -> String {
    let DaemonView {
        version,
        pid,
        uptime_s,
        backend,
        interface,
        listen,
        port,
        app_socket,
        routes,
        policies,
        transport,
        apps,
        sessions,
        engine,
        xdp: _,
    } = daemon;
    let at = match (interface, listen) {
        (Some(interface), _) => format!("{backend} on {interface}, port {port}"),
        (None, Some(listen)) => format!("{backend} on {listen}"),
        (None, None) => backend.clone(),
    };
    let mut rows = vec![
        ("daemon", format!("process {pid}, version {version}, up {}", uptime(*uptime_s))),
        ("backend", at),
        ("app socket", app_socket.display().to_string()),
        (
            "engine",
            format!(
                "{} received, {} transmitted, {} under way; waits {}",
                engine.received, engine.transmitted, engine.calls_open, engine.waiting
            ),
        ),
    ];
    for policy in policies {
        let place = match policy.place.as_str() {
            "xdp" => "in XDP",
            "closed" => "cannot be in force again (every call is refused)",
            _ => "in the engine",
        };
        let at = policy.at.name();
        rows.push((
            "policy",
            format!("{} {place} at the {at}, generation {}", policy.policy, policy.generation),
        ));
    }
    for TransportView { at, method, carried } in transport {
        rows.push(("transport", format!("{method}: {carried}, says the policy at the {}", at.name())));
    }
    for route in routes {
        rows.push(("route", format!("{} -> {}", route.service, route.peer)));
    }
    let mut text = facts(rows);
    if !apps.is_empty() {
        let columns = [
            ("APP", Align::Left),
            ("PID", Align::Right),
            ("SERVES", Align::Left),
            ("CALLS MADE", Align::Right),
            ("SERVED", Align::Right),
            ("BACKLOG", Align::Right),
        ];
        text.push('\n');
        text.push_str(&table(
            &columns,
            apps.iter().map(|app| {
                vec![
                    app.name.clone(),
                    app.pid.to_string(),
                    if app.serves.is_empty() { "-".into() } else { app.serves.join(", ") },
                    app.calls_made.to_string(),
                    app.calls_served.to_string(),
                    app.backlog.to_string(),
                ]
            }),
        ));
    }
    if !sessions.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &[
                ("SESSION", Align::Left),
                ("PEER", Align::Left),
                ("ROLE", Align::Left),
                ("TRACKED CALLS", Align::Right),
                ("IDLE s", Align::Right),
            ],
            sessions.iter().map(|session| {
                vec![
                    format!("{:#010x}", session.index),
                    session.peer.clone(),
                    session.role.clone(),
                    session.calls.to_string(),
                    format!("{:.1}", session.idle_ms as f64 / 1000.0),
                ]
            }),
        ));
    }
    if !engine.reasons.is_empty() {
        text.push('\n');
        text.push_str(&reasons("IN THE ENGINE", &engine.reasons));
    }
    text
}

fn interface_text(view: &InterfaceView) -> String {
    let InterfaceView {
        interface,
        mode,
        port: _,
        ports: _,
        policy,
        generation,
        instructions,
        reasons: counts,
    } = view;
    let policy = match policy {
        Some(policy) => format!("{policy}, generation {generation}, {instructions} instructions"),
        None => "none; every call is delivered".to_owned(),
    };
    let mut text = facts([
        ("interface", interface.clone()),
        ("xdp", format!("{mode}, UDP ports {}", view.ports_text())),
        ("policy", policy),
    ]);
    if !counts.is_empty() {
        text.push('\n');
        text.push_str(&reasons("IN XDP", counts));
    }
    text
}

/// Counts by reason, in the reasons' own order, with what each means.
fn reasons(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let rows = Reason::ALL.iter().filter_map(|reason| {
        let count = counts.get(reason.name())?;
        Some(vec![reason.name().to_owned(), count.to_string(), reason.describe().to_owned()])
    });
    table(&[(title, Align::Left), ("PACKETS", Align::Right), ("MEANING", Align::Left)], rows)
}

fn uptime(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, _, _) => format!("{d}d{h}h"),
    }
}
