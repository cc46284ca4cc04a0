//! `tollfree schema`: schemas to manifests and stubs; does a change keep the wire compatible?

use crate::args::Schema;
use crate::exit::Exit;
use crate::input;
use crate::output::{Align, Output, Show, count, table};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tollfree_schema::build::Builder;
use tollfree_schema::{Manifest, lint};

/// Runs one of the commands.
pub fn run(command: Schema) -> Result<()> {
    match command {
        Schema::Compile { files, includes, out, rust: Some(folder) } => {
            debug_assert!(out.is_none(), "clap refuses both");
            stubs(&files, &includes, &folder)
        }
        Schema::Compile { files, includes, out, rust: None } => {
            manifest(&input::protos(&files, &includes)?, out.as_deref())
        }
        Schema::Lint { files, includes, against, output } => {
            let new = input::protos(&files, &includes)?;
            let old = against.as_deref().map(|file| input::schema(file, &includes)).transpose()?;
            let warnings = lint::check(&files, &includes).map_err(input::schema_error)?;
            let warnings = warnings.iter().map(ToString::to_string).collect();
            report(&new, old.as_ref(), warnings, output)
        }
    }
}

fn manifest(manifest: &Manifest, out: Option<&Path>) -> Result<()> {
    let text = manifest.to_json()?;
    match out {
        None => Output::default().text(&text),
        Some(file) => {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
            Output::default().text(&format!("wrote {} ({})\n", file.display(), summary(manifest)))
        }
    }
}

fn stubs(files: &[PathBuf], includes: &[PathBuf], folder: &Path) -> Result<()> {
    for file in files {
        input::readable(file)?;
    }
    let builder = includes.iter().fold(Builder::new().out_dir(folder), Builder::include);
    let manifest = builder.compile(files).map_err(input::schema_error)?;
    Output::default().text(&format!("wrote Rust stubs to {} ({})\n", folder.display(), summary(&manifest)))
}

fn summary(manifest: &Manifest) -> String {
    let methods = manifest.methods().count() as u64;
    format!("{}, {}", count(manifest.services.len() as u64, "service"), count(methods, "method"))
}

/// What `schema lint` found.
#[derive(Serialize)]
struct Lint {
    ok: bool,
    methods: Vec<MethodView>,
    /// Flat fields that are allowed but of little use.
    warnings: Vec<String>,
    /// What breaks peers or policies that know the older schema.
    breakages: Vec<String>,
    #[serde(skip)]
    compared: bool,
}

#[derive(Serialize)]
struct MethodView {
    method: String,
    id: String,
    request_flat_bytes: u16,
    request_flat_fields: usize,
    response_flat_bytes: u16,
    response_flat_fields: usize,
}

fn report(new: &Manifest, old: Option<&Manifest>, warnings: Vec<String>, output: Output) -> Result<()> {
    let breakages: Vec<String> =
        old.map(|old| lint::against(old, new)).unwrap_or_default().iter().map(ToString::to_string).collect();
    let methods = new.methods().map(|method| MethodView {
        method: method.path.clone(),
        id: format!("{:#010x}", method.id),
        request_flat_bytes: method.request.flat_len,
        request_flat_fields: method.request.fields.len(),
        response_flat_bytes: method.response.flat_len,
        response_flat_fields: method.response.fields.len(),
    });
    let lint = Lint {
        ok: breakages.is_empty(),
        methods: methods.collect(),
        warnings,
        breakages,
        compared: old.is_some(),
    };
    output.print(&lint)?;
    if lint.ok { Ok(()) } else { Err(Exit::ReportedRefused.into()) }
}

impl Show for Lint {
    fn text(&self) -> String {
        let columns = [
            ("METHOD", Align::Left),
            ("ID", Align::Left),
            ("REQUEST FLAT", Align::Right),
            ("RESPONSE FLAT", Align::Right),
        ];
        let mut text = table(
            &columns,
            self.methods.iter().map(|view| {
                vec![
                    view.method.clone(),
                    view.id.clone(),
                    format!("{} B", view.request_flat_bytes),
                    format!("{} B", view.response_flat_bytes),
                ]
            }),
        );
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        for breakage in &self.breakages {
            text.push_str(&format!("breaks: {breakage}\n"));
        }
        text.push_str(match (self.compared, self.ok) {
            (false, _) => "the schema is good\n",
            (true, true) => "the schema is good, and peers with the older one keep working\n",
            (true, false) => "the change breaks peers or policies that know the older schema\n",
        });
        text
    }
}
