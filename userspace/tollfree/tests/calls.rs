//! Channel and server over real rings, with a daemon made for the test between them.

mod daemon;

use daemon::Daemon;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tollfree::{
    CallInfo, Channel, Code, HandlerFuture, Message, MethodInfo, Request, Response, Server, Service, Status,
    Waiting, dispatch, unimplemented,
};
use tollfree_ring::Geometry;

const ECHO: MethodInfo = MethodInfo { path: "/test.Echo/Echo", id: 1 };
const SLOW: MethodInfo = MethodInfo { path: "/test.Echo/Slow", id: 2 };
const PANIC: MethodInfo = MethodInfo { path: "/test.Echo/Panic", id: 3 };
const REFUSE: MethodInfo = MethodInfo { path: "/test.Echo/Refuse", id: 4 };
const STUCK: MethodInfo = MethodInfo { path: "/test.Echo/Stuck", id: 5 };
const ABSENT: MethodInfo = MethodInfo { path: "/test.Echo/Absent", id: 6 };

const SMALL: Geometry = Geometry { slots: 4, tx_bytes: 8192, rx_bytes: 8192, long_bytes: 8192 };

/// As a stub generator writes it: `number` is flat, the rest is protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    text: Vec<u8>,
}

impl Message for Note {
    const LAYOUT: u32 = 77;
    const FLAT_LEN: usize = 8;

    fn take_flat(&mut self, block: &mut [u8]) -> Result<(), Status> {
        block.copy_from_slice(&std::mem::take(&mut self.number).to_le_bytes());
        Ok(())
    }

    fn put_flat(&mut self, block: &[u8]) {
        self.number = tollfree::codegen::flat::FlatView(block).u64(0).unwrap_or_default();
    }
}

#[derive(Default)]
struct Echo {
    started: Arc<AtomicUsize>,
    /// Lets one slow call end.
    slow: Arc<Notify>,
}

impl Service for Echo {
    const NAME: &'static str = "test.Echo";
    const DESCRIPTOR_SET: &'static [u8] = b"a set";
    const METHODS: &'static [MethodInfo] = &[ECHO, SLOW, PANIC, REFUSE, STUCK];

    fn call(self: Arc<Self>, info: CallInfo, flat: &[u8], body: &[u8]) -> HandlerFuture {
        self.started.fetch_add(1, Ordering::Relaxed);
        match info.method {
            1 => dispatch(info, flat, body, |request: Request<Note>| async {
                Ok(Response::new(request.into_inner()))
            }),
            2 => dispatch(info, flat, body, |request: Request<Note>| async move {
                self.slow.notified().await;
                Ok(Response::new(request.into_inner()))
            }),
            3 => dispatch(info, flat, body, |request: Request<Note>| async move {
                if request.get_ref().number == 1 {
                    tokio::task::yield_now().await;
                }
                if request.get_ref().number < 2 {
                    panic!("as the test wants it");
                }
                Ok(Response::new(request.into_inner()))
            }),
            4 => dispatch(info, flat, body, |_: Request<Note>| async {
                Err::<Response<Note>, _>(Status::not_found("no such note"))
            }),
            5 => dispatch(info, flat, body, |_: Request<Note>| {
                std::future::pending::<Result<Response<Note>, Status>>()
            }),
            _ => unimplemented(info),
        }
    }
}

fn note(number: u64, len: usize) -> Note {
    Note { number, text: vec![number as u8; len] }
}

async fn say(channel: &Channel, method: MethodInfo, note: Note) -> Result<Note, Status> {
    Ok(channel.call::<Note, Note>(method, Request::new(note)).await?.into_inner())
}

