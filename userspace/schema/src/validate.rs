//! Whether the bytes of a flat block are what a generated stub writes.
//!
//! A policy compares whole fields; a service reads values. Bytes that are two things to the two, such as garbage
//! behind the end of a string, would let a caller show one user to the firewall and another to the service. Engines
//! check what arrives before an application sees it.

use crate::layout::{Field, FieldKind, Layout};

/// A flat field whose bytes no stub writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flat field `{field}` of `{message}` {reason}")]
pub struct Malformed {
    /// Full name of the message.
    pub message: String,
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Layout {
    /// Checks every field that `block` has whole. The block may be shorter or longer than the layout: what it does
    /// not have is absent, what the layout does not know is not looked at.
    ///
    /// # Errors
    /// Names the first field that is malformed.
    pub fn validate(&self, block: &[u8]) -> Result<(), Malformed> {
        for field in &self.fields {
            let Some(bytes) = block.get(usize::from(field.offset)..usize::from(field.end())) else {
                // Later fields end later still. A field that is cut off reads as absent everywhere.
                return Ok(());
            };
            if let Err(reason) = check(field, bytes) {
                return Err(Malformed { message: self.message.clone(), field: field.name.clone(), reason });
            }
        }
        Ok(())
    }
}

fn check(field: &Field, bytes: &[u8]) -> Result<(), &'static str> {
    let value = |bytes: &[u8]| -> Option<(usize, bool)> {
        let (length, room) = bytes.split_first()?;
        let (value, padding) = room.split_at_checked(usize::from(*length))?;
        let clean = padding.iter().all(|byte| *byte == 0);
        Some((value.len(), clean))
    };
    match field.kind {
        FieldKind::Bool => match bytes {
            [0 | 1] => Ok(()),
            _ => Err("is neither 0 nor 1"),
        },
        FieldKind::String { .. } | FieldKind::Bytes { .. } => match value(bytes) {
            None => Err("is longer than its room"),
            Some((_, false)) => Err("has bytes behind its end"),
            Some((len, true)) => match field.kind {
                FieldKind::String { .. } if std::str::from_utf8(&bytes[1..=len]).is_err() => {
                    Err("is not UTF-8")
                }
                _ => Ok(()),
            },
        },
        FieldKind::U32
        | FieldKind::U64
        | FieldKind::I32
        | FieldKind::I64
        | FieldKind::F32
        | FieldKind::F64
        | FieldKind::Enum { .. }
        | FieldKind::Fixed { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;

    fn layout() -> Layout {
        let member = |name: &str, number, kind| Member { name: name.into(), number, kind };
        let members = vec![
            member("user", 1, FieldKind::String { max_len: 3 }),
            member("admin", 2, FieldKind::Bool),
            member("n", 3, FieldKind::U32),
        ];
        Layout::new("demo.M", members, 128).expect("fits")
    }

    #[test]
    fn accepts_what_stubs_write_and_names_what_they_do_not() {
        let layout = layout();
        let reason = |block: &[u8]| layout.validate(block).map_err(|error| error.to_string());
        assert_eq!(reason(&[3, b'b', b'o', b'b', 1, 0, 0, 0, 9, 9, 9, 9]), Ok(()));
        assert_eq!(reason(&[]), Ok(()), "an older peer");
        assert_eq!(reason(&[0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 7, 7]), Ok(()), "a newer peer");
        assert_eq!(
            reason(&[4, 1, 1, 1]),
            Err("flat field `user` of `demo.M` is longer than its room".into())
        );
        assert_eq!(
            reason(&[1, b'b', 0, 1]),
            Err("flat field `user` of `demo.M` has bytes behind its end".into())
        );
        assert_eq!(reason(&[1, 0xff, 0, 0]), Err("flat field `user` of `demo.M` is not UTF-8".into()));
        assert_eq!(reason(&[0, 0, 0, 0, 2]), Err("flat field `admin` of `demo.M` is neither 0 nor 1".into()));
        assert_eq!(reason(&[0, 0, 0]), Ok(()), "a field cut off is absent");
    }
}
