//! Reads what users write: schemas and policies, with their mistakes shown in place.

use crate::args::PolicyInput;
use crate::daemon::config::Side;
use crate::exit::{Exit, refused};
use crate::output::Output;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use tollfree_policy::{Compiled, Diagnostics, Options, Parsed, Source};
use tollfree_schema::{Error as SchemaError, Manifest};

/// The schema in these `.proto` files.
///
/// # Errors
/// Mistakes in them count as refused input.
pub fn protos(files: &[PathBuf], includes: &[PathBuf]) -> Result<Manifest> {
    for file in files {
        readable(file)?;
    }
    Manifest::from_proto(files, includes).map_err(schema_error)
}

/// The schema in one file: a `.proto`, or a layout manifest (`.json`).
///
/// # Errors
/// Mistakes in it count as refused input.
pub fn schema(file: &Path, includes: &[PathBuf]) -> Result<Manifest> {
    if file.extension().is_some_and(|extension| extension == "json") {
        let text = read(file)?;
        return Manifest::from_json(&text).map_err(|error| refused(format!("{}: {error}", file.display())));
    }
    protos(&[file.to_owned()], includes)
}

/// Tells mistakes in a schema from files that cannot be read or written.
pub fn schema_error(error: SchemaError) -> anyhow::Error {
    match error {
        SchemaError::Read { .. } | SchemaError::Write { .. } => error.into(),
        other => refused(other),
    }
}

/// A file's text.
///
/// # Errors
/// Names the file.
pub fn read(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refused(format!("{} is not UTF-8 text from byte {at} on", file.display()))
    })
}

/// Whether a file can be read: said by the system, before anyone parses.
///
/// # Errors
/// Names the file.
pub fn readable(file: &Path) -> Result<()> {
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display())).map(drop)
}

/// A policy and its schema, read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The policy's file as the user named it.
    pub name: String,
    /// The policy's source.
    pub text: String,
    /// Its schema.
    pub manifest: Manifest,
}

impl Policy {
    /// Reads both files.
    ///
    /// # Errors
    /// Mistakes in the schema count as refused input.
    pub fn read(input: &PolicyInput) -> Result<Policy> {
        let PolicyInput { file, schema: schema_file, includes } = input;
        let text = read(file)?;
        let manifest = schema(schema_file, includes)?;
        Ok(Policy { name: file.display().to_string(), text, manifest })
    }

    /// Its text, read.
    pub fn parsed(&self) -> Parsed<'_> {
        Parsed::of(&Source { name: &self.name, text: &self.text })
    }

    /// Compiles it.
    ///
    /// # Errors
    /// Every mistake, with its place.
    pub fn compile(&self, options: Options<'_>) -> Result<Compiled, Diagnostics> {
        self.parsed().compile(&self.manifest, options)
    }

    /// Compiles it for every side that is asked for, or that it has chains for, as [`Policy::compile_or_show`] does.
    ///
    /// # Errors
    /// As there.
    pub fn compile_sides(
        &self,
        asked: Option<Side>,
        options: Options<'_>,
        output: Output,
    ) -> Result<Vec<Compiled>> {
        let sides = self.sides(asked).into_iter();
        sides.map(|side| self.compile_or_show(Options { side, ..options }, output)).collect()
    }

    /// Its typed form for one side, as text.
    ///
    /// # Errors
    /// As [`Policy::compile_or_show`].
    pub fn ir_or_show(&self, side: tollfree_policy::Side, output: Output) -> Result<String> {
        let source = Source { name: &self.name, text: &self.text };
        let options = Options { side: Some(side), ..Options::default() };
        tollfree_policy::emit_ir(&source, &self.manifest, options).map_err(|mistakes| show(&mistakes, output))
    }

    /// The sides to compile it for: the one asked for, else those that it has chains for; `None` where it has none.
    pub fn sides(&self, asked: Option<Side>) -> Vec<Option<tollfree_policy::Side>> {
        let compiler_side = |side| match side {
            Side::Server => tollfree_policy::Side::Server,
            Side::Client => tollfree_policy::Side::Client,
        };
        if let Some(side) = asked {
            return vec![Some(compiler_side(side))];
        }
        let found = self.parsed().sides();
        if found.is_empty() { vec![None] } else { found.into_iter().map(Some).collect() }
    }

    /// Compiles it for a command: mistakes are shown in the form asked for, and end it with "refused input".
    ///
    /// # Errors
    /// [`Exit::Refused`] or [`Exit::ReportedRefused`].
    pub fn compile_or_show(&self, options: Options<'_>, output: Output) -> Result<Compiled> {
        self.compile(options).map_err(|diagnostics| show(&diagnostics, output))
    }
}

fn show(diagnostics: &Diagnostics, output: Output) -> anyhow::Error {
    if !output.is_json() {
        return refused(diagnostics.render(std::io::stderr().is_terminal()));
    }
    let report = serde_json::json!({ "ok": false, "errors": diagnostics.to_json() });
    output.json(&report).err().unwrap_or_else(|| Exit::ReportedRefused.into())
}
