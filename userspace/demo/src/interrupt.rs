//! Ctrl-C, SIGTERM and SIGHUP: noticed between two steps, so that guards can do their work.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED_TO_STOP: AtomicBool = AtomicBool::new(false);

/// From now on signals only leave a note. Once per process.
///
/// # Errors
/// When signals cannot be handled.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| ASKED_TO_STOP.store(true, Ordering::Relaxed)).context("cannot handle signals")
}

/// To be called wherever something takes time.
///
/// # Errors
/// When a signal has arrived.
pub fn check() -> Result<()> {
    if ASKED_TO_STOP.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
