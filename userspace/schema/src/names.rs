//! Names and places in descriptors: full names, and where in its file an item is.

use crate::descriptor::{File, Message};
use crate::error::Position;

/// Most characters of a name in a `.proto` file.
const NAME_MAX: usize = 128;

/// Most characters of a full name, package included: nesting multiplies names.
pub(crate) const FULL_NAME_MAX: usize = 512;

/// The text of a `.proto` file, for carets.
pub(crate) struct Text {
    /// The name under which descriptors know it.
    pub name: String,
    /// The path its author knows it by.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// A message with its full name (leading dot) and its path in the descriptor.
pub(crate) struct Found<'a> {
    /// Empty where it is refused.
    pub name: String,
    pub message: &'a Message,
    pub path: Vec<i32>,
}

/// All messages of a file, parents first. One whose name is refused comes without what is nested in it.
pub(crate) fn messages(file: &File) -> Vec<Found<'_>> {
    fn found<'a>(scope: &str, message: &'a Message, path: Vec<i32>) -> Found<'a> {
        let name = if is_name(&message.name) { format!("{scope}.{}", message.name) } else { String::new() };
        Found { name, message, path }
    }
    let scope = scope(file);
    let mut all: Vec<Found<'_>> =
        indexed(&file.message).map(|(index, message)| found(&scope, message, vec![4, index])).collect();
    let mut next = 0;
    while let Some(Found { name, message, path }) = all.get(next) {
        next += 1;
        if !name.is_empty() && name.len() <= FULL_NAME_MAX {
            let nested: Vec<_> = indexed(&message.nested)
                .map(|(index, message)| found(name, message, [path.as_slice(), &[3, index]].concat()))
                .collect();
            all.extend(nested);
        }
    }
    all
}

/// The package as a prefix of full names: `.demo`, or nothing.
pub(crate) fn scope(file: &File) -> String {
    if file.package.is_empty() { String::new() } else { format!(".{}", file.package) }
}

/// Items with their index as descriptors count it.
pub(crate) fn indexed<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0i32..).zip(items)
}

pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    name.len() <= NAME_MAX
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A full name without its leading dot.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

/// A name for people: descriptors may hold anything, terminals should not.
pub(crate) fn printable(name: &str) -> String {
    let mut text: String = name.escape_debug().take(80).collect();
    if text.is_empty() {
        text.push_str("(empty)");
    }
    text
}

/// Where `path` is in the file, or the nearest thing around it that has a place.
pub(crate) fn position(file: &File, path: &[i32], text: Option<&Text>) -> Option<Position> {
    let locations = &file.source.as_ref()?.location;
    let find = |path: &[i32]| locations.iter().find(|location| location.path == path);
    let span = (1..=path.len()).rev().find_map(|len| find(path.get(..len)?))?.span.as_slice();
    let (line, start, end) = match *span {
        [line, start, end] => (line, start, Some(end)),
        [line, start, _, _] => (line, start, None),
        _ => return None,
    };
    let line = u32::try_from(line).ok()?;
    let start = u32::try_from(start).ok()?;
    let text = text.and_then(|text| text.text.lines().nth(line as usize)).map(str::to_owned);
    let line_end = || text.as_ref().and_then(|text| u32::try_from(text.trim_end().chars().count()).ok());
    let end = end.and_then(|end| u32::try_from(end).ok()).or_else(line_end).unwrap_or(start);
    Some(Position {
        line: line.saturating_add(1),
        column: start.saturating_add(1),
        width: end.saturating_sub(start).max(1),
        text,
    })
}
