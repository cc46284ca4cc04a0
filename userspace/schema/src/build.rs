//! Generating stubs from a `build.rs`.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     tollfree_schema::build::compile("schemas/hash.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! The crate then includes what was generated for the protobuf package `demo`:
//!
//! ```ignore
//! mod demo {
//!     include!(concat!(env!("OUT_DIR"), "/demo.rs"));
//! }
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::codegen::{Generated, generate};
use crate::{Error, Manifest};

/// Generates the stubs of one `.proto` file into `OUT_DIR`, and tells cargo when to do it again.
///
/// # Errors
/// What is wrong with the file, by line and field.
pub fn compile(file: impl AsRef<Path>) -> Result<Manifest, Error> {
    Builder::new().compile(&[file])
}

/// [`compile`] with more to say.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    /// Folders searched for imports, besides each file's own.
    pub includes: Vec<PathBuf>,
    /// Where to write, made where it does not exist; cargo's `OUT_DIR` when `None`.
    pub out_dir: Option<PathBuf>,
}

impl Builder {
    /// Searches each file's own folder for imports and writes into cargo's `OUT_DIR`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Searches `folder` for imports, too.
    #[must_use]
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// Writes into `folder`, which is made where it does not exist, instead of `OUT_DIR`.
    #[must_use]
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// Generates one Rust file for each protobuf package that `files` and their imports define.
    ///
    /// # Errors
    /// What is wrong with the files, by file, line and field; or which file could not be written.
    pub fn compile(&self, files: &[impl AsRef<Path>]) -> Result<Manifest, Error> {
        let Self { includes, out_dir } = self;
        let in_cargo = std::env::var_os("OUT_DIR");
        let out_dir = match (out_dir, &in_cargo) {
            (Some(folder), _) => folder.clone(),
            (None, Some(folder)) => PathBuf::from(folder),
            (None, None) => {
                return Err(Error::Generate(
                    "OUT_DIR is not set; call `out_dir` outside of build scripts".into(),
                ));
            }
        };
        let files: Vec<PathBuf> = files.iter().map(|file| file.as_ref().to_owned()).collect();
        if in_cargo.is_some() {
            // Also where the file is refused, or cargo would not look at it again.
            rerun_if_changed(&files);
        }
        let Generated { sources, manifest, inputs } = generate(&files, includes)?;
        if in_cargo.is_some() {
            rerun_if_changed(&inputs);
        }
        fs::create_dir_all(&out_dir).map_err(|source| Error::Write { path: out_dir.clone(), source })?;
        for (name, text) in sources {
            let path = out_dir.join(name);
            fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
        }
        Ok(manifest)
    }
}

fn rerun_if_changed(files: &[PathBuf]) {
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
}
