//! The seam between generated server stubs and [`Server`](crate::Server).

use crate::flow::Inbox;
use crate::metadata::MetadataMap;
use crate::outgoing::Outgoing;
use crate::received::{Received, decode, split};
use crate::streaming::{Requests, Streaming};
use crate::{Message, Request, Response, Status};
use futures_core::Stream;
use std::task::{Context, Poll};
use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

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
#[non_exhaustive]
pub struct CallInfo {
    /// The method id.
    pub method: u32,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The body begins with metadata.
    pub(crate) has_metadata: bool,
    /// There is no first message.
    pub(crate) bare: bool,
    /// What follows the first message of a streaming request.
    pub(crate) requests: Option<Requests>,
}

impl std::fmt::Debug for CallInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CallInfo { method, deadline, .. } = self;
        f.debug_struct("CallInfo").field("method", method).field("deadline", deadline).finish_non_exhaustive()
    }
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
    /// decode them here, work in the future. Usually one `match` whose arms are [`dispatch`], its relatives for methods
    /// that stream, and [`unimplemented()`].
    fn call(self: Arc<Self>, info: CallInfo, flat: &[u8], body: &[u8]) -> HandlerFuture;
}

/// A response, ready to be written into the transmit region.
pub struct Reply {
    /// The message; where messages follow, the metadata they begin with.
    pub(crate) outgoing: Outgoing,
    /// The messages of a streaming response.
    pub(crate) responses: Option<Responses>,
}

/// The messages of a streaming response, divided.
pub(crate) type Responses = Pin<Box<dyn Stream<Item = Result<Outgoing, Status>> + Send>>;

impl Reply {
    fn one<Resp: Message>(response: Response<Resp>) -> Result<Reply, Status> {
        let (metadata, message) = response.into_parts();
        Ok(Reply { outgoing: Outgoing::new(&metadata, message)?, responses: None })
    }

    fn many<S, Resp>(response: Response<S>) -> Result<Reply, Status>
    where
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        Resp: Message,
    {
        let (metadata, messages) = response.into_parts();
        let responses = Box::pin(Divided(Box::pin(messages)));
        Ok(Reply { outgoing: Outgoing::bare(&metadata)?, responses: Some(responses) })
    }
}

/// Divides the messages of a stream as they come.
struct Divided<S>(Pin<Box<S>>);

impl<S, Resp> Stream for Divided<S>
where
    S: Stream<Item = Result<Resp, Status>>,
    Resp: Message,
{
    type Item = Result<Outgoing, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.0.as_mut().poll_next(context));
        Poll::Ready(next.map(|next| Outgoing::new(&MetadataMap::new(), next?)))
    }
}

/// Decodes a request and runs its handler: an arm of a generated [`Service::call`].
pub fn dispatch<Req, Resp, H, F>(info: CallInfo, flat: &[u8], body: &[u8], handler: H) -> HandlerFuture
where
    Req: Message,
    Resp: Message,
    H: FnOnce(Request<Req>) -> F,
    F: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
{
    match one_request(&info, flat, body) {
        Ok(request) => {
            let running = handler(request);
            Box::pin(async move { Reply::one(running.await?) })
        }
        Err(status) => Box::pin(std::future::ready(Err(status))),
    }
}

/// Like [`dispatch`], for a method whose response is a stream.
pub fn dispatch_server_streaming<Req, S, Resp, H, F>(
    info: CallInfo,
    flat: &[u8],
    body: &[u8],
    handler: H,
) -> HandlerFuture
where
    Req: Message,
    S: Stream<Item = Result<Resp, Status>> + Send + 'static,
    Resp: Message,
    H: FnOnce(Request<Req>) -> F,
    F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
{
    match one_request(&info, flat, body) {
        Ok(request) => {
            let running = handler(request);
            Box::pin(async move { Reply::many(running.await?) })
        }
        Err(status) => Box::pin(std::future::ready(Err(status))),
    }
}

/// Like [`dispatch`], for a method whose request is a stream.
pub fn dispatch_client_streaming<Req, Resp, H, F>(
    info: CallInfo,
    flat: &[u8],
    body: &[u8],
    handler: H,
) -> HandlerFuture
where
    Req: Message,
    Resp: Message,
    H: FnOnce(Request<Streaming<Req>>) -> F,
    F: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
{
    match many_requests(info, flat, body) {
        Ok(request) => {
            let running = handler(request);
            Box::pin(async move { Reply::one(running.await?) })
        }
        Err(status) => Box::pin(std::future::ready(Err(status))),
    }
}

/// Like [`dispatch`], for a method whose request and response are streams.
pub fn dispatch_streaming<Req, S, Resp, H, F>(
    info: CallInfo,
    flat: &[u8],
    body: &[u8],
    handler: H,
) -> HandlerFuture
where
    Req: Message,
    S: Stream<Item = Result<Resp, Status>> + Send + 'static,
    Resp: Message,
    H: FnOnce(Request<Streaming<Req>>) -> F,
    F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
{
    match many_requests(info, flat, body) {
        Ok(request) => {
            let running = handler(request);
            Box::pin(async move { Reply::many(running.await?) })
        }
        Err(status) => Box::pin(std::future::ready(Err(status))),
    }
}

fn one_request<Req: Message>(info: &CallInfo, flat: &[u8], body: &[u8]) -> Result<Request<Req>, Status> {
    let (metadata, body) = split(info.has_metadata, body)?;
    Ok(Request::received(metadata, decode(flat, body)?, info.deadline))
}

fn many_requests<Req: Message>(
    info: CallInfo,
    flat: &[u8],
    body: &[u8],
) -> Result<Request<Streaming<Req>>, Status> {
    let CallInfo { deadline, has_metadata, bare, requests, .. } = info;
    let (metadata, body) = split(has_metadata, body)?;
    let first = (!bare).then(|| Received::first(flat, body));
    let requests = requests.unwrap_or_else(|| Requests {
        // Nothing follows the first message.
        inbox: Arc::new(Inbox::ended()),
        credit: Box::new(|| {}),
    });
    Ok(Request::received(metadata, Streaming::of_handler(first, requests), deadline))
}

/// The last arm of a generated [`Service::call`]: the service has no such method.
pub fn unimplemented(info: CallInfo) -> HandlerFuture {
    let status = Status::unimplemented(format!("the service has no method with id {:#010x}", info.method));
    Box::pin(std::future::ready(Err(status)))
}
