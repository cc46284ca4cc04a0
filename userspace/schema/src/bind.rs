//! The bind message: what two peers tell each other about a method before its first use on a session.
//!
//! Only names, numbers and kinds travel; places and fingerprints are derived on arrival, so a peer cannot claim a
//! layout that does not follow from its fields.

use prost::Message as _;

use crate::layout::{BLOCK_MAX, BodyField, Field, FieldKind, Layout, Member};
use crate::{Compat, Error, Incompatible, Method, Streaming};

/// Most bytes a bind request may have.
pub const BIND_MAX: usize = 64 << 10;

/// One peer's idea of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRequest {
    /// `/demo.Hash/Sha256`.
    pub path: String,
    /// Which sides stream.
    pub streaming: Streaming,
    /// Layout of the request.
    pub request: Layout,
    /// Layout of the response.
    pub response: Layout,
}

impl BindRequest {
    /// The bind request for one of our methods.
    pub fn new(method: &Method) -> Self {
        let Method { name: _, path, id: _, streaming, request, response } = method;
        Self {
            path: path.clone(),
            streaming: *streaming,
            request: request.clone(),
            response: response.clone(),
        }
    }

    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let Self { path, streaming, request, response } = self;
        BindWire {
            path: path.clone(),
            client_streaming: matches!(streaming, Streaming::Client | Streaming::Bidirectional),
            server_streaming: matches!(streaming, Streaming::Server | Streaming::Bidirectional),
            request: Some(LayoutWire::from(request)),
            response: Some(LayoutWire::from(response)),
        }
        .encode_to_vec()
    }

    /// Reads what a peer sent; the bytes may be hostile.
    ///
    /// # Errors
    /// What is malformed about them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > BIND_MAX {
            return Err(Error::Bind(format!("{} bytes, at most {BIND_MAX} are accepted", bytes.len())));
        }
        let BindWire { path, client_streaming, server_streaming, request, response } =
            BindWire::decode(bytes).map_err(|error| Error::Bind(error.to_string()))?;
        Ok(Self {
            path,
            streaming: Streaming::new(client_streaming, server_streaming),
            request: request.unwrap_or_default().layout()?,
            response: response.unwrap_or_default().layout()?,
        })
    }

    /// Compares the peer's idea of `method` (this) with ours: how their request and response relate to our own.
    ///
    /// # Errors
    /// Says what the two disagree about: which sides stream, or the first field.
    pub fn check(&self, method: &Method) -> Result<(Compat, Compat), Mismatch> {
        let Method { name: _, path: _, id: _, streaming, request, response } = method;
        if self.streaming != *streaming {
            return Err(Mismatch::Streaming { ours: *streaming, theirs: self.streaming });
        }
        Ok((request.compatible(&self.request)?, response.compatible(&self.response)?))
    }
}

/// Two ideas of a method that cannot be used together. Displays as a sentence naming both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A message differs.
    #[error(transparent)]
    Layout(#[from] Incompatible),
    /// One side sends several messages where the other expects one.
    #[error("the method is {ours} here and {theirs} at the peer")]
    Streaming {
        /// What our side says.
        ours: Streaming,
        /// What their side says.
        theirs: Streaming,
    },
}

#[derive(Clone, PartialEq, prost::Message)]
struct BindWire {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "2")]
    request: Option<LayoutWire>,
    #[prost(message, optional, tag = "3")]
    response: Option<LayoutWire>,
    #[prost(bool, tag = "4")]
    client_streaming: bool,
    #[prost(bool, tag = "5")]
    server_streaming: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LayoutWire {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(message, repeated, tag = "2")]
    flat: Vec<FlatWire>,
    #[prost(message, repeated, tag = "3")]
    body: Vec<BodyWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FlatWire {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    number: u32,
    /// [`FieldKind::tag`].
    #[prost(uint32, tag = "3")]
    kind: u32,
    /// `max_len` or `len`, for the kinds that have one.
    #[prost(uint32, tag = "4")]
    len: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BodyWire {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    number: u32,
    #[prost(string, tag = "3")]
    kind: String,
}

impl From<&Layout> for LayoutWire {
    fn from(layout: &Layout) -> Self {
        let Layout { message, fingerprint: _, flat_len: _, fields, body } = layout;
        let flat = |Field { name, number, kind, .. }: &Field| FlatWire {
            name: name.clone(),
            number: *number,
            kind: u32::from(kind.tag()),
            len: match kind {
                FieldKind::String { max_len } | FieldKind::Bytes { max_len } => u32::from(*max_len),
                FieldKind::Fixed { len } => u32::from(*len),
                _ => 0,
            },
        };
        let body_field = |BodyField { name, number, kind }: &BodyField| BodyWire {
            name: name.clone(),
            number: *number,
            kind: kind.clone(),
        };
        Self {
            message: message.clone(),
            flat: fields.iter().map(flat).collect(),
            body: body.iter().map(body_field).collect(),
        }
    }
}

impl LayoutWire {
    fn layout(self) -> Result<Layout, Error> {
        let Self { message, flat, body } = self;
        let members = flat.into_iter().map(FlatWire::member).collect::<Result<Vec<_>, _>>()?;
        let mut layout = Layout::new(message, members, BLOCK_MAX).map_err(|e| Error::Bind(e.to_string()))?;
        if let Some(pair) = layout.fields.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(Error::Bind(format!("field number {} twice", pair[0].number)));
        }
        layout.body = body
            .into_iter()
            .map(|BodyWire { name, number, kind }| BodyField { name, number, kind })
            .collect();
        Ok(layout)
    }
}

impl FlatWire {
    fn member(self) -> Result<Member, Error> {
        let Self { name, number, kind, len } = self;
        let length = || {
            u8::try_from(len)
                .ok()
                .filter(|len| *len > 0)
                .ok_or_else(|| Error::Bind(format!("field `{name}` has the length {len}")))
        };
        let kind = match kind {
            1 => FieldKind::Bool,
            2 => FieldKind::U32,
            3 => FieldKind::U64,
            4 => FieldKind::I32,
            5 => FieldKind::I64,
            6 => FieldKind::F32,
            7 => FieldKind::F64,
            8 => FieldKind::Enum { values: Vec::new() },
            9 => FieldKind::String { max_len: length()? },
            10 => FieldKind::Bytes { max_len: length()? },
            11 => FieldKind::Fixed { len: length()? },
            other => return Err(Error::Bind(format!("field `{name}` has the unknown kind {other}"))),
        };
        Ok(Member { name, number, kind })
    }
}
