//! The types of tables that follow from their uses, for those that a policy does not declare.

use super::kind::{Kind, Length, Names};
use super::uses::{Origin, Use, Uses};
use crate::ast::Literal;
use crate::diagnostics::Span;
use crate::table::ValueType;
use std::collections::HashMap;

/// Two uses of one table do not agree.
#[derive(Debug)]
pub(super) struct Conflict {
    pub span: Span,
    pub message: String,
    pub other: Option<(Span, String)>,
    /// The type of the first use, which keeps the rest going.
    pub first: Option<Kind>,
}

/// The value types that follow from the uses, for the tables not in `types` yet. A table of which nothing is known but
/// whether it has a key holds bools.
pub(super) fn values(uses: &Uses, types: &mut HashMap<String, Kind>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    // A value may come from another table, whose type must be found first; tables whose values come from each other
    // end up as bools, or in a type error where that is wrong.
    let mut last = false;
    loop {
        let before = types.len();
        for (name, table) in &uses.tables {
            if types.contains_key(name) || table.bucket.is_some() {
                continue;
            }
            match value(table, types, last) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    types.insert(name.clone(), found);
                }
                Err(conflict) => {
                    types.insert(name.clone(), conflict.first.clone().unwrap_or(Kind::Bool));
                    conflicts.push(conflict);
                }
            }
        }
        if last {
            return conflicts;
        }
        last = types.len() == before;
    }
}

fn value(table: &Use, types: &HashMap<String, Kind>, last: bool) -> Result<Option<Kind>, Conflict> {
    let mut names: Vec<(&str, &Span)> = Vec::new();
    let mut number: Option<(bool, &Span)> = None;
    let mut found: Option<(Kind, &Span)> = None;
    for (origin, span) in &table.values {
        let this = match origin {
            Origin::Name(name) => {
                names.push((name, span));
                continue;
            }
            Origin::Literal(Literal::Number { negative, .. }) => {
                let known = number.get_or_insert((*negative, span));
                known.0 |= negative;
                continue;
            }
            Origin::Literal(literal) => match kind_of(literal) {
                Some(kind) => kind,
                None => continue,
            },
            Origin::Kind(kind) => kind.clone(),
            Origin::Table(other) => match types.get(other) {
                Some(kind) => kind.clone(),
                None if last => continue,
                None => return Ok(None),
            },
            Origin::Unknown => continue,
        };
        if this.value_type().is_none() {
            let message = match this {
                Kind::Enum(_) => "a field's enum cannot be kept in a table: it could be any number".into(),
                other => format!("{other} cannot be kept in a table"),
            };
            return Err(Conflict { span: span.clone(), message, other: None, first: None });
        }
        found = Some(match found {
            None => (this, span),
            Some((first, place)) => match joined(&first, &this) {
                Some(both) => (both, place),
                None => {
                    let conflict = disagree(span, &this.to_string(), place, &first.to_string());
                    return Err(Conflict { first: Some(first), ..conflict });
                }
            },
        });
    }
    let name = names.first().map(|(_, span)| *span);
    match (found, name, number) {
        (None, Some(name), Some((_, number))) => Err(disagree(number, "a number", name, "a name")),
        (None, Some(_), None) => {
            let names: Vec<String> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
            Ok(Some(enumeration(names)))
        }
        (None, None, Some((true, _))) => Ok(Some(Kind::I64)),
        (None, None, Some((false, _))) => Ok(Some(Kind::U64)),
        (None, None, None) => Ok(Some(Kind::Bool)),
        // Constants must fit the type found; that is checked where they stand.
        (Some((kind, _)), _, _) => Ok(Some(kind)),
    }
}

/// A made-up enum of these names, numbered in the order of their letters.
pub(super) fn enumeration(names: Vec<String>) -> Kind {
    match ValueType::enumeration(names) {
        ValueType::Enum { values } => Kind::Enum(Names::new(values, true)),
        _ => Kind::Bool,
    }
}

fn kind_of(literal: &Literal) -> Option<Kind> {
    Some(match literal {
        Literal::Bool(_) => Kind::Bool,
        Literal::Number { negative: true, .. } => Kind::I64,
        Literal::Number { negative: false, .. } => Kind::U64,
        Literal::Float(_) => Kind::Float,
        Literal::Text(text) => Kind::Text(Length::AtMost(u8::try_from(text.len()).unwrap_or(u8::MAX).max(1))),
        Literal::Duration(_) => Kind::Duration,
        Literal::Percent(_) => Kind::Percent,
        Literal::Rate(_) => return None,
    })
}

/// The type that two values of a table have together: numbers of one sign share the wider one.
fn joined(a: &Kind, b: &Kind) -> Option<Kind> {
    a.join(b).or_else(|| (a.widened() == b.widened()).then(|| a.widened()))
}

fn disagree(span: &Span, this: &str, place: &Span, first: &str) -> Conflict {
    Conflict {
        span: span.clone(),
        message: format!("this table holds {first} elsewhere, but {this} here"),
        other: Some((place.clone(), format!("{first} here"))),
        first: None,
    }
}

/// The type of one part of a key that follows from the uses; `None` where there is none.
pub(super) fn key(uses: &[(Origin, Span)], types: &HashMap<String, Kind>) -> Result<Option<Kind>, Conflict> {
    let mut found: Option<(Kind, &Span)> = None;
    let mut literal: Option<Kind> = None;
    for (origin, span) in uses {
        let this = match origin {
            Origin::Kind(kind) => kind.clone(),
            Origin::Table(name) => match types.get(name) {
                Some(kind) => kind.clone(),
                None => continue,
            },
            Origin::Literal(constant) => {
                if let Some(this) = kind_of(constant) {
                    literal = match literal {
                        Some(before) => before.join(&this).or(Some(before)),
                        None => Some(this),
                    };
                }
                continue;
            }
            Origin::Name(_) | Origin::Unknown => continue,
        };
        found = Some(match found {
            None => (this, span),
            Some((first, place)) => match joined(&first, &this) {
                Some(both) => (both, place),
                None => {
                    return Err(Conflict {
                        span: span.clone(),
                        message: format!("this table is looked up by {first} elsewhere, but by {this} here"),
                        other: Some((place.clone(), format!("{first} here"))),
                        first: Some(first),
                    });
                }
            },
        });
    }
    Ok(match (found, literal) {
        (Some((found, _)), Some(literal)) => found.join(&literal).or(Some(found)),
        (found, literal) => found.map(|(kind, _)| kind).or(literal),
    })
}
