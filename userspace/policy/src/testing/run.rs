//! Running the cases of a file one after the other, and holding what came of them against what was expected.

use super::block;
use super::calls::{Seen, World};
use super::file::{Case, Count, Expected, TestFile};
use crate::{Diagnostics, Source, notation};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tollfree_schema::Manifest;

/// What came of a file of tests.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The policy's file.
    pub policy: String,
    /// The cases, in order.
    pub cases: Vec<CaseResult>,
    /// What is wrong with the tables behind the last case.
    pub tables: Vec<String>,
}

/// What came of a case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its name.
    pub name: String,
    /// How often which verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Which effects, and how often.
    pub effects: BTreeMap<String, u64>,
    /// Where its calls are judged: of `xdp`, `session` and `engine` those that apply.
    pub places: BTreeSet<String>,
    /// What is not as expected; empty where the case has passed.
    pub wrong: Vec<String>,
}

/// Why a file of tests could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The policy has mistakes.
    #[error("{0}")]
    Policy(#[from] Diagnostics),
    /// The file of tests has.
    #[error("{0}")]
    Test(String),
}

impl Report {
    /// Whether everything is as expected.
    pub fn passed(&self) -> bool {
        self.tables.is_empty() && self.cases.iter().all(|case| case.wrong.is_empty())
    }
}

/// Runs a file's cases against a policy. A case that is not as expected does not keep the others from running.
///
/// # Errors
/// Where the policy or the file of tests has mistakes.
pub fn run(policy: &Source<'_>, test: &TestFile, schema: &Manifest) -> Result<Report, Failure> {
    let mut world = World::new(policy, test, schema)?;
    let mut cases = Vec::new();
    for case in &test.cases {
        let result = one(case, &mut world);
        cases.push(result.map_err(|why| Failure::Test(format!("case {:?}: {why}", case.name)))?);
    }
    let tables = world.table_differences(&test.tables_after);
    Ok(Report { policy: policy.name.to_owned(), cases, tables })
}

fn one(case: &Case, world: &mut World<'_>) -> Result<CaseResult, String> {
    if let Some(at) = &case.at {
        let at = notation::duration(at).ok_or_else(|| format!("{at:?} is no time, such as 10s"))?;
        world.advance(at)?;
    }
    let seen = world.make(case)?;
    let mut wrong = Vec::new();
    verdicts(case, &seen, &mut wrong)?;
    for (effect, count) in &case.effects {
        counted("effect", effect, count, seen.effects.get(effect).copied(), &mut wrong)?;
    }
    let Seen { method, request, answer, responses, audited, places, .. } = &seen;
    if let Some(wanted) = &case.expect_response
        && (responses.len() != 1 || !responses.contains_key(wanted))
    {
        wrong.push(format!("its response ended {}, not {wanted}", list(responses.keys())));
    }
    if let Some(wanted) = case.audited
        && wanted != *audited
    {
        wrong.push(format!("elements in audit mode would have refused {audited} calls, not {wanted}"));
    }
    if let Some(wanted) = case.place
        && !places.contains(wanted.name())
    {
        wrong.push(format!("it is judged in {}, not {}", list(places), wanted.name()));
    }
    wrong.extend(block::differences(&method.request, request, &case.fields_after)?);
    match answer {
        Some(answer) => wrong.extend(block::differences(&method.response, answer, &case.answer)?),
        None if case.answer.is_empty() => {}
        None => wrong.push("it was not answered by the policy".to_owned()),
    }
    wrong.extend(world.table_differences(&case.tables_after));
    let Seen { verdicts, effects, places, .. } = seen;
    Ok(CaseResult { name: case.name.clone(), verdicts, effects, places, wrong })
}

fn verdicts(case: &Case, seen: &Seen<'_>, wrong: &mut Vec<String>) -> Result<(), String> {
    match &case.expect {
        Expected::Always(wanted) => {
            if seen.verdicts.len() != 1 || !seen.verdicts.contains_key(wanted) {
                wrong.push(format!("it ended {}, not {wanted}", list(seen.verdicts.keys())));
            }
        }
        Expected::Counts(counts) => {
            for (verdict, count) in counts {
                counted("verdict", verdict, count, seen.verdicts.get(verdict).copied(), wrong)?;
            }
            for (verdict, count) in &seen.verdicts {
                if !counts.contains_key(verdict) {
                    wrong.push(format!("{count} calls ended {verdict}"));
                }
            }
        }
    }
    Ok(())
}

fn counted(
    what: &str,
    name: &str,
    count: &Count,
    found: Option<u64>,
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let (from, to) =
        count.bounds().ok_or_else(|| format!("{count} is no number of times; write 3 or \"3..5\""))?;
    let found = found.unwrap_or(0);
    if !(from..=to).contains(&found) {
        wrong.push(format!("{what} {name}: {found} times, not {count}"));
    }
    Ok(())
}

fn list<'n>(names: impl IntoIterator<Item = &'n String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "nowhere".to_owned() } else { names.join(" and ") }
}
