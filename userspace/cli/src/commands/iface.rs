//! `tollfree iface`: which interfaces have XDP programs of Tollfree.

use crate::admin::{Client, InterfaceView};
use crate::args::{Attach, Iface};
use crate::daemon::config;
use crate::exit::refused;
use crate::output::{Align, Show, table};
use crate::paths::Places;
use crate::xdp::{self, Attached, How};
use anyhow::{Result, bail};
use serde::Serialize;
use tollfree_wire::frame::Ports;

/// Runs one of the commands.
pub fn run(command: Iface, places: &Places) -> Result<()> {
    match command {
        Iface::Attach(attach) => {
            let Attach { interface, mode, force, port, ports, object, output } = attach;
            let ports = Ports { first: port, count: ports };
            config::check_ports(ports).map_err(refused)?;
            let how = How { mode, force, ports, object: object.as_deref() };
            output.print(&NowAttached(Attached::attach(places, &interface, &how)?.view()?))
        }
        Iface::Detach { interface, output } => {
            if Client::of_interface(&places.admin_socket(), &interface)?.is_some() {
                bail!("a daemon receives by {interface}; stop it first");
            }
            xdp::detach(places, &interface)?;
            output.print(&Detached { detached: interface })
        }
        Iface::List(output) => output.print(&Interfaces(xdp::list(places)?)),
    }
}

/// The interface, as `iface list` shows it.
#[derive(Serialize)]
#[serde(transparent)]
struct NowAttached(InterfaceView);

impl Show for NowAttached {
    fn text(&self) -> String {
        let InterfaceView { interface, mode, policy, .. } = &self.0;
        let policy = match policy {
            Some(policy) => format!("the policy {policy} stays in force"),
            None => "no policy is in force yet".to_owned(),
        };
        format!(
            "XDP is attached to {interface} in {mode} mode, UDP ports {}; {policy}\n",
            self.0.ports_text()
        )
    }
}

#[derive(Serialize)]
struct Detached {
    detached: String,
}

impl Show for Detached {
    fn text(&self) -> String {
        format!("XDP is off {}\n", self.detached)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Interfaces(Vec<InterfaceView>);

impl Show for Interfaces {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "no interface has XDP programs of Tollfree\n".into();
        }
        let columns = [
            ("INTERFACE", Align::Left),
            ("XDP", Align::Left),
            ("PORTS", Align::Right),
            ("POLICY", Align::Left),
            ("GENERATION", Align::Right),
            ("INSNS", Align::Right),
        ];
        table(
            &columns,
            self.0.iter().map(|view| {
                vec![
                    view.interface.clone(),
                    view.mode.clone(),
                    view.ports_text(),
                    view.policy.clone().unwrap_or_else(|| "-".into()),
                    view.generation.to_string(),
                    if view.policy.is_some() { view.instructions.to_string() } else { "-".into() },
                ]
            }),
        )
    }
}
