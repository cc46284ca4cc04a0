//! What a policy can read while it judges one call.

use super::call::CallView;
use super::code::{Code, Group, List, Source};
use super::shape::{Place, Value};
use crate::ir::{Attribute, FieldRef, TOKEN_BAD, TOKEN_VALID};

/// What a policy keeps by [`crate::ir::Action::Let`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    #[default]
    Absent,
    Number(u64),
    /// Text in the arena.
    Text {
        at: u32,
        len: u8,
    },
    /// Bytes that do not change while a call is judged: another name for them.
    Alias(Source),
}

/// A call and what is known of it.
pub struct View<'a, 'c> {
    pub code: &'a Code,
    pub group: &'a Group,
    pub call: &'a mut CallView<'c>,
    pub response: Option<Response<'a>>,
    pub slots: &'a mut [Slot],
    /// The texts of slots.
    pub arena: &'a mut [u8],
}

/// What answered the call.
pub struct Response<'a> {
    pub flat: &'a mut [u8],
    pub size: u32,
    pub status: u8,
    pub latency_ns: u64,
    pub backend: Option<u32>,
    pub attempt: u32,
}

impl View<'_, '_> {
    /// What a source has. Constants and slots, which most operations are about, are told here; the rest by a call.
    #[inline(always)]
    pub fn value(&self, source: Source) -> Option<Value<'_>> {
        match source {
            Source::Number(number) => Some(Value::Number(number)),
            Source::Slot(slot) => match *self.slots.get(usize::from(slot))? {
                Slot::Absent => None,
                Slot::Number(number) => Some(Value::Number(number)),
                Slot::Text { at, len } => {
                    let at = at as usize;
                    self.arena.get(at..at + usize::from(len)).map(Value::Bytes)
                }
                Slot::Alias(source) => self.bytes_outside(source).map(Value::Bytes),
            },
            source => self.outside(source),
        }
    }

    /// What is not the policy's own.
    fn outside(&self, source: Source) -> Option<Value<'_>> {
        match source {
            Source::Request(field) => (*self.group.request.get(usize::from(field))?)?.read(self.call.flat),
            Source::Response(field) => {
                (*self.group.response.get(usize::from(field))?)?.read(self.response.as_ref()?.flat)
            }
            Source::Attribute(attribute) => self.attribute(attribute).map(Value::Number),
            Source::Token => {
                let number = |valid| if valid { TOKEN_VALID } else { TOKEN_BAD };
                self.call.peer.token.map(|valid| Value::Number(number(valid)))
            }
            Source::Sessions => Some(Value::Number(self.call.peer.sessions.into())),
            source => self.bytes_outside(source).map(Value::Bytes),
        }
    }

    /// Bytes that do not change while a call is judged.
    fn bytes_outside(&self, source: Source) -> Option<&[u8]> {
        let peer = self.call.peer;
        match source {
            Source::Bytes { at, len } => Some(List { at, len }.of(&self.code.bytes)),
            Source::Identity => peer.identity.map(str::as_bytes),
            Source::Namespace => peer.namespace.map(str::as_bytes),
            Source::Address => Some(&peer.address),
            Source::Named(name) => {
                let name = self.code.peer_names.get(usize::from(name))?;
                peer.named.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes())
            }
            Source::Metadata(key) => {
                let key = self.code.metadata.get(usize::from(key))?;
                self.call.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_bytes())
            }
            _ => None,
        }
    }

    #[inline]
    fn attribute(&self, attribute: Attribute) -> Option<u64> {
        let response = self.response.as_ref();
        Some(match attribute {
            // As wide as enums are.
            Attribute::Method => i64::from(self.call.method as i32) as u64,
            Attribute::Service => i64::from(self.group.service as i32) as u64,
            Attribute::Size => response.map_or(self.call.size, |response| response.size).into(),
            Attribute::Deadline => self.call.deadline_ns?,
            Attribute::Now => self.call.now_ns,
            Attribute::Port => self.call.port.into(),
            Attribute::Status => response?.status.into(),
            Attribute::Latency => response?.latency_ns,
            Attribute::Backend => response?.backend?.into(),
        })
    }

    #[inline(always)]
    pub fn number(&self, source: Source) -> Option<u64> {
        match source {
            Source::Number(number) => Some(number),
            Source::Slot(slot) => match *self.slots.get(usize::from(slot))? {
                Slot::Number(number) => Some(number),
                _ => None,
            },
            source => self.number_outside(source),
        }
    }

    fn number_outside(&self, source: Source) -> Option<u64> {
        match self.outside(source)? {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        }
    }

    #[inline]
    pub fn bytes(&self, source: Source) -> Option<&[u8]> {
        match self.value(source)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }

    #[inline]
    pub fn set_slot(&mut self, into: u16, slot: Slot) {
        if let Some(place) = self.slots.get_mut(usize::from(into)) {
            *place = slot;
        }
    }

    /// A field's place and its bytes in the message that it is in.
    pub fn field(&mut self, field: FieldRef) -> Option<(Place, &mut [u8])> {
        let (places, message, field) = match field {
            FieldRef::Request(field) => (&self.group.request, &mut *self.call.flat, field),
            FieldRef::Response(field) => (&self.group.response, &mut *self.response.as_mut()?.flat, field),
        };
        let place = (*places.get(field)?)?;
        Some((place, place.bytes_mut(message)?))
    }
}
