//! The seam between generated server stubs and [`Server`](crate::Server).

use crate::{Message, Request, Response, Status};
use std::{future::Future, pin::Pin, sync::Arc, time::Instant};
use tollfree_wire::header::FLAT_MAX;

/// A method, as generated stubs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodInfo {
    /// `/demo.Hash/Sha256`.
    pub path: &'static str,
    /// The method id: FNV-1a 32 of the path.
    pub id: u32,
}

/// A handler at work.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send>>;

/// What is known of a call besides its message.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallInfo {
    /// The method id.
    pub method: u32,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// A set of methods under one name; implemented by generated `…Server` types.
pub trait Service: Send + Sync + 'static {
    /// The full name: `demo.Hash`.
    const NAME: &'static str;
    /// The encoded `FileDescriptorSet` that describes it, with Tollfree's options kept.
    const DESCRIPTOR_SET: &'static [u8];
    /// The methods.
    const METHODS: &'static [MethodInfo];

    /// Starts the handler of `info.method`. `flat` and `body` lie in shared memory that is reused once this returns:
    /// decode them here, work in the future. Usually one `match` whose arms are [`dispatch`] and [`unimplemented()`].
    fn call(self: Arc<Self>, info: CallInfo, flat: &[u8], body: &[u8]) -> HandlerFuture;
}

/// A response, ready to be written into the transmit region.
pub struct Reply {
    pub(crate) outgoing: Outgoing,
}

/// A message divided into its flat block and what prost encodes. The body is encoded straight into shared memory.
pub(crate) struct Outgoing {
    pub(crate) layout: u32,
    pub(crate) flat_len: usize,
    pub(crate) flat: [u8; FLAT_MAX],
    pub(crate) body_len: usize,
    pub(crate) body: Option<Box<dyn Encode>>,
}

/// The part of `prost::Message` that works without knowing the type.
pub(crate) trait Encode: Send + Sync {
    /// Writes the encoding into exactly `encoded_len` bytes; false where it does not fit.
    fn encode_into(&self, out: &mut [u8]) -> bool;
}

impl<M: prost::Message> Encode for M {
    fn encode_into(&self, mut out: &mut [u8]) -> bool {
        self.encode(&mut out).is_ok()
    }
}

impl Outgoing {
    pub(crate) fn new<M: Message>(mut message: M) -> Result<Outgoing, Status> {
        let mut flat = [0; FLAT_MAX];
        let Some(block) = flat.get_mut(..M::FLAT_LEN) else {
            return Err(Status::internal(format!(
                "a flat block of {} bytes; at most {FLAT_MAX} are allowed",
                M::FLAT_LEN
            )));
        };
        message.take_flat(block)?;
        let body_len = message.encoded_len();
        let body: Option<Box<dyn Encode>> = (body_len > 0).then(|| Box::new(message) as Box<dyn Encode>);
        Ok(Outgoing { layout: M::LAYOUT, flat_len: M::FLAT_LEN, flat, body_len, body })
    }
}

/// Decodes a message from its two parts.
pub(crate) fn decode<M: Message>(flat: &[u8], body: &[u8]) -> Result<M, Status> {
    let mut message = if body.is_empty() {
        M::default()
    } else {
        M::decode(body)
            .map_err(|error| Status::internal(format!("the message's body does not decode: {error}")))?
    };
    message.put_flat(flat);
    Ok(message)
}

/// Decodes a request and runs its handler: an arm of a generated [`Service::call`].
pub fn dispatch<Req, Resp, H, F>(info: CallInfo, flat: &[u8], body: &[u8], handler: H) -> HandlerFuture
where
    Req: Message,
    Resp: Message,
    H: FnOnce(Request<Req>) -> F,
    F: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
{
    match decode::<Req>(flat, body) {
        Ok(message) => {
            let running = handler(Request::received(message, info.deadline));
            Box::pin(async move { Ok(Reply { outgoing: Outgoing::new(running.await?.into_inner())? }) })
        }
        Err(status) => Box::pin(std::future::ready(Err(status))),
    }
}

/// The last arm of a generated [`Service::call`]: the service has no such method.
pub fn unimplemented(info: CallInfo) -> HandlerFuture {
    let status = Status::unimplemented(format!("the service has no method with id {:#010x}", info.method));
    Box::pin(std::future::ready(Err(status)))
}
