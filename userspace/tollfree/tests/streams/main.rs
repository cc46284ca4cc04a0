//! Streams of all three kinds and metadata, through generated stubs and real engines: on one host, and between two.

mod feed;
mod hosts;

use feed::feed_client::FeedClient;
use feed::feed_server::FeedServer;
use feed::{Deeds, Feed, FromFn, Received, SubscribeRequest, all, item};
use hosts::Host;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tollfree::metadata::MetadataValue;
use tollfree::{Channel, Code, Request, Server, Status};
use tollfree_ring::{STREAM_BYTES, STREAM_MESSAGES};

/// Where client and service are.
#[derive(Clone, Copy, Debug)]
enum Place {
    SameHost,
    TwoHosts,
}

const PLACES: [Place; 2] = [Place::SameHost, Place::TwoHosts];

struct Setup {
    client: FeedClient,
    deeds: Arc<Deeds>,
    serving: JoinHandle<Result<(), Status>>,
    hosts: Vec<Host>,
}

impl Setup {
    async fn new(place: Place) -> Setup {
        let server = Host::start(&[]);
        let hosts = match place {
            Place::SameHost => vec![server],
            Place::TwoHosts => {
                let client = Host::start(&[("demo.Feed", server.address)]);
                vec![server, client]
            }
        };
        let service = Feed::default();
        let deeds = service.deeds.clone();
        let server = Server::builder().add_service(FeedServer::new(service));
        let serving = tokio::spawn(server.serve(hosts[0].socket.clone()));
        let channel = Channel::connect(&hosts[hosts.len() - 1].socket).await.unwrap();
        let setup = Setup { client: FeedClient::new(channel), deeds, serving, hosts };
        // Until the service has attached, calls find nobody.
        while let Err(status) = setup.client.publish(all([])).await {
            assert!(matches!(status.code(), Code::Unavailable | Code::Unimplemented), "{status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        setup
    }

    /// Nothing of a call that is over may stay.
    async fn nothing_is_left(&self, place: Place) {
        for host in &self.hosts {
            assert_eq!(host.calls_settle(0).await, 0, "{place:?}");
        }
    }
}

/// A hang is a failure, not a wait.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not end"),
    }
}

