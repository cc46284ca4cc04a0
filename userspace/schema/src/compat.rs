//! Whether two peers that know different versions of a message understand each other.
//!
//! The rule is append-only: one side's flat fields are the beginning of the other's. Protobuf takes care of the
//! body, except that no field may be in the body on one side and in the flat block on the other: its value would be
//! lost without a word.

use crate::layout::{BodyField, Field, Layout};

/// How the other side's layout relates to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// The same flat fields.
    Same,
    /// Theirs is a prefix of ours: our newer fields are absent in what they send.
    TheirsIsOlder,
    /// Ours is a prefix of theirs: we skip what we do not know.
    TheirsIsNewer,
}

/// Two layouts that cannot be used together. Displays as a sentence naming the field and both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` of `{message}` is {ours} here and {theirs} at the peer")]
pub struct Incompatible {
    /// Full name of the message.
    pub message: String,
    /// The field the sides disagree about.
    pub field: String,
    /// What our side says.
    pub ours: String,
    /// What their side says.
    pub theirs: String,
}

impl Layout {
    /// Compares our layout with the peer's.
    ///
    /// # Errors
    /// Names the first field the two disagree about.
    pub fn compatible(&self, other: &Layout) -> Result<Compat, Incompatible> {
        let incompatible = |field: &str, ours: String, theirs: String| Incompatible {
            message: self.message.clone(),
            field: field.to_owned(),
            ours,
            theirs,
        };
        for (our, their) in self.fields.iter().zip(&other.fields) {
            if !same(our, their) {
                let name = if our.number <= their.number { &our.name } else { &their.name };
                return Err(incompatible(name, place(our), place(their)));
            }
        }
        let shared = self.fields.len().min(other.fields.len());
        if let Some((our, their)) = moved(&self.fields[shared..], &other.body) {
            return Err(incompatible(&our.name, place(our), body(their)));
        }
        if let Some((their, our)) = moved(&other.fields[shared..], &self.body) {
            return Err(incompatible(&their.name, body(our), place(their)));
        }
        Ok(match self.fields.len().cmp(&other.fields.len()) {
            std::cmp::Ordering::Equal => Compat::Same,
            std::cmp::Ordering::Greater => Compat::TheirsIsOlder,
            std::cmp::Ordering::Less => Compat::TheirsIsNewer,
        })
    }
}

/// Whether both sides read the same bytes as the same thing. Fingerprints would do among friends, but 32 bits can be
/// made to collide, and what one peer binds is remembered for others.
fn same(our: &Field, their: &Field) -> bool {
    let Field { name, number, kind, offset, width, fingerprint: _ } = our;
    (name, number, kind.tag(), offset, width)
        == (&their.name, &their.number, their.kind.tag(), &their.offset, &their.width)
}

/// The first flat field that the other side sends in the body.
fn moved<'a>(flat: &'a [Field], body: &'a [BodyField]) -> Option<(&'a Field, &'a BodyField)> {
    flat.iter().find_map(|field| Some((field, body.iter().find(|other| other.number == field.number)?)))
}

fn place(field: &Field) -> String {
    let Field { name, number, kind, offset, width: _, fingerprint: _ } = field;
    format!("`{name} = {number}` ({kind}, flat, at byte {offset})")
}

fn body(field: &BodyField) -> String {
    let BodyField { name, number, kind } = field;
    format!("`{name} = {number}` ({kind}, in the body)")
}
