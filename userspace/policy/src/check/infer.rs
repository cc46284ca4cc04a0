//! How a policy uses its tables, from which the types of those it does not declare follow.

use super::fields;
use crate::ast::{Arm, Element, Expression, ExpressionKind, Literal, PatternKind, Statement, StatementKind};
use crate::diagnostics::Span;
use crate::table::{KeyType, ValueType};
use std::collections::BTreeMap;
use tollfree_schema::Manifest;

/// Where a value comes from, as far as that tells its type.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Field(String),
    Table(String),
    Literal(Literal),
    /// Neither a variable nor a table: a name of an enum.
    Name(String),
    Unknown,
}

/// What is done with one table.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The place where it is mentioned first.
    pub first: Span,
    pub keys: Vec<(Origin, Span)>,
    /// Constants it is matched with, and values it is set to.
    pub values: Vec<(Origin, Span)>,
}

/// The uses of every table, in the order in which they are mentioned.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub tables: Vec<(String, Use)>,
    variables: Vec<(String, Origin)>,
}

/// Two uses of one table do not agree.
#[derive(Debug)]
pub(super) struct Conflict {
    pub span: Span,
    pub message: String,
    pub other: Option<(Span, String)>,
    /// The type of the first use, if it is the key that does not agree.
    pub key: Option<KeyType>,
}

impl Uses {
    pub(super) fn of<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Uses {
        let mut uses = Uses::default();
        for element in elements {
            for handler in [&element.request, &element.response].into_iter().flatten() {
                uses.variables.clear();
                uses.block(&handler.body);
            }
        }
        uses
    }

    fn block(&mut self, block: &[Statement]) {
        let outer = self.variables.len();
        for statement in block {
            match &statement.kind {
                StatementKind::Assign { name, value } => {
                    let origin = self.origin(value);
                    self.variables.push((name.text.clone(), origin));
                }
                StatementKind::Match { subject, arms } => {
                    let origin = self.origin(subject);
                    for arm in arms {
                        self.arm(arm, &origin);
                    }
                }
                StatementKind::Call(call) => {
                    if let (true, [table, key, rest @ ..]) =
                        (matches!(call.name.text.as_str(), "set" | "delete"), call.arguments.as_slice())
                    {
                        let name = self.key_use(table, key);
                        if let (Some(name), [value]) = (name, rest) {
                            let origin = self.origin(value);
                            self.value_use(&name, origin, value.span.clone());
                        }
                    }
                }
            }
        }
        self.variables.truncate(outer);
    }

    fn arm(&mut self, arm: &Arm, subject: &Origin) {
        let outer = self.variables.len();
        for pattern in &arm.patterns {
            let constant = match &pattern.kind {
                PatternKind::Any | PatternKind::Absent | PatternKind::Present(None) => continue,
                PatternKind::Present(Some(name)) => {
                    self.variables.push((name.text.clone(), subject.clone()));
                    continue;
                }
                PatternKind::Literal(literal) => Origin::Literal(literal.clone()),
                PatternKind::Name(name) => Origin::Name(name.clone()),
                PatternKind::Prefix(_) | PatternKind::Range(..) => Origin::Unknown,
            };
            if let Origin::Table(table) = subject {
                self.value_use(table, constant, pattern.span.clone());
            }
        }
        self.block(&arm.body);
        self.variables.truncate(outer);
    }

    fn origin(&mut self, expression: &Expression) -> Origin {
        match &expression.kind {
            ExpressionKind::Literal(literal) => Origin::Literal(literal.clone()),
            ExpressionKind::Name(name) => self.variable(name).unwrap_or_else(|| Origin::Name(name.clone())),
            ExpressionKind::Call(call) if call.name.text == "get" => match call.arguments.as_slice() {
                [from, field] if matches!(&from.kind, ExpressionKind::Name(name) if name == "rpc") => {
                    match &field.kind {
                        ExpressionKind::Literal(Literal::Text(name)) => Origin::Field(name.clone()),
                        _ => Origin::Unknown,
                    }
                }
                [table, key] => self.key_use(table, key).map_or(Origin::Unknown, Origin::Table),
                _ => Origin::Unknown,
            },
            _ => Origin::Unknown,
        }
    }