/// Waits until the service has attached: until then calls find nobody.
async fn ready(channel: &Channel) {
    while let Err(status) = say(channel, ECHO, note(0, 0)).await {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn setup(
    geometry: Geometry,
    waiting: Waiting,
) -> (Daemon, Channel, tokio::task::JoinHandle<Result<(), Status>>) {
    serve(Echo::default(), geometry, waiting).await
}

async fn serve(
    echo: Echo,
    geometry: Geometry,
    waiting: Waiting,
) -> (Daemon, Channel, tokio::task::JoinHandle<Result<(), Status>>) {
    let daemon = Daemon::start(geometry);
    let server = Server::builder().waiting(waiting).end_with_daemon().add_service(echo);
    let serving = tokio::spawn(server.serve(daemon.path.clone()));
    let channel = Channel::connect(daemon.path()).await.unwrap().waiting(waiting).describe(b"a set");
    ready(&channel).await;
    (daemon, channel, serving)
}

/// A hang is a failure, not a wait.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not end"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_waiting_carries_messages_of_every_size() {
    for waiting in [Waiting::Busy, Waiting::Adaptive, Waiting::Sleep] {
        let (_daemon, channel, serving) = setup(Geometry::default(), waiting).await;
        for len in [0, 1, 255, 4096, 100_000, 1 << 20] {
            let sent = note(len as u64, len);
            assert_eq!(soon("a call", say(&channel, ECHO, sent.clone())).await, Ok(sent), "{waiting:?}");
        }
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_through_small_rings_wait_for_room_and_all_end() {
    let (_daemon, channel, _serving) = setup(SMALL, Waiting::Adaptive).await;
    let calls: Vec<_> = (0..2000u64)
        .map(|number| {
            let channel = channel.clone();
            tokio::spawn(async move { say(&channel, ECHO, note(number, (number % 900) as usize)).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let got = soon("a call through a full ring", call).await.unwrap().unwrap();
        assert_eq!(got, note(number as u64, number % 900));
    }
    let status = say(&channel, ECHO, note(0, 9000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test(flavor = "current_thread")]
async fn one_thread_for_everything_is_enough() {
    let (_daemon, channel, _serving) = setup(SMALL, Waiting::Adaptive).await;
    let calls: Vec<_> = (0..300u64)
        .map(|number| {
            let channel = channel.clone();
            tokio::spawn(async move { say(&channel, ECHO, note(number, 10)).await })
        })
        .collect();
    for call in calls {
        soon("a call", call).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_waits_or_panics_harms_no_other() {
    let echo = Echo::default();
    let slow_calls = echo.slow.clone();
    let (_daemon, channel, _serving) = serve(echo, Geometry::default(), Waiting::Adaptive).await;
    let slow = tokio::spawn({
        let channel = channel.clone();
        async move { say(&channel, SLOW, note(1, 1)).await }
    });
    for panics in 0..2 {
        let status = soon("a panic", say(&channel, PANIC, note(panics, 1))).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
    }
    for number in 0..20 {
        assert!(soon("a quick call", say(&channel, ECHO, note(number, 1))).await.is_ok());
    }
    assert!(!slow.is_finished(), "quick calls passed the slow one");
    slow_calls.notify_one();
    assert!(soon("the slow call", slow).await.unwrap().is_ok());
    let status = say(&channel, REFUSE, note(0, 0)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such note"));
    assert_eq!(say(&channel, ABSENT, note(0, 0)).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_call_cancels_it_and_frees_its_room() {
    let (daemon, channel, _serving) = setup(SMALL, Waiting::Adaptive).await;
    for _ in 0..50 {
        let call = say(&channel, STUCK, note(1, 3000));
        assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
    }
    assert!(soon("a call after many cancelled ones", say(&channel, ECHO, note(1, 3000))).await.is_ok());
    let all = async {
        while daemon.cancelled.load(Ordering::Relaxed) < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("cancelling", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_room_counts_towards_the_deadline() {
    let (_daemon, channel, _serving) = setup(SMALL, Waiting::Adaptive).await;
    let filling = tokio::spawn({
        let channel = channel.clone();
        async move { say(&channel, STUCK, note(1, 5000)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut request = Request::new(note(2, 5000));
    request.set_timeout(Duration::from_millis(50));
    let call = channel.call::<Note, Note>(ECHO, request);
    let status = soon("a call without room", call).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    filling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_never_fits_is_refused_at_once() {
    let (_daemon, channel, _serving) = setup(SMALL, Waiting::Adaptive).await;
    let most = SMALL.long_bytes as usize;
    let status = soon("a call too long", say(&channel, ECHO, note(1, most + 1))).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    soon("a call after it", say(&channel, ECHO, note(2, most - 200))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_daemon_dies_calls_and_servers_end_unavailable() {
    for waiting in [Waiting::Busy, Waiting::Adaptive, Waiting::Sleep] {
        let (mut daemon, channel, serving) = setup(Geometry::default(), waiting).await;
        let calls: Vec<_> = (0..10)
            .map(|number| {
                let channel = channel.clone();
                tokio::spawn(async move { say(&channel, STUCK, note(number, 1)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        daemon.kill();
        for call in calls {
            let status = soon("a call to a dead daemon", call).await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{waiting:?}: {status}");
        }
        let status = soon("a server of a dead daemon", serving).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{waiting:?}: {status}");
        let status = soon("a later call", say(&channel, ECHO, note(0, 0))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{waiting:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_attaches_to_the_daemon_that_comes_after_its_own() {
    for waiting in [Waiting::Busy, Waiting::Adaptive, Waiting::Sleep] {
        let mut daemon = Daemon::start(Geometry::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = Server::builder().waiting(waiting).add_service(Echo::default());
        let serving = tokio::spawn(server.serve_with_shutdown(daemon.path.clone(), async {
            let _ = stopped.await;
        }));
        let channel = Channel::connect(daemon.path()).await.unwrap().waiting(waiting).describe(b"a set");
        ready(&channel).await;
        for round in 0..3 {
            daemon.restart();
            soon("the server's return", ready(&channel)).await;
            assert!(soon("a call", say(&channel, ECHO, note(round, 1))).await.is_ok(), "{waiting:?}");
        }
        daemon.kill();
        stop.send(()).unwrap();
        assert_eq!(soon("a server without a daemon", serving).await.unwrap(), Ok(()), "{waiting:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_handlers_finish() {
    let daemon = Daemon::start(Geometry::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let echo = Echo::default();
    let (slow_calls, started) = (echo.slow.clone(), echo.started.clone());
    let server = Server::builder().add_service(echo);
    let serving = tokio::spawn(server.serve_with_shutdown(daemon.path.clone(), async {
        let _ = stopped.await;
    }));
    let channel = Channel::connect(daemon.path()).await.unwrap().describe(b"a set");
    ready(&channel).await;
    let before = started.load(Ordering::Relaxed);
    let slow = tokio::spawn({
        let channel = channel.clone();
        async move { say(&channel, SLOW, note(1, 1)).await }
    });
    soon("the slow call's beginning", async {
        while started.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    stop.send(()).unwrap();
    // Long enough for the server to notice, as a rule; it has to let the call end in any case.
    tokio::time::sleep(Duration::from_millis(20)).await;
    slow_calls.notify_one();
    assert!(soon("the slow call", slow).await.unwrap().is_ok());
    assert_eq!(soon("the server", serving).await.unwrap(), Ok(()));
}
