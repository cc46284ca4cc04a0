//! What outlives the process and the kernel does not remember: one JSON file per interface.

use crate::{Error, Mode, Paths, TableInfo};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The content of an interface's state file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The mode that was asked for.
    pub mode: Mode,
    /// The first of Tollfree's UDP ports.
    pub port: u16,
    /// How many they are.
    pub ports: u16,
    /// The object that the programs come from.
    pub object: std::path::PathBuf,
    /// Counts the changes of policy; 0: never any.
    pub generation: u64,
    /// The tables of the policy in force.
    pub tables: Vec<TableInfo>,
    /// What was given along with the policy; null without one.
    pub policy: Box<RawValue>,
    /// The tables of the policy before.
    #[serde(default)]
    pub tables_before: Vec<TableInfo>,
    /// What was given along with the policy before; null where there was none.
    #[serde(default)]
    pub policy_before: Box<RawValue>,
}

/// A state file as it was read, while it is the same one: it is replaced as a whole, never written in place.
#[derive(Debug)]
pub(crate) struct Known {
    file: (u64, u64, i64, i64, u64),
    state: State,
}

impl Known {
    /// What the file says, read anew only where it is another one.
    pub fn read(known: &mut Option<Known>, paths: &Paths, interface: &str) -> Result<State, Error> {
        let Ok(found) = std::fs::metadata(paths.state_file(interface)) else {
            *known = None;
            return Ok(State::read(paths, interface)?.unwrap_or_default());
        };
        let file = (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size());
        if let Some(known) = known.as_ref().filter(|known| known.file == file) {
            return Ok(known.state.clone());
        }
        let state = State::read(paths, interface)?.unwrap_or_default();
        *known = Some(Known { file, state: state.clone() });
        Ok(state)
    }

    /// What has just been written.
    pub fn wrote(known: &mut Option<Known>, paths: &Paths, interface: &str, state: State) {
        *known = std::fs::metadata(paths.state_file(interface)).ok().map(|found| Known {
            file: (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()),
            state,
        });
    }
}

impl State {
    /// Reads it. `None`: there is none.
    pub(crate) fn read(paths: &Paths, interface: &str) -> Result<Option<State>, Error> {
        let path = paths.state_file(interface);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::File { operation: "read", path, cause }),
        };
        let state = serde_json::from_slice(&text).map_err(|cause| Error::File {
            operation: "understand",
            path,
            cause: cause.into(),
        })?;
        Ok(Some(state))
    }

    /// Writes it, so that readers see the old file or the new one.
    pub(crate) fn write(&self, paths: &Paths, interface: &str) -> Result<(), Error> {
        create_dir(&paths.state)?;
        let path = paths.state_file(interface);
        let fresh = path.with_extension(format!("json.{}", std::process::id()));
        let text = serde_json::to_vec(self).map_err(|cause| Error::File {
            operation: "write",
            path: path.clone(),
            cause: cause.into(),
        })?;
        std::fs::write(&fresh, text).map_err(Error::file("write", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(Error::file("write", &path))
    }
}

fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::file("create", path))
}