    fn variable(&self, name: &str) -> Option<Origin> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, origin)| origin.clone())
    }

    fn key_use(&mut self, table: &Expression, key: &Expression) -> Option<String> {
        let origin = self.origin(key);
        let ExpressionKind::Name(name) = &table.kind else { return None };
        if name == "rpc" || self.variable(name).is_some() {
            return None;
        }
        self.entry(name, &table.span).keys.push((origin, key.span.clone()));
        Some(name.clone())
    }

    fn value_use(&mut self, table: &str, origin: Origin, span: Span) {
        self.entry(table, &span).values.push((origin, span));
    }

    fn entry(&mut self, name: &str, span: &Span) -> &mut Use {
        let at = self.tables.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            let new = Use { first: span.clone(), keys: Vec::new(), values: Vec::new() };
            self.tables.push((name.to_owned(), new));
            self.tables.len() - 1
        });
        &mut self.tables[at].1
    }
}

/// The value types that follow from the uses, for the tables not in `known` yet. A table of which nothing is known
/// but whether it has a key holds bools.
pub(super) fn values(
    uses: &Uses,
    manifest: &Manifest,
    known: &BTreeMap<String, ValueType>,
) -> (BTreeMap<String, ValueType>, Vec<Conflict>) {
    let mut types = known.clone();
    let mut conflicts = Vec::new();
    // A value may come from another table, whose type must be found first; tables whose values come from each other
    // end up as bools, or in a type error where that is wrong.
    for round in 0..=uses.tables.len() {
        let last = round == uses.tables.len();
        for (name, table) in &uses.tables {
            if types.contains_key(name) {
                continue;
            }
            match value(table, manifest, &types, last) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    types.insert(name.clone(), found);
                }
                Err(conflict) => {
                    conflicts.push(conflict);
                    types.insert(name.clone(), ValueType::Bool);
                }
            }
        }
    }
    (types, conflicts)
}

fn value(
    table: &Use,
    manifest: &Manifest,
    types: &BTreeMap<String, ValueType>,
    last: bool,
) -> Result<Option<ValueType>, Conflict> {
    let mut names: Vec<(String, Span)> = Vec::new();
    let mut numbers: Vec<(bool, Span)> = Vec::new();
    let mut found: Option<(ValueType, Span)> = None;
    for (origin, span) in &table.values {
        let this = match origin {
            Origin::Name(name) => {
                names.push((name.clone(), span.clone()));
                continue;
            }
            Origin::Literal(Literal::Number { negative, .. }) => {
                numbers.push((*negative, span.clone()));
                continue;
            }
            Origin::Literal(Literal::Bool(_)) => ValueType::Bool,
            Origin::Literal(Literal::Text(_)) => {
                return Err(Conflict {
                    span: span.clone(),
                    message: "tables hold bools, whole numbers or names, not text".into(),
                    other: None,
                    key: None,
                });
            }
            Origin::Field(name) => match fields::find(manifest, name).ok().map(|field| value_of(&field.kind))
            {
                Some(Some(kind)) => kind,
                Some(None) => {
                    return Err(Conflict {
                        span: span.clone(),
                        message: "tables hold bools, whole numbers or names of their own, not a field's text, bytes or enum".into(),
                        other: None, key: None,
                    });
                }
                None => continue,
            },
            Origin::Table(other) => match types.get(other) {
                Some(kind) => kind.clone(),
                None if last => continue,
                None => return Ok(None),
            },
            Origin::Literal(_) | Origin::Unknown => continue,
        };
        match &found {
            None => found = Some((this, span.clone())),
            Some((first, _)) if *first == this => {}
            Some((first, place)) => return Err(disagree(span, &this.to_string(), place, &first.to_string())),
        }
    }
    let name = names.first().map(|(_, span)| span.clone());
    let number = numbers.first().map(|(_, span)| span.clone());
    match (found, name, number) {
        (None, Some(name), Some(number)) => Err(disagree(&number, "a number", &name, "a name")),
        (None, Some(_), None) => Ok(Some(ValueType::enumeration(names.into_iter().map(|(name, _)| name)))),
        (None, None, Some(_)) if numbers.iter().any(|(negative, _)| *negative) => Ok(Some(ValueType::I64)),
        (None, None, Some(_)) => Ok(Some(ValueType::U64)),
        (None, None, None) => Ok(Some(ValueType::Bool)),
        // Constants must fit the type found; that is checked where they stand.
        (Some((kind, _)), _, _) => Ok(Some(kind)),
    }
}

