//! Messages on their way out: divided into what goes where, not yet encoded.

use crate::metadata::MetadataMap;
use crate::{Message, Status};
use tollfree_ring::Flags;
use tollfree_wire::Code;
use tollfree_wire::header::FLAT_MAX;

/// A message divided into its flat block and what prost encodes. The body is encoded straight into shared memory.
pub struct Outgoing {
    pub layout: u32,
    pub flat_len: usize,
    pub flat: [u8; FLAT_MAX],
    /// The block in front of the message; empty for none.
    pub metadata: Vec<u8>,
    /// Bytes of metadata and message.
    pub body_len: usize,
    pub body: Option<Box<dyn Encode>>,
}

/// The part of `prost::Message` that works without knowing the type.
pub trait Encode: Send + Sync {
    /// Writes the encoding into exactly `encoded_len` bytes; false where it does not fit.
    fn encode_into(&self, out: &mut [u8]) -> bool;
}

impl<M: prost::Message> Encode for M {
    fn encode_into(&self, mut out: &mut [u8]) -> bool {
        self.encode(&mut out).is_ok()
    }
}

impl Outgoing {
    /// A message with metadata.
    pub fn new<M: Message>(metadata: &MetadataMap, mut message: M) -> Result<Outgoing, Status> {
        let mut flat = [0; FLAT_MAX];
        let Some(block) = flat.get_mut(..M::FLAT_LEN) else {
            return Err(Status::internal(format!(
                "a flat block of {} bytes; at most {FLAT_MAX} are allowed",
                M::FLAT_LEN
            )));
        };
        message.take_flat(block)?;
        let metadata = metadata.encode()?;
        let message_len = message.encoded_len();
        let body: Option<Box<dyn Encode>> = (message_len > 0).then(|| Box::new(message) as Box<dyn Encode>);
        let body_len = metadata.len() + message_len;
        Ok(Outgoing { layout: M::LAYOUT, flat_len: M::FLAT_LEN, flat, metadata, body_len, body })
    }

    /// Metadata alone.
    pub fn bare(metadata: &MetadataMap) -> Result<Outgoing, Status> {
        let metadata = metadata.encode()?;
        let body_len = metadata.len();
        Ok(Outgoing { layout: 0, flat_len: 0, flat: [0; FLAT_MAX], metadata, body_len, body: None })
    }

    /// A status: its code, and its message for people as a body.
    pub fn status(status: &Status) -> (Code, Outgoing) {
        // Metadata that is not allowed must not cost the caller the status itself.
        let metadata = status.metadata().encode().unwrap_or_default();
        let text = status.message().as_bytes().to_vec();
        let body_len = metadata.len() + text.len();
        let body: Option<Box<dyn Encode>> =
            (!text.is_empty()).then(|| Box::new(Text(text)) as Box<dyn Encode>);
        (status.code(), Outgoing { layout: 0, flat_len: 0, flat: [0; FLAT_MAX], metadata, body_len, body })
    }

    /// What a descriptor says of the message.
    pub fn flags(&self) -> Flags {
        Flags { metadata: !self.metadata.is_empty(), ..Flags::default() }
    }

    /// Bytes it takes.
    pub fn len(&self) -> usize {
        self.flat_len + self.body_len
    }
}

struct Text(Vec<u8>);

impl Encode for Text {
    fn encode_into(&self, out: &mut [u8]) -> bool {
        let fits = out.len() == self.0.len();
        if fits {
            out.copy_from_slice(&self.0);
        }
        fits
    }
}
