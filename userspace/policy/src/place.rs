//! Where each element runs, and why.

use crate::effects::{self, Effects};
use crate::explain::Place;
use crate::ir::{Policy, Side};

/// One element's place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub place: Place,
    pub why: String,
    pub effects: Effects,
}

/// The places of a policy's elements, in the chain's order. `xdp` says whether XDP programs run in front of the
/// engine, `fits` whether the emitted program is short enough.
pub(crate) fn place(policy: &Policy, xdp: bool, fits: bool) -> Vec<Placed> {
    let mut engine_since: Option<&str> = None;
    let mut placed = Vec::new();
    for element in &policy.elements {
        let effects = effects::of(element, policy);
        let obstacle = if policy.side == Side::Client {
            Some("requests leave at the client's side, and XDP sees only what arrives".to_owned())
        } else if !xdp {
            Some("no XDP program runs in front of this engine".to_owned())
        } else if !fits {
            Some("the policy is too long for one XDP program".to_owned())
        } else {
            // A chain keeps its order.
            engine_since.map(|name| format!("comes after {name}(), which is in the engine"))
        };
        let (place, why) = match obstacle {
            Some(why) => {
                engine_since = engine_since.or(Some(&element.name));
                (Place::Engine, why)
            }
            None => (Place::XdpIngress, reason(&effects)),
        };
        placed.push(Placed { place, why, effects });
    }
    placed
}

fn reason(effects: &Effects) -> String {
    let Effects { fields, tables_read, tables_written, session, stops: _ } = effects;
    let list = |names: &std::collections::BTreeSet<String>| {
        names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    if !fields.is_empty() {
        parts.push(format!("reads only flat fields of the request ({})", list(fields)));
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
