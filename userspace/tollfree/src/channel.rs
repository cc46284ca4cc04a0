//! The client's end: calls out, results back.

use crate::link::{Item, Link, listen};
use crate::metadata::MetadataMap;
use crate::outgoing::Outgoing;
use crate::received::Received;
use crate::streaming::{Call, next};
use crate::{Message, MethodInfo, Request, Response, Status, Streaming, Waiting};
use futures_core::Stream;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tollfree_ring::Flags;
use tollfree_wire::header::NO_DEADLINE;

/// A way to every service the daemon can reach. Cloning is cheap; clones and tasks share it freely. A channel whose
/// daemon was restarted attaches again with the next call.
#[derive(Clone, Debug)]
pub struct Channel {
    path: PathBuf,
    waiting: Waiting,
    descriptor_set: &'static [u8],
    attachment: Arc<Attachment>,
}

#[derive(Debug, Default)]
struct Attachment {
    current: Mutex<Option<Listened>>,
    /// Held while attaching, so that tasks that start together attach once.
    attaching: tokio::sync::Mutex<()>,
}

/// A link with the task that listens for it.
#[derive(Debug)]
struct Listened {
    link: Arc<Link>,
    listener: AbortHandle,
}

impl Drop for Listened {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Channel {
    /// Names the daemon's socket, usually [`default_socket`](crate::default_socket). The daemon learns of this client
    /// with the first call, when it is known what services it speaks to.
    ///
    /// # Errors
    /// `UNAVAILABLE` where there is no socket.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Channel, Status> {
        let path = path.as_ref().to_owned();
        if let Err(error) = std::fs::metadata(&path) {
            let why = format!(
                "{}: no daemon listens there ({error}); start one with `tollfree run`",
                path.display()
            );
            return Err(Status::unavailable(why));
        }
        Ok(Channel { path, waiting: Waiting::default(), descriptor_set: &[], attachment: Arc::default() })
    }

    /// How tasks wait for responses.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Channel {
        self.waiting = waiting;
        self.attachment = Arc::default();
        self
    }

    /// The same channel for the services in `descriptor_set`; generated clients do this in `new`. The daemon learns the
    /// layouts from it.
    #[must_use]
    pub fn describe(mut self, descriptor_set: &'static [u8]) -> Channel {
        self.descriptor_set = descriptor_set;
        self.attachment = Arc::default();
        self
    }

    /// Makes a call; generated clients wrap this. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The status the call ended with, where not OK.
    pub async fn call<Req: Message, Resp: Message>(
        &self,
        method: MethodInfo,
        request: Request<Req>,
    ) -> Result<Response<Resp>, Status> {
        let (metadata, timeout, message) = request.into_parts();
        let outgoing = Outgoing::new(&metadata, message)?;
        let link = self.link().await?;
        let (metadata, message) =
            link.call(method.id, &outgoing, deadline_us(timeout), Received::message).await??;
        Ok(Response::received(metadata, message))
    }

    /// Makes a call whose response is a stream; generated clients wrap this. Dropping the future, or the stream, cancels
    /// the call.
    ///
    /// # Errors
    /// The status the call ended with, where it did before its response began.
    pub async fn server_streaming<Req: Message, Resp: Message>(
        &self,
        method: MethodInfo,
        request: Request<Req>,
    ) -> Result<Response<Streaming<Resp>>, Status> {
        let (metadata, timeout, message) = request.into_parts();
        let outgoing = Outgoing::new(&metadata, message)?;
        let flags = Flags { last: true, ..Flags::default() };
        let reader = self.link().await?.open(method.id, &outgoing, flags, deadline_us(timeout)).await?;
        begun(Call { reader, writer: None }).await
    }

    /// Makes a call whose request is a stream; generated clients wrap this. The call begins with the stream's first
    /// message, which is what policies judge. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The status the call ended with, where not OK.
    pub async fn client_streaming<S, Resp>(
        &self,
        method: MethodInfo,
        request: Request<S>,
    ) -> Result<Response<Resp>, Status>
    where
        S: Stream<Item: Message> + Send + 'static,
        Resp: Message,
    {
        let (metadata, timeout, requests) = request.into_parts();
        let mut opening = Opening::new(self, method, metadata, timeout, requests);
        let first = opening.first().await?;
        let mut call = opening.open(first).await?;
        match poll_fn(|context| call.reader.poll_next(context)).await? {
            Item::End(received) => {
                let (metadata, message) = received.message()?;
                Ok(Response::received(metadata, message))
            }
            Item::Message(_) => Err(unexpected("a stream of responses")),
        }
    }

    /// Makes a call whose request and response are streams; generated clients wrap this. Dropping the future, or the
    /// stream, cancels the call.
    ///
    /// The call begins with the first message of the request, which is what policies judge. Where `request` has none
    /// yet, this returns at once, without metadata, and what became of the call is learned from the stream.
    ///
    /// # Errors
    /// The status the call ended with, where it did before its response began.
    pub async fn streaming<S, Resp>(
        &self,
        method: MethodInfo,
        request: Request<S>,
    ) -> Result<Response<Streaming<Resp>>, Status>
    where
        S: Stream<Item: Message> + Send + 'static,
        Resp: Message,
    {
        let (metadata, timeout, requests) = request.into_parts();
        let mut opening = Opening::new(self, method, metadata, timeout, requests);
        let first = poll_fn(|context| Poll::Ready(opening.requests.as_mut().poll_next(context))).await;
        if let Poll::Ready(first) = first {
            return begun(opening.open(first).await?).await;
        }
        let opening = tokio::spawn(async move {
            let first = opening.first().await?;
            opening.open(first).await
        });
        Ok(Response::new(Streaming::opening(opening)))
    }

    fn attached(&self) -> Option<Arc<Link>> {
        let current = self.attachment.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|listened| listened.link.clone()).filter(|link| !link.is_dead())
    }

    async fn link(&self) -> Result<Arc<Link>, Status> {
        if let Some(link) = self.attached() {
            return Ok(link);
        }
        let _first = self.attachment.attaching.lock().await;
        if let Some(link) = self.attached() {
            return Ok(link);
        }
        let (link, ears) = Link::attach(&self.path, self.descriptor_set, self.waiting).await?;
        let link = Arc::new(link);
        let listener = tokio::spawn(listen(link.clone(), ears)).abort_handle();
        let listened = Listened { link: link.clone(), listener };
        *self.attachment.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(listened);
        Ok(link)
    }
}

