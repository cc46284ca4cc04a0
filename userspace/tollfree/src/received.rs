//! Messages as they came, copied out of the ring.

use crate::metadata::MetadataMap;
use crate::{Message, Status, VerdictAt};
use tollfree_ring::Delivery;
use tollfree_wire::Code;

/// A message, or a status.
#[derive(Debug)]
pub struct Received {
    pub status: Code,
    pub verdict_at: VerdictAt,
    pub bytes: Vec<u8>,
    flat_len: usize,
    has_metadata: bool,
}

impl Default for Received {
    fn default() -> Received {
        Received {
            status: Code::Ok,
            verdict_at: VerdictAt::None,
            bytes: Vec::new(),
            flat_len: 0,
            has_metadata: false,
        }
    }
}

impl Received {
    /// A copy of what a delivery says.
    pub fn new(delivery: &Delivery<'_>) -> Received {
        let mut received = Received::default();
        received.fill(delivery);
        received
    }

    /// A message that came without metadata of its own.
    pub fn first(flat: &[u8], body: &[u8]) -> Received {
        Received { bytes: [flat, body].concat(), flat_len: flat.len(), ..Received::default() }
    }

    /// Takes a copy of what a delivery says, in place of what was here.
    pub fn fill(&mut self, delivery: &Delivery<'_>) {
        self.status = delivery.status;
        self.verdict_at = delivery.verdict_at;
        self.bytes.clear();
        self.bytes.extend_from_slice(delivery.flat);
        self.bytes.extend_from_slice(delivery.body);
        self.flat_len = delivery.flat.len();
        self.has_metadata = delivery.flags.metadata;
    }

    /// Becomes a status that nobody sent.
    pub fn fail(&mut self, status: &Status) {
        let bytes = status.message().as_bytes().to_vec();
        *self =
            Received { status: status.code(), verdict_at: status.verdict_at(), bytes, ..Received::default() };
    }

    fn flat(&self) -> &[u8] {
        self.bytes.get(..self.flat_len).unwrap_or_default()
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(self.flat_len..).unwrap_or_default()
    }

    /// The message with its metadata, or the status where it is not OK.
    pub fn message<M: Message>(&self) -> Result<(MetadataMap, M), Status> {
        let (metadata, body) = self.accepted()?;
        Ok((metadata, decode(self.flat(), body)?))
    }

    /// The metadata alone, or the status where it is not OK.
    pub fn metadata(&self) -> Result<MetadataMap, Status> {
        Ok(self.accepted()?.0)
    }

    fn accepted(&self) -> Result<(MetadataMap, &[u8]), Status> {
        let (metadata, body) = split(self.has_metadata, self.body())?;
        match self.status {
            Code::Ok => Ok((metadata, body)),
            code => {
                let text = String::from_utf8_lossy(body);
                Err(Status::with_metadata(code, text, metadata).decided_at(self.verdict_at))
            }
        }
    }
}

/// Divides a body into metadata and message.
pub fn split(has_metadata: bool, body: &[u8]) -> Result<(MetadataMap, &[u8]), Status> {
    if has_metadata { MetadataMap::decode(body) } else { Ok((MetadataMap::new(), body)) }
}

/// Decodes a message from its two parts.
pub fn decode<M: Message>(flat: &[u8], body: &[u8]) -> Result<M, Status> {
    let mut message = if body.is_empty() {
        M::default()
    } else {
        M::decode(body)
            .map_err(|error| Status::internal(format!("the message's body does not decode: {error}")))?
    };
    message.put_flat(flat);
    Ok(message)
}
