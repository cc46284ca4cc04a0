//! `tollfree policy diff`: what would change if a policy were applied.

use super::policy::{Means, side_asked};
use crate::admin::{InForceView, Request};
use crate::args::{PolicyInput, Target};
use crate::daemon::config::Side;
use crate::input::Policy;
use crate::output::{Output, Show};
use crate::paths::Places;
use anyhow::Result;
use serde::Serialize;
use tollfree_policy::{Compiled, Options, TableSpec};

/// What would change at one side.
#[derive(Serialize)]
struct Diff {
    at: Side,
    /// The file in force; null without one.
    in_force: Option<String>,
    elements: Vec<Change>,
    tables: Vec<Change>,
    transport: Vec<Change>,
    /// The typed form, line by line: those that go begin with `-`, those that come with `+`. Empty where nothing changes.
    statements: Vec<String>,
}

/// What becomes of one thing; a side of it that is not there is null.
#[derive(Serialize, PartialEq, Eq)]
struct Change {
    name: String,
    before: Option<String>,
    after: Option<String>,
    /// Of tables: whether their entries stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<bool>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Diffs(Vec<Diff>);

/// Compares a policy with what is in force.
pub fn run(input: &PolicyInput, target: &Target, output: Output, places: &Places) -> Result<()> {
    let policy = Policy::read(input)?;
    let mut means = Means::of(target, places)?;
    let interface = match &mut means {
        Means::Pins(_) => target.interface.clone(),
        Means::Daemon(client) => client.ask(&Request::Interface)?,
    };
    // As the daemon compiles it: without an interface there is no XDP.
    let options = Options { xdp: interface.is_some(), interface: interface.as_deref(), ..Options::default() };
    let mut diffs = Vec::new();
    for after in policy.compile_sides(side_asked(target), options, output)? {
        let at = match after.side {
            tollfree_policy::Side::Server => Side::Server,
            tollfree_policy::Side::Client => Side::Client,
        };
        let in_force: Option<InForceView> = match &mut means {
            Means::Pins(interface) => interface.record()?.map(InForceView::from),
            Means::Daemon(client) => client.ask(&Request::PolicyInForce { at })?,
        };
        let before = in_force.map(|InForceView { name, text, manifest }| Policy { name, text, manifest });
        let side = Some(after.side);
        let compiled = before.as_ref().and_then(|old| old.compile(Options { side, ..options }).ok());
        let statements = match &before {
            Some(old) => lines(&old.ir_or_show(after.side, output)?, &policy.ir_or_show(after.side, output)?),
            None => lines("", &policy.ir_or_show(after.side, output)?),
        };
        diffs.push(diff(at, before.map(|old| old.name), compiled.as_ref(), &after, statements));
    }
    output.print(&Diffs(diffs))
}

fn diff(
    at: Side,
    in_force: Option<String>,
    before: Option<&Compiled>,
    after: &Compiled,
    statements: Vec<String>,
) -> Diff {
    let places = |compiled: &Compiled| -> Vec<(String, String)> {
        let elements = compiled.explain.elements.iter();
        elements.map(|element| (element.name.clone(), element.place.to_string())).collect()
    };
    let carried = |compiled: &Compiled| -> Vec<(String, String)> {
        let methods = compiled.explain.transport.iter();
        methods.map(|method| (method.method.clone(), method.modules.join(" -> "))).collect()
    };
    // A file without chains, or without a transport block, leaves those in force as they are.
    let elements = match (before, after.explain.elements.is_empty()) {
        (_, true) => Vec::new(),
        (before, false) => changes(before.map(places).unwrap_or_default(), places(after)),
    };
    let transport = match (before, after.explain.transport.is_empty()) {
        (_, true) => Vec::new(),
        (before, false) => changes(before.map(carried).unwrap_or_default(), carried(after)),
    };
    let mut tables = Vec::new();
    if !after.explain.elements.is_empty() {
        let (old, new) = (before.map_or(&[][..], |before| &before.tables), &after.tables[..]);
        let shown = |spec: &TableSpec| format!("{} -> {}, {} entries", spec.key, spec.value, spec.capacity);
        tables = changes(
            old.iter().map(|spec| (spec.name.clone(), shown(spec))).collect(),
            new.iter().map(|spec| (spec.name.clone(), shown(spec))).collect(),
        );
        for change in &mut tables {
            let find = |specs: &[TableSpec]| specs.iter().find(|spec| spec.name == change.name).cloned();
            change.kept = find(old).map(|old| {
                find(new).is_some_and(|new| new.meaning() == old.meaning() && new.capacity == old.capacity)
            });
        }
    }
    Diff { at, in_force, elements, tables, transport, statements }
}

/// Pairs things of one name up, in the order of what is to be, then what goes. Of several of one name the first are one.
fn changes(mut before: Vec<(String, String)>, after: Vec<(String, String)>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, now) in after {
        let was = before.iter().position(|(old, _)| *old == name).map(|at| before.remove(at).1);
        changes.push(Change { name, before: was, after: Some(now), kept: None });
    }
    changes.extend(before.into_iter().map(|(name, was)| Change {
        name,
        before: Some(was),
        after: None,
        kept: None,
    }));
    changes
}

/// What differs between two texts, line by line, by their longest common subsequence; nothing where they are the same.
fn lines(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // common[i][j]: the length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut changed) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            changed.push(format!("-{}", old[i]));
            i += 1;
        } else {
            changed.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    changed
}

impl Show for Diffs {
    fn text(&self) -> String {
        self.0.iter().map(show).collect::<Vec<_>>().join("\n")
    }
}

fn show(diff: &Diff) -> String {
    let Diff { at, in_force, elements, tables, transport, statements } = diff;
    let before = in_force.as_deref().unwrap_or("no policy");
    let mut text = format!("at the {}, compared with {before} in force:\n", at.name());
    let all = [("element", elements), ("table", tables), ("transport of", transport)];
    for (what, changes) in all {
        for Change { name, before, after, kept } in changes {
            let said = match (before, after) {
                (Some(was), Some(now)) if was == now => format!("stays: {now}"),
                (Some(was), Some(now)) => format!("{was} becomes {now}"),
                (None, Some(now)) => format!("new: {now}"),
                (Some(was), None) => format!("goes: {was}"),
                (None, None) => continue,
            };
            let entries = match kept {
                Some(true) => ", keeps its entries",
                Some(false) => ", loses its entries",
                None => "",
            };
            text.push_str(&format!("  {what} {name} {said}{entries}\n"));
        }
    }
    match statements.is_empty() {
        true => text.push_str("  every statement stays as it is\n"),
        false => statements.iter().for_each(|line| text.push_str(&format!("  {line}\n"))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_stay_are_not_shown() {
        assert_eq!(lines("a\nb\nc\n", "a\nc\nd\n"), ["-b", "+d"]);
        assert!(lines("a\nb", "a\nb").is_empty());
        assert_eq!(lines("", "a"), ["+a"]);
    }

    #[test]
    fn things_are_paired_by_name() {
        let named = |name: &str, what: &str| (name.to_owned(), what.to_owned());
        let found = changes(
            vec![named("a", "engine"), named("gone", "engine")],
            vec![named("a", "XDP ingress"), named("new", "engine")],
        );
        let pairs: Vec<(&str, bool, bool)> =
            found.iter().map(|one| (&one.name[..], one.before.is_some(), one.after.is_some())).collect();
        assert_eq!(pairs, [("a", true, true), ("new", false, true), ("gone", true, false)]);
    }
}
