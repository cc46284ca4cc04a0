//! `tollfree policy test`: the calls in a file, and what becomes of them in the engine and in the kernel.

use crate::args::TestPlace;
use crate::exit::{Exit, refused};
use crate::output::{Align, Output, Show, count, table};
use crate::xdp::loader_error;
use crate::{input, paths, privilege};
use anyhow::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tollfree_loader::Bench;
use tollfree_policy::Source;
use tollfree_policy::testing::{self, CaseResult, Failure, Kernel, KeyValue, Ran, Report, TestFile, Where};

/// What a user can choose besides the policies.
pub struct Chosen<'a> {
    /// The tests of the policy, where they are not in the file beside it.
    pub tests: Option<&'a Path>,
    /// Where the calls are made; wherever they can be unless given.
    pub place: Option<TestPlace>,
    /// The compiled XDP programs.
    pub object: Option<&'a Path>,
}

/// Runs the tests of policies; each has its own beside it unless one is given.
///
/// # Errors
/// Files that cannot be read or have mistakes; a kernel that was asked for and cannot be had; [`Exit::Reported`] where a
/// case is not as expected.
pub fn run(policies: &[PathBuf], chosen: Chosen<'_>, includes: &[PathBuf], output: Output) -> Result<()> {
    let Chosen { tests, place, object } = chosen;
    if let (Some(tests), [_, _, ..]) = (tests, policies) {
        return Err(refused(format!(
            "{} can be for one policy only; without --tests each policy is tested by the file beside it",
            tests.display()
        )));
    }
    let (mut bench, skipped) = match place {
        Some(TestPlace::Engine) => (None, None),
        Some(TestPlace::Xdp | TestPlace::Both) => (Some(bench(object)?), None),
        None => match bench(object) {
            Ok(bench) => (Some(bench), None),
            Err(error) => (None, Some(crate::exit::flatten(&error))),
        },
    };
    let mut reports = Vec::new();
    for policy in policies {
        let beside = policy.with_extension("test");
        let place = match &mut bench {
            None => Where::Engine,
            Some(bench) if place == Some(TestPlace::Xdp) => Where::Xdp(bench),
            Some(bench) => Where::Both(bench),
        };
        let report = one(policy, tests.unwrap_or(&beside), includes, place)?;
        reports.push(Tested { report, skipped_at_xdp: skipped.clone() });
    }
    let reports = Reports(reports);
    output.print(&reports)?;
    if reports.0.iter().all(|tested| tested.report.passed()) { Ok(()) } else { Err(Exit::Reported.into()) }
}

/// The XDP programs in the kernel, attached to nothing.
fn bench(object: Option<&Path>) -> Result<InKernel> {
    privilege::require("running tests at XDP", privilege::AFXDP)?;
    Bench::load(&paths::object(object)?).map(InKernel).map_err(loader_error)
}

fn one(policy: &Path, tests: &Path, includes: &[PathBuf], place: Where<'_>) -> Result<Report> {
    let text = input::read(policy)?;
    let name = policy.display().to_string();
    let in_tests = |why: &dyn std::fmt::Display| refused(format!("{}: {why}", tests.display()));
    let file = TestFile::parse(&input::read(tests)?).map_err(|error| in_tests(&error))?;
    let schema = tests.parent().unwrap_or(Path::new("")).join(&file.schema);
    let manifest = input::schema(&schema, includes)?;
    let source = Source { name: &name, text: &text };
    testing::run(&source, &file, &manifest, place).map_err(|failure| match failure {
        Failure::Policy(mistakes) => refused(mistakes),
        Failure::Test(why) => in_tests(&why),
        Failure::Kernel(why) => anyhow::anyhow!("{name}: at XDP: {why}"),
    })
}

struct InKernel(Bench);

fn words(error: tollfree_loader::Error) -> String {
    error.to_string()
}

impl Kernel for InKernel {
    fn load(&mut self, object: &[u8], generation: u64) -> Result<(), String> {
        self.0.policy(object, generation).map_err(words)
    }

    fn run(&mut self, frame: &[u8]) -> Result<Ran, String> {
        let tollfree_loader::Ran { action, frame, reasons } = self.0.run(frame).map_err(words)?;
        Ok(Ran { action, frame, reasons })
    }

    fn has(&self, map: &str) -> bool {
        self.0.has(map)
    }

    fn get(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.0.get(map, key).map_err(words)
    }

    fn entries(&self, map: &str) -> Result<Vec<KeyValue>, String> {
        self.0.entries(map).map_err(words)
    }

    fn set(&self, map: &str, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.0.set(map, key, value).map_err(words)
    }

    fn delete(&self, map: &str, key: &[u8]) -> Result<(), String> {
        self.0.delete(map, key).map_err(words)
    }
}

/// A report, and why the kernel had no part in it.
#[derive(Serialize)]
struct Tested {
    #[serde(flatten)]
    report: Report,
    skipped_at_xdp: Option<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Reports(Vec<Tested>);

impl Show for Reports {
    fn text(&self) -> String {
        let columns = [
            ("CASE", Align::Left),
            ("RESULT", Align::Left),
            ("VERDICT", Align::Left),
            ("EFFECTS", Align::Left),
            ("PLACE", Align::Left),
            ("RAN IN", Align::Left),
        ];
        let mut text = String::new();
        let mut cases = 0;
        let mut failed = 0;
        for Tested { report, .. } in &self.0 {
            let Report { policy, cases: results, tables } = report;
            text.push_str(&format!("{policy}\n"));
            text.push_str(&table(&columns, results.iter().map(row)));
            let wrong =
                results.iter().flat_map(|case| case.wrong.iter().map(move |wrong| (&case.name, wrong)));
            for (case, wrong) in wrong {
                text.push_str(&format!("  {case}: {wrong}\n"));
            }
            for wrong in tables {
                text.push_str(&format!("  behind the last case: {wrong}\n"));
            }
            text.push('\n');
            cases += results.len() as u64;
            failed += results.iter().filter(|case| !case.wrong.is_empty()).count() as u64;
            failed += u64::from(!tables.is_empty());
        }
        let policies = count(self.0.len() as u64, "policy").replace("policys", "policies");
        let at_xdp = self.0.iter().flat_map(|tested| &tested.report.cases);
        let at_xdp = at_xdp.filter(|case| case.ran.contains(&"xdp")).count() as u64;
        let cases = count(cases, "case");
        let skipped = self.0.iter().find_map(|tested| tested.skipped_at_xdp.as_ref());
        let at_xdp = match at_xdp {
            0 => String::new(),
            some => format!(" ({some} at XDP)"),
        };
        text.push_str(&format!("{policies}, {cases}{at_xdp}, {failed} failed\n"));
        text.extend(skipped.map(|why| format!("skipped at XDP: {why}\n")));
        text
    }
}

fn row(case: &CaseResult) -> Vec<String> {
    let CaseResult { name, verdicts, effects, places, ran, wrong } = case;
    let total: u64 = verdicts.values().sum();
    let times =
        |(name, number): (&String, &u64)| if total == 1 { name.clone() } else { format!("{number} {name}") };
    let listed = |map: &std::collections::BTreeMap<String, u64>| match map.is_empty() {
        true => "-".to_owned(),
        false => map.iter().map(times).collect::<Vec<_>>().join(", "),
    };
    let result = if wrong.is_empty() { "ok" } else { "FAILED" };
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let places = if places.is_empty() { "-".to_owned() } else { places.join("+") };
    vec![name.clone(), result.to_owned(), listed(verdicts), listed(effects), places, ran.join("+")]
}
