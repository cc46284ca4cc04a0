//! `tollfree program verify`: does the kernel here take every program, through either loader, and how big is it?

use crate::exit::Exit;
use crate::input;
use crate::output::{Align, Output, Show, table};
use crate::{args, paths, privilege};
use anyhow::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tollfree_loader::ProgramReport;
use tollfree_policy::Options;

/// Runs the command.
pub fn run(command: args::Program) -> Result<()> {
    let args::Program::Verify { object, policies, schema, output } = command;
    verify(object.as_deref(), policies, schema, output)
}

fn verify(
    object: Option<&Path>,
    policies: Vec<PathBuf>,
    schema: Option<PathBuf>,
    output: Output,
) -> Result<()> {
    let path = paths::object(object)?;
    let mut objects = vec![(path.display().to_string(), std::fs::read(&path)?)];
    for (file, schema) in policies.into_iter().zip(std::iter::repeat(schema).map_while(|schema| schema)) {
        let policy = input::Policy::read(&args::PolicyInput { file, schema, includes: Vec::new() })?;
        for compiled in policy.compile_sides(None, Options::default(), output)? {
            objects.extend(compiled.object.map(|object| (policy.name.clone(), object)));
        }
    }
    privilege::require("loading programs", privilege::ATTACH)?;
    let reports = tollfree_loader::verify(&objects);
    let verified = Verified { ok: reports.iter().all(|report| report.ok), programs: reports };
    output.print(&verified)?;
    if verified.ok { Ok(()) } else { Err(Exit::Reported.into()) }
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    programs: Vec<ProgramReport>,
}

impl Show for Verified {
    fn text(&self) -> String {
        let columns = [
            ("PROGRAM", Align::Left),
            ("LOADER", Align::Left),
            ("INSNS", Align::Right),
            ("VERIFIED", Align::Right),
            ("JITED", Align::Right),
            ("RESULT", Align::Left),
        ];
        let mut text = table(
            &columns,
            self.programs.iter().map(|report| {
                vec![
                    match report.name.strip_prefix("tf_policy") {
                        None if !report.name.is_empty() => report.name.clone(),
                        part => format!("{}{}", report.object, part.unwrap_or_default()),
                    },
                    report.loader.to_owned(),
                    report.instructions.to_string(),
                    report.verified.to_string(),
                    format!("{} B", report.jited),
                    if report.ok { "ok" } else { "refused" }.to_owned(),
                ]
            }),
        );
        // The verifier's own words, whole: they are what one needs when it refuses.
        for report in self.programs.iter().filter(|report| !report.ok) {
            text.push_str(&format!(
                "\n{} of {} through {}:\n{}\n",
                report.name,
                report.object,
                report.loader,
                report.log.trim_end()
            ));
        }
        text
    }
}
