//! A sequence of messages as it arrives: requests at a handler, responses at a client.

use crate::flow::Inbox;
use crate::link::{Item, Reader};
use crate::metadata::MetadataMap;
use crate::received::Received;
use crate::{Message, Status};
use futures_core::Stream;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::{AbortHandle, JoinHandle};

/// Messages that arrive one after the other. Reading them is what lets the other end send more: a slow reader slows its
/// writer, and what waits for it is bounded.
///
/// Dropping a client's stream cancels its call.
pub struct Streaming<T> {
    source: Source,
    trailers: Option<MetadataMap>,
    message: PhantomData<fn() -> T>,
}

enum Source {
    /// At a client.
    Call(Call),
    /// At a client whose call begins with the first message of a stream that had none yet.
    Opening(JoinHandle<Result<Call, Status>>),
    /// At a handler, with the first message, which came with the request.
    Handler { first: Option<Received>, requests: Requests },
    /// It has ended.
    Over,
}

/// A client's call that streams: what comes, and the task that sends.
pub(crate) struct Call {
    pub reader: Reader,
    /// The task that sends the request's messages.
    pub writer: Option<AbortHandle>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.abort();
        }
    }
}

/// A handler's end of a streaming request.
pub(crate) struct Requests {
    pub inbox: Arc<Inbox>,
    /// Tells the serving task to give credit.
    pub credit: Box<dyn Fn() + Send + Sync>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.inbox.close();
        (self.credit)();
    }
}

impl<T: Message> Streaming<T> {
    pub(crate) fn of_call(call: Call) -> Streaming<T> {
        Streaming::new(Source::Call(call))
    }

    pub(crate) fn opening(opening: JoinHandle<Result<Call, Status>>) -> Streaming<T> {
        Streaming::new(Source::Opening(opening))
    }

    pub(crate) fn of_handler(first: Option<Received>, requests: Requests) -> Streaming<T> {
        Streaming::new(Source::Handler { first, requests })
    }

    /// A stream that has ended well before its first message.
    pub(crate) fn ended(trailers: MetadataMap) -> Streaming<T> {
        let mut ended = Streaming::new(Source::Over);
        ended.trailers = (!trailers.is_empty()).then_some(trailers);
        ended
    }

    fn new(source: Source) -> Streaming<T> {
        Streaming { source, trailers: None, message: PhantomData }
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// The status the stream ended with, where not OK. It comes once.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        poll_fn(|context| self.poll_message(context)).await
    }

    /// What the call's end said beside its status; reads what is left of the stream first.
    ///
    /// # Errors
    /// The status the stream ended with, where not OK.
    pub async fn trailers(&mut self) -> Result<Option<MetadataMap>, Status> {
        while self.message().await?.is_some() {}
        Ok(self.trailers.take())
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<T>, Status>> {
        loop {
            match &mut self.source {
                Source::Over => return Poll::Ready(Ok(None)),
                Source::Opening(opening) => {
                    let opened = std::task::ready!(Pin::new(opening).poll(context));
                    let opened = opened.unwrap_or_else(|_| {
                        Err(Status::cancelled("the task that was to make the call has ended"))
                    });
                    match opened {
                        Ok(call) => self.source = Source::Call(call),
                        Err(status) => return self.over(Err(status)),
                    }
                }
                Source::Call(Call { reader, .. }) => {
                    return match std::task::ready!(reader.poll_next(context)) {
                        Ok(Item::Message(received)) => self.decoded(&received),
                        Ok(Item::End(received)) => {
                            let trailers = received.metadata();
                            let trailers = trailers.map(|trailers| {
                                self.trailers = (!trailers.is_empty()).then_some(trailers);
                            });
                            self.over(trailers)
                        }
                        Err(status) => self.over(Err(status)),
                    };
                }
                Source::Handler { first, requests } => {
                    if let Some(first) = first.take() {
                        requests.inbox.consumed_first(first.bytes.len());
                        return self.decoded(&first);
                    }
                    let (next, credit) = std::task::ready!(requests.inbox.poll_next(context));
                    if credit {
                        (requests.credit)();
                    }
                    return match next {
                        Some(Ok(received)) => self.decoded(&received),
                        Some(Err(status)) => self.over(Err(status)),
                        None => self.over(Ok(())),
                    };
                }
            }
        }
    }

    /// A message that does not decode ends the stream: what it was is not known.
    fn decoded(&mut self, received: &Received) -> Poll<Result<Option<T>, Status>> {
        match received.message() {
            Ok((_, message)) => Poll::Ready(Ok(Some(message))),
            Err(status) => self.over(Err(status)),
        }
    }

    fn over(&mut self, how: Result<(), Status>) -> Poll<Result<Option<T>, Status>> {
        self.source = Source::Over;
        Poll::Ready(how.map(|()| None))
    }
}

impl<T: Message> Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context).map(Result::transpose)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Source::Opening(opening) = self {
            opening.abort();
        }
    }
}

impl<T> std::fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").finish_non_exhaustive()
    }
}

/// The next of a stream.
pub(crate) async fn next<S: Stream>(stream: &mut Pin<Box<S>>) -> Option<S::Item> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}
