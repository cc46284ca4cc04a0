//! `tollfree policy fmt`: the one way to write a policy.

use crate::exit::{Exit, refused};
use crate::input;
use crate::output::Output;
use anyhow::{Context, Result};
use std::path::PathBuf;
use tollfree_policy::Source;

/// Rewrites files in their canonical layout, or with `check` names those that are not in it.
///
/// # Errors
/// Files that cannot be read, written or parsed; [`Exit::Reported`] where `check` finds one.
pub fn run(files: &[PathBuf], check: bool) -> Result<()> {
    let mut differing = Vec::new();
    for file in files {
        let text = input::read(file)?;
        let name = file.display().to_string();
        let formatted = tollfree_policy::format(&Source { name: &name, text: &text }).map_err(refused)?;
        if formatted == text {
            continue;
        }
        if !check {
            std::fs::write(file, &formatted).with_context(|| format!("cannot write {name}"))?;
        }
        differing.push(name);
    }
    let what = if check { "not in canonical layout" } else { "rewritten" };
    for name in &differing {
        Output::default().text(&format!("{name}: {what}\n"))?;
    }
    if check && !differing.is_empty() { Err(Exit::Reported.into()) } else { Ok(()) }
}