fn subscribe(topic: &str, limit: u64) -> SubscribeRequest {
    SubscribeRequest { user: "alice".into(), topic: topic.into(), limit }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_many_messages_arrives_whole_and_in_order() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        for (topic, limit, len) in [("all", 0, 0), ("all", 1, 100), ("all", 1000, 100), ("large", 5, 300_000)]
        {
            let request = subscribe(topic, limit.max(1));
            let mut items = soon("the head", setup.client.subscribe(request)).await.unwrap().into_inner();
            for number in 0..limit.max(1) {
                let got = soon("an item", items.message()).await.unwrap().expect("not the end yet");
                assert_eq!((got.number, got.user.as_str()), (number, "alice"), "{place:?}");
                assert!(len == 0 || got.payload.len() == len);
            }
            assert_eq!(soon("the end", items.message()).await, Ok(None));
            assert_eq!(soon("after the end", items.message()).await, Ok(None));
        }
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_many_messages_arrives_whole_and_in_order() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        for (count, len) in [(0, 0), (1, 10), (1000, 100), (5, 300_000)] {
            let items = all((0..count).map(move |number| item(number, len)));
            let response = soon("publishing", setup.client.publish(items)).await.unwrap();
            assert_eq!(response.metadata().get("x-done").unwrap(), "yes");
            let summary = response.into_inner();
            assert_eq!((summary.items, summary.bytes), (count, count * len as u64), "{place:?}");
        }
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_back_and_forth() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let (say, said) = mpsc::channel(1);
        // Nothing has been said yet: the call begins with the first item.
        let mut heard = soon("the stream", setup.client.converse(Received(said))).await.unwrap().into_inner();
        for number in 0..200 {
            say.send(item(number, 1000)).await.unwrap();
            let got = soon("an echo", heard.message()).await.unwrap().expect("not the end yet");
            assert_eq!(got, item(number, 1000), "{place:?}");
        }
        drop(say);
        assert_eq!(soon("the end", heard.message()).await, Ok(None));
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn one_thread_is_enough_for_both_ends_of_many_streams() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let conversations: Vec<_> = (0..20u64)
            .map(|start| {
                let client = setup.client.clone();
                tokio::spawn(async move {
                    let items = all((start..start + 100).map(|number| item(number, 100)));
                    let mut heard = client.converse(items).await.unwrap().into_inner();
                    for number in start..start + 100 {
                        assert_eq!(heard.message().await.unwrap().expect("an item").number, number);
                    }
                    assert_eq!(heard.message().await, Ok(None));
                })
            })
            .collect();
        for conversation in conversations {
            soon("a conversation", conversation).await.unwrap();
        }
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_stops_its_writer_and_nobody_else() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            idle.push(
                soon("the head", setup.client.subscribe(subscribe("large", 0))).await.unwrap().into_inner(),
            );
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let produced = setup.deeds.produced.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(setup.deeds.produced.load(Ordering::Relaxed), produced, "the writers wait: {place:?}");
        // A window's bytes in each of: the writer's task, its ring, the wire, the reader.
        let bound = 20 * 4 * (STREAM_BYTES as u64 / 300_000 + 2);
        assert!(produced <= bound, "{produced} items of 300 kB were produced for nobody: {place:?}");

        let response = soon("another call", setup.client.publish(all((0..300).map(|n| item(n, 2000))))).await;
        assert_eq!(response.unwrap().into_inner().items, 300);
        for items in &mut idle {
            for number in 0..10 {
                let got = soon("a late item", items.message()).await.unwrap().expect("not the end");
                assert_eq!(got.number, number, "{place:?}");
            }
        }
        drop(idle);
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_read_stops_its_client() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counting = sent.clone();
        let items = FromFn(Box::new(move |_| {
            let first = counting.fetch_add(1, Ordering::Relaxed) == 0;
            Poll::Ready(Some(item(if first { u64::MAX - 1 } else { 0 }, 10)))
        }));
        let publishing = tokio::spawn({
            let client = setup.client.clone();
            async move { client.publish(items).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let count = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(sent.load(Ordering::Relaxed), count, "the client waits: {place:?}");
        assert!(count <= 4 * STREAM_MESSAGES as u64 + 2000, "{count} items were taken for nobody: {place:?}");
        publishing.abort();
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_stream_cancels_its_call_at_both_ends() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let mut items =
            soon("the head", setup.client.subscribe(subscribe("stalls", 0))).await.unwrap().into_inner();
        for _ in 0..3 {
            assert!(soon("an item", items.message()).await.unwrap().is_some());
        }
        drop(items);
        let dropped = async {
            while setup.deeds.dropped.load(Ordering::Relaxed) < 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the service's source", dropped).await;
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_can_end_a_stream_early_and_says_why() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let endless = FromFn(Box::new({
            let mut number = 0;
            move |_| {
                number += 1;
                Poll::Ready(Some(item(if number == 10 { u64::MAX } else { number - 1 }, 10)))
            }
        }));
        let status = soon("publishing", setup.client.publish(endless)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "that is enough"), "{place:?}");

        let mut items =
            soon("the head", setup.client.subscribe(subscribe("fails", 0))).await.unwrap().into_inner();
        for _ in 0..3 {
            assert!(soon("an item", items.message()).await.unwrap().is_some());
        }
        let status = soon("the failure", items.message()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no more of these"), "{place:?}");
        assert_eq!(soon("after the failure", items.message()).await, Ok(None));
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_stream_at_both_ends() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let mut request = Request::new(subscribe("silent", 0));
        request.set_timeout(Duration::from_millis(200));
        let mut items = soon("the head", setup.client.subscribe(request)).await.unwrap().into_inner();
        let status = soon("the deadline", items.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{place:?}: {status}");
        let mut request = Request::new(FromFn(Box::new(|_| Poll::Pending)));
        request.set_timeout(Duration::from_millis(50));
        let status = soon("a request that never begins", setup.client.publish(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{place:?}: {status}");
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_service_dies_its_streams_end_unavailable() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let mut items =
            soon("the head", setup.client.subscribe(subscribe("stalls", 0))).await.unwrap().into_inner();
        assert!(soon("an item", items.message()).await.unwrap().is_some());
        setup.serving.abort();
        let ended = async {
            while let Some(_item) = items.message().await? {}
            Ok::<_, Status>(())
        };
        let status = soon("the stream of a dead service", ended).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{place:?}: {status}");
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_client_dies_the_service_hears_of_it() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let (say, said) = mpsc::channel(1);
        say.send(item(0, 1)).await.unwrap();
        let publishing = tokio::spawn({
            let client = setup.client.clone();
            async move { client.publish(Received(said)).await.map(drop) }
        });
        while setup.deeds.read.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        publishing.abort();
        setup.nothing_is_left(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_goes_both_ways_and_with_statuses() {
    for place in PLACES {
        let setup = Setup::new(place).await;
        let mut request = Request::new(subscribe("all", 1));
        request.metadata_mut().insert("x-user", "alice".parse().unwrap());
        request.metadata_mut().insert_bin("trace-bin", MetadataValue::from_bytes(&[0; 3000]));
        let response = soon("the head", setup.client.subscribe(request)).await.unwrap();
        assert_eq!(response.metadata().get("x-hello").unwrap(), "alice", "{place:?}");

        let status = soon("a refusal", setup.client.subscribe(subscribe("refused", 0))).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not this topic"));
        assert_eq!(status.metadata().get("why").unwrap(), "it is a test", "{place:?}");

        let mut request = Request::new(subscribe("all", 1));
        request.metadata_mut().insert("Not-Lower", "x".parse().unwrap());
        let status = soon("a bad key", setup.client.subscribe(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{place:?}: {status}");
    }
}
