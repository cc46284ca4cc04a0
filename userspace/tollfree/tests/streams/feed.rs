//! A service with methods of all three streaming kinds, for tests.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tollfree::codegen::Stream;
use tollfree::metadata::MetadataMap;
use tollfree::{Code, Request, Response, Status, Streaming};

include!("../../../schema/tests/golden/demo.rs");

pub type Items = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

/// What the service has done.
#[derive(Default)]
pub struct Deeds {
    /// Items that a subscription has asked its source for.
    pub produced: AtomicU64,
    /// Sources of subscriptions that were dropped.
    pub dropped: AtomicU64,
    /// Items that a publication has read.
    pub read: AtomicU64,
    /// What publications ended with when they ended badly, as a code's number.
    pub failed: AtomicU64,
}

#[derive(Default)]
pub struct Feed {
    pub deeds: Arc<Deeds>,
}

pub fn item(number: u64, len: usize) -> Item {
    Item { user: "alice".into(), number, payload: vec![number as u8; len] }
}

impl feed_server::Feed for Feed {
    type SubscribeStream = Items;
    type ConverseStream = Items;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Items>, Status> {
        let user = request.metadata().get("x-user").cloned();
        let SubscribeRequest { topic, limit, .. } = request.into_inner();
        if topic == "refused" {
            let mut metadata = MetadataMap::new();
            metadata.insert("why", "it is a test".parse().unwrap());
            return Err(Status::with_metadata(Code::PermissionDenied, "not this topic", metadata));
        }
        let (len, pause) = match topic.as_str() {
            "large" => (300_000, None),
            "silent" => (0, Some(0)),
            "stalls" => (10, Some(3)),
            _ => (100, None),
        };
        let deeds = Dropped(self.deeds.clone());
        let mut number = 0;
        let items = FromFn(Box::new(move |_| {
            deeds.0.produced.fetch_add(1, Ordering::Relaxed);
            if pause.is_some_and(|pause| number >= pause) {
                return Poll::Pending;
            }
            if topic == "fails" && number == 3 {
                return Poll::Ready(Some(Err(Status::not_found("no more of these"))));
            }
            if limit != 0 && number == limit {
                return Poll::Ready(None);
            }
            number += 1;
            Poll::Ready(Some(Ok(item(number - 1, len))))
        }));
        let mut response = Response::new(Box::pin(items) as Items);
        if let Some(user) = user {
            response.metadata_mut().insert("x-hello", user);
        }
        Ok(response)
    }

    async fn publish(&self, request: Request<Streaming<Item>>) -> Result<Response<PublishSummary>, Status> {
        let mut stream = request.into_inner();
        let mut summary = PublishSummary::default();
        loop {
            let item = match stream.message().await {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(status) => {
                    self.deeds.failed.store(status.code() as u64, Ordering::Relaxed);
                    return Err(status);
                }
            };
            self.deeds.read.fetch_add(1, Ordering::Relaxed);
            match item.number {
                u64::MAX => return Err(Status::aborted("that is enough")),
                // As slow as one can be.
                number if number == u64::MAX - 1 => std::future::pending::<()>().await,
                _ => {}
            }
            assert_eq!(item.number, summary.items, "in order");
            summary.items += 1;
            summary.bytes += item.payload.len() as u64;
        }
        let mut response = Response::new(summary);
        response.metadata_mut().insert("x-done", "yes".parse().unwrap());
        Ok(response)
    }

    async fn converse(&self, request: Request<Streaming<Item>>) -> Result<Response<Items>, Status> {
        let mut stream = request.into_inner();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(item)) = stream.message().await {
                if sender.send(Ok(item)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(Received(receiver))))
    }
}

struct Dropped(Arc<Deeds>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

type PollFn<T> = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<T>> + Send>;

/// A stream that a function yields.
pub struct FromFn<T>(pub PollFn<T>);

impl<T> Stream for FromFn<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}

/// These items, and then the end.
pub fn all(items: impl IntoIterator<Item = Item, IntoIter: Send + 'static>) -> FromFn<Item> {
    let mut items = items.into_iter();
    FromFn(Box::new(move |_| Poll::Ready(items.next())))
}

/// What comes through a channel.
pub struct Received<T>(pub mpsc::Receiver<T>);

impl<T> Stream for Received<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
