//! What the demo prints at the end.

use crate::show::Run;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use std::collections::BTreeSet;
use tollfree_demo::cli::Snapshot;

/// A row per user and protocol. What is allowed was judged where the policy is, `policy_at`.
pub fn calls(runs: &[Run], policy_at: &str) -> Table {
    let mut table = table(&[
        "user",
        "over",
        "calls",
        "allowed",
        "rejected",
        "failed",
        "verdict taken in",
        "p50 µs",
        "p99 µs",
        "server engine saw",
    ]);
    for Run { family, report, engine_received, xdp_rejects: _ } in runs {
        let mut places: BTreeSet<&str> = report.rejected.keys().map(String::as_str).collect();
        if report.allowed > 0 {
            places.insert(policy_at);
        }
        table.add_row([
            report.user.clone(),
            family.name().to_owned(),
            report.calls.to_string(),
            report.allowed.to_string(),
            report.rejected().to_string(),
            report.failed().to_string(),
            places.into_iter().collect::<Vec<_>>().join(", "),
            format!("{:.1}", report.p50_us),
            format!("{:.1}", report.p99_us),
            format!("{engine_received} packets"),
        ]);
    }
    align(&mut table, 2..6);
    align(&mut table, 7..10);
    table
}

/// What XDP on the server did with packets between two moments, by reason.
pub fn counters(before: &Snapshot, after: &Snapshot) -> Table {
    let mut table = table(&["XDP on the server", "packets"]);
    for (reason, count) in &after.xdp {
        let moved = count.saturating_sub(before.xdp(reason));
        if moved > 0 {
            table.add_row([reason.clone(), moved.to_string()]);
        }
    }
    align(&mut table, 1..2);
    table
}

/// A table with a head, as all of ours look.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    table
}

fn align(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// How a measurement's outcome is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// The middle of some values; of an even number of them the upper one. None of none.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
