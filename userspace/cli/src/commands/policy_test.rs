//! `tollfree policy test`: the calls in a file, and what becomes of them.

use crate::exit::{Exit, refused};
use crate::input;
use crate::output::{Align, Output, Show, count, table};
use anyhow::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tollfree_policy::Source;
use tollfree_policy::testing::{self, CaseResult, Failure, Report, TestFile};

/// Runs the tests of policies; each has its own beside it unless one is given.
///
/// # Errors
/// Files that cannot be read or have mistakes; [`Exit::Reported`] where a case is not as expected.
pub fn run(policies: &[PathBuf], tests: Option<&Path>, includes: &[PathBuf], output: Output) -> Result<()> {
    if let (Some(tests), [_, _, ..]) = (tests, policies) {
        return Err(refused(format!(
            "{} can be for one policy only; without --tests each policy is tested by the file beside it",
            tests.display()
        )));
    }
    let reports: Result<Vec<Report>> = policies
        .iter()
        .map(|policy| {
            let beside = policy.with_extension("test");
            one(policy, tests.unwrap_or(&beside), includes)
        })
        .collect();
    let reports = Reports(reports?);
    output.print(&reports)?;
    if reports.0.iter().all(Report::passed) { Ok(()) } else { Err(Exit::Reported.into()) }
}

fn one(policy: &Path, tests: &Path, includes: &[PathBuf]) -> Result<Report> {
    let text = input::read(policy)?;
    let name = policy.display().to_string();
    let in_tests = |why: &dyn std::fmt::Display| refused(format!("{}: {why}", tests.display()));
    let file = TestFile::parse(&input::read(tests)?).map_err(|error| in_tests(&error))?;
    let schema = tests.parent().unwrap_or(Path::new("")).join(&file.schema);
    let manifest = input::schema(&schema, includes)?;
    testing::run(&Source { name: &name, text: &text }, &file, &manifest).map_err(|failure| match failure {
        Failure::Policy(mistakes) => refused(mistakes),
        Failure::Test(why) => in_tests(&why),
    })
}

#[derive(Serialize)]
#[serde(transparent)]
struct Reports(Vec<Report>);

impl Show for Reports {
    fn text(&self) -> String {
        let columns = [
            ("CASE", Align::Left),
            ("RESULT", Align::Left),
            ("VERDICT", Align::Left),
            ("EFFECTS", Align::Left),
            ("PLACE", Align::Left),
        ];
        let mut text = String::new();
        let mut cases = 0;
        let mut failed = 0;
        for report in &self.0 {
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
        text.push_str(&format!("{policies}, {}, {failed} failed\n", count(cases, "case")));
        text
    }
}

fn row(case: &CaseResult) -> Vec<String> {
    let CaseResult { name, verdicts, effects, places, wrong } = case;
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
    vec![name.clone(), result.to_owned(), listed(verdicts), listed(effects), places]
}
