//! `demo.Feed` and its client. The code is the same for both libraries, whose stubs have the same shape: what is compared are
//! the libraries and what is below them.

macro_rules! arm {
    ($library:ident, $stubs:literal, $client:ty $(, #[$attribute:meta], #[$generated:meta])?) => {
        pub mod $library {
            use super::super::load::{Kind, Load, Made, Meter, Sent};
            use anyhow::{Context, Result};
            use futures_core::Stream;
            use std::pin::Pin;
            use std::time::Instant;
            use tokio::sync::mpsc;
            use tokio::task::JoinSet;
            use tollfree_demo::streams::Outcome;
            use $library::{Request, Response, Status, Streaming};

            $(#[$generated])?
            mod stubs {
                include!(concat!(env!("OUT_DIR"), $stubs));
            }

            pub use stubs::feed_client::FeedClient;
            pub use stubs::feed_server::FeedServer;
            use stubs::{Item, PublishSummary, SubscribeRequest, feed_server::Feed};

            type Items = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

            fn item(number: u64, bytes: usize) -> Item {
                Item { user: "alice".into(), number, payload: vec![0x5a; bytes] }
            }

            pub struct Service;

            $(#[$attribute])?
            impl Feed for Service {
                type SubscribeStream = Items;
                type ConverseStream = Items;

                /// Items of as many bytes as the topic says, without end.
                async fn subscribe(
                    &self,
                    request: Request<SubscribeRequest>,
                ) -> Result<Response<Items>, Status> {
                    let topic = request.into_inner().topic;
                    let bytes = topic.parse().map_err(|_| Status::invalid_argument("a topic is a length"))?;
                    let mut number = 0;
                    let made = Made(move || {
                        number += 1;
                        Some(Ok(item(number, bytes)))
                    });
                    Ok(Response::new(Box::pin(made)))
                }

                async fn publish(
                    &self,
                    request: Request<Streaming<Item>>,
                ) -> Result<Response<PublishSummary>, Status> {
                    let mut items = request.into_inner();
                    let mut summary = PublishSummary::default();
                    while let Some(item) = items.message().await? {
                        summary.items += 1;
                        summary.bytes += item.payload.len() as u64;
                    }
                    Ok(Response::new(summary))
                }

                async fn converse(
                    &self,
                    request: Request<Streaming<Item>>,
                ) -> Result<Response<Items>, Status> {
                    Ok(Response::new(Box::pin(request.into_inner())))
                }
            }

            /// One turn of as many streams as are asked for.
            pub async fn run(client: $client, load: &Load) -> Result<Outcome> {
                let (end, mut meter) = (load.end(), Meter::start()?);
                let mut streams = JoinSet::new();
                for _ in 0..load.streams.max(1) {
                    streams.spawn(stream(client.clone(), *load, end));
                }
                while let Some(part) = streams.join_next().await {
                    meter.add(&part??);
                }
                Ok(meter.outcome())
            }

            async fn stream(client: $client, load: Load, end: Instant) -> Result<Meter> {
                let mut meter = Meter::start()?;
                let bytes = load.bytes;
                let mut number = 0;
                let made = Made(move || {
                    number += 1;
                    (Instant::now() < end).then(|| item(number, bytes))
                });
                match load.kind {
                    Kind::Server => {
                        let (user, topic) = ("alice".to_owned(), bytes.to_string());
                        let request = SubscribeRequest { user, topic, limit: 0 };
                        let mut items = client.clone().subscribe(request).await?.into_inner();
                        while Instant::now() < end {
                            items.message().await?.context("the server has ended its stream")?;
                            meter.count(1);
                        }
                    }
                    Kind::Client => meter.count(client.clone().publish(made).await?.into_inner().items),
                    Kind::Bidirectional => {
                        let mut back = client.clone().converse(made).await?.into_inner();
                        while back.message().await?.is_some() {
                            meter.count(1);
                        }
                    }
                    Kind::PingPong => {
                        let (say, said) = mpsc::channel(1);
                        say.send(item(0, bytes)).await?;
                        let mut heard = client.clone().converse(Sent(said)).await?.into_inner();
                        heard.message().await?.context("the server has ended its stream")?;
                        while Instant::now() < end {
                            let started = Instant::now();
                            say.send(item(1, bytes)).await?;
                            heard.message().await?.context("the server has ended its stream")?;
                            meter.back(started.elapsed());
                        }
                    }
                }
                Ok(meter)
            }
        }
    };
}

arm!(tollfree, "/feed/demo.rs", FeedClient);
arm!(tonic, "/tonic/demo.rs", FeedClient<tonic::transport::Channel>, #[tonic::async_trait], #[expect(unused_qualifications, reason = "tonic's generator writes them")]);
