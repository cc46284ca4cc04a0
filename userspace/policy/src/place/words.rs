//! The reasons for a place, in words.

use crate::cost;
use crate::effects::Effects;
use crate::explain::{Place, ResponsePlace};
use crate::ir::{Element, Policy};
use std::collections::BTreeSet;

/// Why an element is in XDP.
pub(super) fn reason(element: &Element, effects: &Effects) -> String {
    if element.request.is_none() {
        return "does nothing to requests".to_owned();
    }
    let Effects { fields, fields_written, tables_read, tables_written, session, peer, .. } = effects;
    let mut parts = Vec::new();
    if !fields.is_empty() {
        parts.push(format!("reads only flat fields of the request ({})", list(fields)));
    }
    if !fields_written.is_empty() {
        parts.push(format!("writes flat fields in place ({})", list(fields_written)));
    }
    if *peer {
        parts.push("asks who calls, which XDP knows per session".to_owned());
    }
    if !tables_read.is_empty() {
        parts.push(format!("looks up {}", list(tables_read)));
    }
    if !tables_written.is_empty() {
        parts.push(format!("changes {}", list(tables_written)));
    }
    if *session {
        parts.push("reads and updates the session table, which XDP keeps".to_owned());
    }
    if parts.is_empty() {
        parts.push("needs nothing but the base header".to_owned());
    }
    parts.join(", ")
}

/// Why an element is decided per session.
pub(super) fn decided(effects: &Effects) -> String {
    let who = if effects.peer { "who calls which method" } else { "which method is called" };
    format!("depends only on {who}: decided once per session, XDP reads the verdict")
}

/// Where an element's response handler runs.
pub(super) fn response(element: &Element, effects: &Effects, policy: &Policy) -> ResponsePlace {
    let Effects { tables_read, tables_written, .. } = effects;
    ResponsePlace {
        place: Place::Engine,
        why: "responses leave through the engine".to_owned(),
        cost_ns: cost::of_response(element, policy),
        tables_read: tables_read.iter().cloned().collect(),
        tables_written: tables_written.iter().cloned().collect(),
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
