//! What a daemon that starts is to find: the policies in force and before, in one file of the state directory. It is
//! replaced as a whole, so that a daemon killed at any moment leaves the old one or the new one.
//!
//! Policies are kept as text, with their schema: what they mean is for the daemon that reads it to compile.

use super::slot;
use crate::daemon::config::Side;
use crate::input::Policy;
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Of the file's form.
const VERSION: u32 = 1;

/// The file.
pub struct Record {
    path: PathBuf,
    /// What it says.
    pub content: Content,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    version: u32,
    /// The server's side and the client's.
    sides: [Kept; 2],
    /// What the configuration named when a policy of its was last put in force.
    pub configured: Option<Configured>,
}

/// A configured policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    /// Its text and schema.
    pub policy: Policy,
    /// The side asked for.
    pub at: Option<Side>,
}

/// One side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Whose chain is in force.
    pub policy: Option<Policy>,
    /// Whose chain was before.
    pub before: Option<Policy>,
    /// Whose transport block is in force.
    pub transport: Option<Policy>,
    /// The interface where XDP runs the policy, and its generation there.
    pub xdp: Option<InXdp>,
    /// What people have set in tables of the engine: key and value, by table. XDP's are in the kernel.
    pub entries: BTreeMap<String, BTreeMap<String, String>>,
}

/// Where XDP runs a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InXdp {
    /// The interface.
    pub interface: String,
    /// The policy's generation.
    pub generation: u64,
}

impl Content {
    /// One side.
    pub fn side_mut(&mut self, at: Side) -> &mut Kept {
        &mut self.sides[slot(at)]
    }
}

impl Record {
    /// Reads it; without a file nothing was in force.
    ///
    /// # Errors
    /// A file that cannot be read, or that this version does not understand: nobody knows then what was in force.
    pub fn read(state_dir: &Path) -> Result<Record> {
        let path = state_dir.join(crate::paths::POLICIES);
        let unknown = || {
            format!(
                "{} says which policies are in force, and cannot be understood; to start without them, remove it",
                path.display()
            )
        };
        let content = match std::fs::read(&path) {
            Ok(text) => {
                let content: Content = serde_json::from_slice(&text).with_context(unknown)?;
                if content.version != VERSION {
                    return Err(
                        anyhow!("it has version {}, not {VERSION}", content.version).context(unknown())
                    );
                }
                content
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Content { version: VERSION, ..Content::default() }
            }
            Err(error) => return Err(error).with_context(unknown),
        };
        Ok(Record { path, content })
    }

    /// One side.
    pub fn side(&self, at: Side) -> &Kept {
        &self.content.sides[slot(at)]
    }

    /// Changes it.
    ///
    /// # Errors
    /// When it cannot be written; it says what it said before then.
    pub fn change(&mut self, how: impl FnOnce(&mut Content)) -> Result<()> {
        let before = self.content.clone();
        how(&mut self.content);
        if self.content == before {
            return Ok(());
        }
        self.write().inspect_err(|_| self.content = before)
    }

    /// Changes what it says of one side.
    ///
    /// # Errors
    /// As [`Record::change`].
    pub fn change_side(&mut self, at: Side, how: impl FnOnce(&mut Kept)) -> Result<()> {
        self.change(|content| how(content.side_mut(at)))
    }

    fn write(&self) -> Result<()> {
        let cannot = || format!("cannot write {}, which a daemon that restarts goes by", self.path.display());
        let fresh = self.path.with_extension("json.new");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        let text = serde_json::to_vec(&self.content)?;
        file.and_then(|mut file| file.write_all(&text))
            .and_then(|()| std::fs::rename(&fresh, &self.path))
            .with_context(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> Policy {
        Policy { name: name.to_owned(), text: "a()".to_owned(), manifest: Default::default() }
    }

    #[test]
    fn what_is_written_is_read_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::read(folder.path()).unwrap();
        assert_eq!(record.side(Side::Server), &Kept::default(), "without a file");
        record
            .change_side(Side::Client, |kept| {
                kept.policy = Some(policy("new"));
                kept.before = Some(policy("old"));
                kept.xdp = Some(InXdp { interface: "eth0".into(), generation: 7 });
                kept.entries.entry("users".into()).or_default().insert("eve".into(), "DENY".into());
            })
            .unwrap();
        let configured = Configured { policy: policy("configured"), at: None };
        record.change(|content| content.configured = Some(configured)).unwrap();
        let again = Record::read(folder.path()).unwrap();
        assert_eq!(again.content, record.content);
        assert_eq!(again.side(Side::Client).before, Some(policy("old")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the record");
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(crate::paths::POLICIES);
        for text in
            ["{", "{}", r#"{"version":2,"sides":[]}"#, r#"{"version":9,"sides":[{},{}],"configured":null}"#]
        {
            std::fs::write(&path, text).unwrap();
            let error = Record::read(folder.path()).map(drop).unwrap_err();
            assert!(format!("{error:#}").contains("remove it"), "{text}: {error:#}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_record_that_cannot_be_written_says_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::read(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join(crate::paths::POLICIES)).unwrap();
        assert!(record.change_side(Side::Server, |kept| kept.policy = Some(policy("x"))).is_err());
        assert_eq!(record.side(Side::Server).policy, None);
    }
}
