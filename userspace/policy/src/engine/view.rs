//! What a policy can read while it judges one call.

use super::call::PeerView;
use super::code::{Code, List, Source};
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
    /// What does not change while a call is judged: another name for it.
    Alias(Source),
}

/// A call and what is known of it.
pub struct View<'a> {
    pub code: &'a Code,
    pub request_places: &'a [Option<Place>],
    pub response_places: &'a [Option<Place>],
    pub request: &'a mut [u8],
    pub response: &'a mut [u8],
    pub method: u32,
    pub service: u32,
    pub size: u32,
    pub port: u16,
    pub now_ns: u64,
    pub deadline_ns: Option<u64>,
    pub answered: Option<Answered>,
    pub peer: &'a PeerView<'a>,
    pub metadata: &'a [(&'a str, &'a str)],
    pub backends: &'a [u32],
    pub slots: &'a mut [Slot],
    /// The texts of slots.
    pub arena: &'a mut [u8],
}

/// What is known of a response besides its message.
#[derive(Clone, Copy)]
pub struct Answered {
    pub status: u8,
    pub latency_ns: u64,
    pub backend: Option<u32>,
    pub attempt: u32,
}

impl View<'_> {
    #[inline]
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
                Slot::Alias(source) => self.outside(source),
            },
            Source::Request(field) => (*self.request_places.get(usize::from(field))?)?.read(self.request),
            Source::Response(field) => (*self.response_places.get(usize::from(field))?)?.read(self.response),
            source => self.outside(source),
        }
    }

    /// What comes from neither slot nor message.
    fn outside(&self, source: Source) -> Option<Value<'_>> {
        match source {
            Source::Number(number) => Some(Value::Number(number)),
            Source::Bytes { at, len } => Some(Value::Bytes(List { at, len }.of(&self.code.bytes))),
            Source::Attribute(attribute) => self.attribute(attribute).map(Value::Number),
            Source::Identity => self.peer.identity.map(|name| Value::Bytes(name.as_bytes())),
            Source::Namespace => self.peer.namespace.map(|name| Value::Bytes(name.as_bytes())),
            Source::Address => Some(Value::Bytes(&self.peer.address)),
            Source::Token => {
                self.peer.token.map(|valid| Value::Number(if valid { TOKEN_VALID } else { TOKEN_BAD }))
            }
            Source::Sessions => Some(Value::Number(self.peer.sessions.into())),
            Source::Named(name) => {
                let name = self.code.peer_names.get(usize::from(name))?;
                self.peer
                    .named
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| Value::Bytes(value.as_bytes()))
            }
            Source::Metadata(key) => {
                let key = self.code.metadata.get(usize::from(key))?;
                self.metadata
                    .iter()
                    .find(|(known, _)| known == key)
                    .map(|(_, value)| Value::Bytes(value.as_bytes()))
            }
            Source::Slot(_) | Source::Request(_) | Source::Response(_) => None,
        }
    }

    fn attribute(&self, attribute: Attribute) -> Option<u64> {
        Some(match attribute {
            // As wide as enums are.
            Attribute::Method => i64::from(self.method as i32) as u64,
            Attribute::Service => i64::from(self.service as i32) as u64,
            Attribute::Size => self.size.into(),
            Attribute::Deadline => self.deadline_ns?,
            Attribute::Now => self.now_ns,
            Attribute::Port => self.port.into(),
            Attribute::Status => self.answered?.status.into(),
            Attribute::Latency => self.answered?.latency_ns,
            Attribute::Backend => self.answered?.backend?.into(),
        })
    }

    #[inline]
    pub fn number(&self, source: Source) -> Option<u64> {
        match self.value(source)? {
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

    /// A field's place and the message that it is in.
    pub fn field(&mut self, field: FieldRef) -> Option<(Place, &mut [u8])> {
        let (places, message, field) = match field {
            FieldRef::Request(field) => (self.request_places, &mut *self.request, field),
            FieldRef::Response(field) => (self.response_places, &mut *self.response, field),
        };
        let place = (*places.get(field)?)?;
        Some((place, place.bytes_mut(message)?))
    }
}
