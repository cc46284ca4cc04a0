//! Running the cases of a file one after the other, in the engine and in the kernel, and holding what came of them against
//! what was expected, and one place against the other.

use super::block;
use super::calls::{Seen, Tables, World};
use super::file::{Case, Count, Expected, TestFile};
use super::kernel::Kernel;
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
    /// Where the calls were made: in the `engine`'s evaluator, by the `xdp` programs in the kernel.
    pub ran: Vec<&'static str>,
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
    /// The kernel does not take the policy.
    #[error("{0}")]
    Kernel(String),
}

/// Where the calls of a test are made.
pub enum Where<'k> {
    /// In the engine's evaluator.
    Engine,
    /// By the programs in the kernel, with the engine behind them for what they leave to it.
    Xdp(&'k mut dyn Kernel),
    /// In both, and the same must come of it.
    Both(&'k mut dyn Kernel),
}

/// A case's result, and what can be held against the other place's.
struct Made {
    result: CaseResult,
    in_kernel: bool,
    audited: u32,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
    tables: Tables,
}

/// What came of a file's cases in one place.
struct Pass {
    cases: Vec<Made>,
    tables: Vec<String>,
    repeatable: bool,
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
pub fn run(
    policy: &Source<'_>,
    test: &TestFile,
    schema: &Manifest,
    place: Where<'_>,
) -> Result<Report, Failure> {
    let Pass { cases, tables, .. } = match place {
        Where::Engine => pass(policy, test, schema, None)?,
        Where::Xdp(kernel) => pass(policy, test, schema, Some(kernel))?,
        Where::Both(kernel) => {
            let engine = pass(policy, test, schema, None)?;
            both(engine, pass(policy, test, schema, Some(kernel))?)
        }
    };
    let cases = cases.into_iter().map(|made| made.result).collect();
    Ok(Report { policy: policy.name.to_owned(), cases, tables })
}

fn pass(
    policy: &Source<'_>,
    test: &TestFile,
    schema: &Manifest,
    kernel: Option<&mut dyn Kernel>,
) -> Result<Pass, Failure> {
    let mut world = World::new(policy, test, schema, kernel)?;
    let mut cases = Vec::new();
    for case in &test.cases {
        let made = one(case, &mut world);
        cases.push(made.map_err(|why| Failure::Test(format!("case {:?}: {why}", case.name)))?);
    }
    let tables = world.table_differences(&test.tables_after);
    Ok(Pass { cases, tables, repeatable: world.is_repeatable() })
}

/// What came of the cases in both places: what is wrong in either, and where the two differ.
fn both(engine: Pass, xdp: Pass) -> Pass {
    let repeatable = engine.repeatable;
    let met = xdp.cases.iter().any(|made| made.in_kernel);
    let tables = if met { merged(engine.tables, xdp.tables) } else { engine.tables };
    let cases = engine.cases.into_iter().zip(xdp.cases).map(|(engine, xdp)| match xdp.in_kernel {
        true => in_both(engine, xdp, repeatable),
        false => engine,
    });
    Pass { cases: cases.collect(), tables, repeatable }
}

fn in_both(engine: Made, xdp: Made, repeatable: bool) -> Made {
    let mut differs = Vec::new();
    if repeatable {
        let mut hold = |what: &str, same: bool, engine: String, xdp: String| {
            if !same {
                differs.push(format!("{what}: {engine} in the engine, {xdp} at XDP"));
            }
        };
        let (one, other) = (&engine.result, &xdp.result);
        let counts = |map: &BTreeMap<String, u64>| {
            let all: Vec<String> = map.iter().map(|(what, count)| format!("{count} {what}")).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        hold("verdicts", one.verdicts == other.verdicts, counts(&one.verdicts), counts(&other.verdicts));
        hold("effects", one.effects == other.effects, counts(&one.effects), counts(&other.effects));
        let (a, b) = (engine.audited, xdp.audited);
        hold("refusals in audit mode", a == b, a.to_string(), b.to_string());
        let (a, b) = (&engine.request, &xdp.request);
        hold("the request's fields", a == b, format!("{a:02x?}"), format!("{b:02x?}"));
        let (a, b) = (&engine.answer, &xdp.answer);
        hold("the answer's fields", a == b, format!("{a:02x?}"), format!("{b:02x?}"));
        for (table, entries) in &engine.tables {
            let there = xdp.tables.get(table);
            hold(&format!("table {table}"), there == Some(entries), listed(Some(entries)), listed(there));
        }
    }
    let wrong = merged(engine.result.wrong, xdp.result.wrong).into_iter().chain(differs).collect();
    Made { result: CaseResult { wrong, ran: vec!["engine", "xdp"], ..engine.result }, ..xdp }
}

/// A table's entries in a message: a few of them.
fn listed(entries: Option<&Vec<(String, String)>>) -> String {
    const SHOWN: usize = 4;
    let Some(entries) = entries else { return "no such table".to_owned() };
    let mut shown: Vec<String> =
        entries.iter().take(SHOWN).map(|(key, value)| format!("[{key}] = {value}")).collect();
    if entries.len() > SHOWN {
        shown.push(format!("{} more", entries.len() - SHOWN));
    }
    if shown.is_empty() { "empty".to_owned() } else { shown.join(", ") }
}

/// What is wrong in both places, once; else where.
fn merged(engine: Vec<String>, xdp: Vec<String>) -> Vec<String> {
    if engine == xdp {
        return engine;
    }
    let engine = engine.into_iter().map(|wrong| format!("in the engine, {wrong}"));
    engine.chain(xdp.into_iter().map(|wrong| format!("at XDP, {wrong}"))).collect()
}

fn one(case: &Case, world: &mut World<'_, '_>) -> Result<Made, String> {
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
    let tables = world.tables()?;
    let Seen { verdicts, effects, places, audited, request, answer, in_kernel, .. } = seen;
    let ran = vec![if in_kernel { "xdp" } else { "engine" }];
    let result = CaseResult { name: case.name.clone(), verdicts, effects, places, ran, wrong };
    Ok(Made { result, in_kernel, audited, request, answer, tables })
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
