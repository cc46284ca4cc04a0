//! Programs started here: waited for without missing a signal, and ended by process id, never by name.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a process may take to end when asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A running program. Dropped, it is asked to end, and after a while made to.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a program. It is in a process group of its own, so that a Ctrl-C in the terminal reaches it only through us.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Process> {
        let child =
            command.process_group(0).stdin(Stdio::null()).spawn().with_context(|| {
                format!("cannot start {name} ({})", command.get_program().to_string_lossy())
            })?;
        Ok(Process { name: name.to_owned(), child, log: None })
    }

    /// Like [`Process::spawn`], with everything it prints going to a file.
    ///
    /// # Errors
    /// When the file cannot be made or the program cannot be started.
    pub fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let again = file.try_clone().context("cannot duplicate a file descriptor")?;
        let mut process = Process::spawn(name, command.stdout(file).stderr(again))?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Wants it to be running still.
    ///
    /// # Errors
    /// When it has ended: with its last words.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended early ({status}){}", self.name, self.last_words()),
        }
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When the program ends first, `limit` passes, or a signal arrives.
    pub fn until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !ready() {
            interrupt::check()?;
            self.check()?;
            if started.elapsed() > limit {
                bail!("{} did not get to {what} within {limit:?}{}", self.name, self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When a signal arrives; the program is ended then by the guard.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            interrupt::check()?;
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?
            {
                return Ok(status);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn last_words(&self) -> String {
        let tail = self.log.as_deref().map(|log| tail(log, 2000)).unwrap_or_default();
        if tail.trim().is_empty() { String::new() } else { format!("; it said:\n{}", tail.trim_end()) }
    }

    fn signal(&self, signal: Signal) {
        // Not waited for yet, so the id is still its own. A failure means that it is gone.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        eprintln!("{} (process {}) did not end when asked to; killing it", self.name, self.child.id());
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The end of a file, from the start of a line.
pub fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(match text.split_once('\n') {
            Some((_, whole_lines)) if length > bytes => whole_lines.to_owned(),
            _ => text,
        })
    };
    read().unwrap_or_default()
}

/// Runs a short command to its end.
///
/// # Errors
/// When it cannot be started or fails: with what it said.
pub fn run(command: &mut Command) -> Result<Output> {
    let shown = || {
        let program = Path::new(command.get_program());
        let words = std::iter::once(program.file_name().unwrap_or_default()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let text = shown();
    let output = command
        .process_group(0)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        // Where a command was asked for JSON it tells its errors there.
        let errors = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(errors);
        bail!("`{text}` ended with {}: {}", output.status, said.trim());
    }
    Ok(output)
}
