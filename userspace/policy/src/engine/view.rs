//! What a policy can read while it judges one call.

use super::call::{CallView, ResponseView};
use super::code::{Code, Group, Source};
use super::registers::{Register, Registers, Text};
use super::shape::{Place, Value};
use crate::ir::{Attribute, FieldRef, TOKEN_BAD, TOKEN_VALID};

/// A call and what is known of it.
pub struct View<'a, 'c, 'r> {
    pub code: &'a Code,
    pub group: &'a Group,
    pub call: &'a mut CallView<'c>,
    pub response: Option<&'a mut ResponseView<'r>>,
    pub registers: &'a mut Registers,
}

impl View<'_, '_, '_> {
    /// What a source has. Registers, the most frequent one, are told here; the rest by a call.
    #[inline(always)]
    pub fn value(&self, source: &Source) -> Option<Value<'_>> {
        match *source {
            Source::Register(register) => self.registers.number(register).map(Value::Number),
            _ => self.outside(source),
        }
    }

    #[inline(always)]
    pub fn number(&self, source: &Source) -> Option<u64> {
        match *source {
            Source::Register(register) => self.registers.number(register),
            _ => self.number_outside(source),
        }
    }

    /// What is not a register's, where it is a number.
    pub fn number_outside(&self, source: &Source) -> Option<u64> {
        match *source {
            Source::Attribute(attribute) => self.attribute(attribute),
            _ => match self.outside(source)? {
                Value::Number(number) => Some(number),
                Value::Bytes(_) => None,
            },
        }
    }

    /// What is not a register's.
    fn outside(&self, source: &Source) -> Option<Value<'_>> {
        match *source {
            Source::Constant(number) => self.code.numbers.get(number as usize).copied().map(Value::Number),
            Source::Request(field) => (*self.group.request.get(usize::from(field))?)?.read(self.call.flat),
            Source::Response(field) => {
                (*self.group.response.get(usize::from(field))?)?.read(self.response.as_deref()?.flat)
            }
            Source::Attribute(attribute) => self.attribute(attribute).map(Value::Number),
            Source::Token => {
                let number = |valid| if valid { TOKEN_VALID } else { TOKEN_BAD };
                self.call.peer.token.map(|valid| Value::Number(number(valid)))
            }
            Source::Sessions => Some(Value::Number(self.call.peer.sessions.into())),
            Source::Text(register) => match self.registers.text(register) {
                Text::Absent => None,
                Text::Here { at, len } => self.registers.bytes(at, len).map(Value::Bytes),
                Text::Alias(ref source) => self.lasting(source).map(Value::Bytes),
            },
            _ => self.lasting(source).map(Value::Bytes),
        }
    }

    /// Bytes that do not change while a call is judged.
    fn lasting(&self, source: &Source) -> Option<&[u8]> {
        let peer = self.call.peer;
        match *source {
            Source::Bytes(bytes) => Some(bytes.of(&self.code.bytes)),
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
        let response = self.response.as_deref();
        Some(match attribute {
            // As wide as enums are.
            Attribute::Method => i64::from(self.call.method as i32) as u64,
            Attribute::Service => i64::from(self.group.service as i32) as u64,
            Attribute::Size => response.map_or(self.call.size, |response| response.size).into(),
            Attribute::Deadline => self.call.deadline_ns?,
            Attribute::Now => self.call.now_ns,
            Attribute::Port => self.call.port.into(),
            Attribute::Status => (response?.status as u8).into(),
            Attribute::Latency => response?.latency_ns,
            Attribute::Backend => response?.backend?.into(),
        })
    }

    #[inline]
    pub fn bytes(&self, source: &Source) -> Option<&[u8]> {
        match self.outside(source)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }

    /// Keeps what a text is now. One that can change, a field's, is copied to `room` in the arena.
    pub fn keep(&mut self, into: Register, room: u32, source: &Source) {
        let View { group, call, response, registers, .. } = self;
        let (places, message, field) = match *source {
            Source::Text(register) => return registers.set_text(into, registers.text(register)),
            Source::Request(field) => (&group.request, Some(&*call.flat), field),
            Source::Response(field) => {
                (&group.response, response.as_ref().map(|response| &*response.flat), field)
            }
            _ => {
                let text = self.lasting(source).map_or(Text::Absent, |_| Text::Alias(*source));
                return self.registers.set_text(into, text);
            }
        };
        let place = places.get(usize::from(field)).copied().flatten();
        let text = match place.zip(message).and_then(|(place, message)| place.read(message)) {
            Some(Value::Bytes(text)) => Some(text),
            Some(Value::Number(_)) | None => None,
        };
        registers.keep(into, room, text);
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
