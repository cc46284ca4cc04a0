//! Streams of all three kinds, as short as they get. With a daemon running:
//!
//! ```text
//! cargo run -p tollfree-demo --example feed -- serve
//! cargo run -p tollfree-demo --example feed
//! ```
#![forbid(unsafe_code)]

use anyhow::Result;
use std::pin::Pin;
use std::task::{Context, Poll};
use stubs::feed_server::{Feed, FeedServer};
use stubs::{Item, PublishSummary, SubscribeRequest, feed_client::FeedClient};
use tokio::sync::mpsc;
use tollfree::codegen::Stream;
use tollfree::{Channel, Request, Response, Server, Status, Streaming};

mod stubs {
    include!(concat!(env!("OUT_DIR"), "/feed/demo.rs"));
}

/// What comes through a channel; `tokio_stream::wrappers::ReceiverStream` is the same.
struct Received<T>(mpsc::Receiver<T>);

impl<T> Stream for Received<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

struct Publisher;

impl Feed for Publisher {
    type SubscribeStream = Received<Result<Item, Status>>;
    type ConverseStream = Received<Result<Item, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let SubscribeRequest { user, topic, limit } = request.into_inner();
        let (items, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for number in 0..limit {
                let item =
                    Item { user: user.clone(), number, payload: format!("{topic} {number}").into_bytes() };
                // Waits for as long as the subscriber does not read, and ends when he hangs up.
                if items.send(Ok(item)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Received(stream)))
    }

    async fn publish(&self, request: Request<Streaming<Item>>) -> Result<Response<PublishSummary>, Status> {
        let mut summary = PublishSummary::default();
        let mut items = request.into_inner();
        while let Some(item) = items.message().await? {
            summary.items += 1;
            summary.bytes += item.payload.len() as u64;
        }
        Ok(Response::new(summary))
    }

    async fn converse(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let mut heard = request.into_inner();
        let (say, said) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(item) = heard.message().await.transpose() {
                if say.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Received(said)))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let socket = tollfree::default_socket();
    if std::env::args().nth(1).is_some_and(|argument| argument == "serve") {
        Server::builder().add_service(FeedServer::new(Publisher)).serve(socket).await?;
        return Ok(());
    }
    let feed = FeedClient::new(Channel::connect(socket).await?);

    let mut request = Request::new(SubscribeRequest { user: "alice".into(), topic: "news".into(), limit: 3 });
    request.metadata_mut().insert("x-request-id", "42".parse()?);
    let mut items = feed.subscribe(request).await?.into_inner();
    while let Some(item) = items.message().await? {
        println!("subscribed: {}", String::from_utf8_lossy(&item.payload));
    }

    let (items, stream) = mpsc::channel(4);
    let publishing = tokio::spawn({
        let feed = feed.clone();
        async move { feed.publish(Received(stream)).await }
    });
    for number in 0..1000 {
        items.send(Item { user: "alice".into(), number, payload: vec![0; 100] }).await?;
    }
    drop(items);
    let PublishSummary { items, bytes } = publishing.await??.into_inner();
    println!("published: {items} items, {bytes} bytes");

    let (say, said) = mpsc::channel(4);
    let mut heard = feed.converse(Received(said)).await?.into_inner();
    for number in 0..3 {
        say.send(Item { user: "alice".into(), number, payload: vec![] }).await?;
        println!("conversed: {:?}", heard.message().await?.map(|item| item.number));
    }
    Ok(())
}
