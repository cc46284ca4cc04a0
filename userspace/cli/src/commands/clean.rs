//! `tollfree clean`: takes Tollfree off this host, whatever state it was left in.

use crate::admin::Client;
use crate::output::{Output, Show};
use crate::paths::{self, Places};
use crate::{interfaces, xdp};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::Path;

#[derive(Default, Serialize)]
struct Cleaned {
    /// What was removed, as sentences would name it.
    removed: Vec<String>,
}

impl Show for Cleaned {
    fn text(&self) -> String {
        if self.removed.is_empty() {
            return "nothing to clean\n".into();
        }
        self.removed.iter().map(|what| format!("removed {what}\n")).collect()
    }
}

/// Runs the command. A daemon that runs is not pulled the rug from under.
pub fn run(output: Output, places: &Places) -> Result<()> {
    if Client::find(&places.admin_socket())?.is_some() {
        bail!("a daemon runs on {}; stop it first", places.state.display());
    }
    let mut cleaned = Cleaned::default();
    let paths = places.loader();
    for interface in tollfree_loader::clean(&paths).map_err(xdp::loader_error)? {
        let gone = if interfaces::index(&interface).is_some() { "" } else { " (the interface is gone)" };
        cleaned.removed.push(format!("XDP and pins of {interface}{gone}"));
    }
    for file in [paths::ADMIN_SOCKET, paths::APP_SOCKET, paths::LOCK, paths::POLICIES] {
        remove(&places.state.join(file), &mut cleaned)?;
    }
    output.print(&cleaned)
}

fn remove(path: &Path, cleaned: &mut Cleaned) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => cleaned.removed.push(path.display().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
    Ok(())
}