/// A call that begins with the first message of a stream.
struct Opening<S> {
    channel: Channel,
    method: MethodInfo,
    metadata: MetadataMap,
    until: Option<(Instant, Duration)>,
    requests: Pin<Box<S>>,
}

impl<S: Stream<Item: Message> + Send + 'static> Opening<S> {
    fn new(
        channel: &Channel,
        method: MethodInfo,
        metadata: MetadataMap,
        timeout: Option<Duration>,
        requests: S,
    ) -> Opening<S> {
        let until = timeout.map(|timeout| (Instant::now(), timeout));
        Opening { channel: channel.clone(), method, metadata, until, requests: Box::pin(requests) }
    }

    /// The first message; the time until it comes counts towards the deadline.
    async fn first(&mut self) -> Result<Option<S::Item>, Status> {
        let first = next(&mut self.requests);
        let Some((started, timeout)) = self.until else { return Ok(first.await) };
        let first = tokio::time::timeout_at((started + timeout).into(), first).await;
        first.map_err(|_| Status::deadline_exceeded("the deadline passed before the first message came"))
    }

    /// Makes the call, and has a task send what follows.
    async fn open(self, first: Option<S::Item>) -> Result<Call, Status> {
        let Opening { channel, method, metadata, until, requests } = self;
        let empty = first.is_none();
        let first = match first {
            Some(first) => Outgoing::new(&metadata, first)?,
            None => Outgoing::bare(&metadata)?,
        };
        let flags = Flags { last: empty, bare: empty, ..Flags::default() };
        let timeout = until.map(|(started, timeout)| timeout.saturating_sub(started.elapsed()));
        let link = channel.link().await?;
        let reader = link.open(method.id, &first, flags, deadline_us(timeout)).await?;
        let cookie = reader.cookie();
        let writer = (!empty).then(|| tokio::spawn(write_requests(link, cookie, requests)).abort_handle());
        Ok(Call { reader, writer })
    }
}

/// Sends what follows the first message, until the stream or the call ends.
async fn write_requests<S: Stream<Item: Message>>(link: Arc<Link>, cookie: u64, mut requests: Pin<Box<S>>) {
    let none = MetadataMap::new();
    while let Some(message) = next(&mut requests).await {
        let sent = match Outgoing::new(&none, message) {
            Ok(outgoing) => link.send_message(cookie, &outgoing).await,
            Err(status) => Err(status),
        };
        if let Err(status) = sent {
            return link.fail_request(cookie, status);
        }
    }
    link.end_request(cookie);
}

/// A call whose response has begun, or ended before it did.
async fn begun<Resp: Message>(mut call: Call) -> Result<Response<Streaming<Resp>>, Status> {
    if let Some(head) = call.reader.head().await? {
        return Ok(Response::received(head.metadata()?, Streaming::of_call(call)));
    }
    match poll_fn(|context| call.reader.poll_next(context)).await? {
        Item::End(received) => Ok(Response::new(Streaming::ended(received.metadata()?))),
        Item::Message(_) => Err(unexpected("a message before the response has begun")),
    }
}

fn unexpected(what: &str) -> Status {
    Status::internal(format!("the daemon delivered {what}; are the library and the daemon of one version?"))
}

/// No time left is no time left; more than the header can say is the longest it can.
fn deadline_us(timeout: Option<Duration>) -> Option<u32> {
    timeout.map(|timeout| {
        u32::try_from(timeout.as_micros()).map_or(NO_DEADLINE - 1, |us| us.min(NO_DEADLINE - 1))
    })
}
