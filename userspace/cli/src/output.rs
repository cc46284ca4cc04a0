//! Prints state: aligned tables for people, JSON for programs. Every command that shows state goes through here, so
//! that `-o json` is the same data, whole.

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::io::Write;

/// In which form state is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON value; its fields are stable.
    Json,
}

/// The `-o` option.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Output {
    /// How to print: for people, or as one JSON value whose fields are stable
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Something that can be shown to people as text; programs get its serialisation.
pub trait Show: Serialize {
    /// The text, with its last newline.
    fn text(&self) -> String;
}

impl Output {
    /// Prints in the form asked for.
    pub fn print(self, value: &impl Show) -> Result<()> {
        match self.format {
            Format::Table => self.text(&value.text()),
            Format::Json => self.json(value),
        }
    }

    /// Prints one JSON value.
    pub fn json(self, value: &impl Serialize) -> Result<()> {
        self.text(&format!("{}\n", serde_json::to_string_pretty(value)?))
    }

    /// Prints text. A reader that has gone (`| head`) is no error.
    pub fn text(self, text: &str) -> Result<()> {
        match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// Aligned columns without borders, two spaces apart, as kubectl prints them.
pub fn table(columns: &[(&str, Align)], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns.iter().map(|(name, _)| *name));
    for row in rows {
        table.add_row(row);
    }
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    lines(&table.to_string())
}

/// Names and values in two columns, for one thing's facts.
pub fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([format!("{name}:"), value]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    lines(&table.to_string())
}

fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `1 call`, `2 calls`.
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(
            &[("NAME", Align::Left), ("CALLS", Align::Right)],
            [vec!["hash".into(), "7".into()], vec!["a-longer-name".into(), "12345".into()]],
        );
        assert_eq!(text, "NAME           CALLS\nhash               7\na-longer-name  12345\n");
        assert_eq!(
            facts([("mode", "native".into()), ("port", "7400".into())]),
            "mode:  native\nport:  7400\n"
        );
    }
}