fn disagree(span: &Span, this: &str, place: &Span, first: &str) -> Conflict {
    Conflict {
        span: span.clone(),
        message: format!("this table holds {first} elsewhere, but {this} here"),
        other: Some((place.clone(), format!("{first} here"))),
        key: None,
    }
}

/// The key type that follows from the uses; `None` where there is none.
pub(super) fn key(
    table: &Use,
    manifest: &Manifest,
    types: &BTreeMap<String, ValueType>,
) -> Result<Option<KeyType>, Conflict> {
    let mut found: Option<(KeyType, Span)> = None;
    let mut literal: Option<KeyType> = None;
    for (origin, span) in &table.keys {
        let this = match origin {
            Origin::Field(name) => match fields::find(manifest, name) {
                Ok(field) => field.kind,
                Err(_) => continue,
            },
            Origin::Table(name) => match types.get(name) {
                Some(kind) => kind_of(kind),
                None => continue,
            },
            Origin::Literal(constant) => {
                let this = match constant {
                    Literal::Bool(_) => KeyType::Bool,
                    Literal::Number { negative: true, .. } => KeyType::I64,
                    Literal::Number { .. } => KeyType::U64,
                    Literal::Text(text) => {
                        KeyType::String { max_len: u8::try_from(text.len()).unwrap_or(u8::MAX) }
                    }
                    _ => continue,
                };
                literal = match literal {
                    Some(before) => fields::join(&before, &this).or(Some(before)),
                    None => Some(this),
                };
                continue;
            }
            Origin::Name(_) | Origin::Unknown => continue,
        };
        found = Some(match found {
            None => (this, span.clone()),
            Some((first, place)) => match fields::join(&first, &this) {
                Some(both) => (both, place),
                None => {
                    return Err(Conflict {
                        span: span.clone(),
                        message: format!("this table is looked up by {first} elsewhere, but by {this} here"),
                        other: Some((place, format!("{first} here"))),
                        key: Some(first),
                    });
                }
            },
        });
    }
    Ok(match (found, literal) {
        (Some((found, _)), Some(literal)) => fields::join(&found, &literal).or(Some(found)),
        (found, literal) => found.map(|(kind, _)| kind).or(literal),
    })
}

/// The kind of values read from a table.
pub(super) fn kind_of(value: &ValueType) -> KeyType {
    match value {
        ValueType::Bool => KeyType::Bool,
        ValueType::U32 => KeyType::U32,
        ValueType::U64 => KeyType::U64,
        ValueType::I32 => KeyType::I32,
        ValueType::I64 => KeyType::I64,
        ValueType::Enum { values } => KeyType::Enum { values: values.clone() },
        ValueType::F64 => KeyType::F64,
        ValueType::Duration | ValueType::Bucket => KeyType::Duration,
        ValueType::String { max_len } => KeyType::String { max_len: *max_len },
        ValueType::Bytes { max_len } => KeyType::Bytes { max_len: *max_len },
        ValueType::Fixed { len } => KeyType::Fixed { len: *len },
    }
}

/// The type of table that can hold values of a kind.
fn value_of(kind: &KeyType) -> Option<ValueType> {
    Some(match kind {
        KeyType::Bool => ValueType::Bool,
        KeyType::U32 => ValueType::U32,
        KeyType::U64 => ValueType::U64,
        KeyType::I32 => ValueType::I32,
        KeyType::I64 => ValueType::I64,
        _ => return None,
    })
}
