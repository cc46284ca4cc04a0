//! Sends large messages and has each acknowledged by the application at the other end: by calls (`demo.Kv/SET`), and over one
//! TCP connection as the plainest program one could write. `cargo xtask perf goodput` compares the two.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tollfree::{Channel, Request, Response, Server, Status};
use tollfree_demo::{
    bulk::{Load, Outcome, durations},
    kv::{
        GetRequest, GetResponse, SetRequest, SetResponse,
        kv_client::KvClient,
        kv_server::{Kv, KvServer},
    },
};

#[derive(Parser)]
#[command(about = "Sends large messages, by calls or over TCP", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve demo.Kv, keeping nothing, until asked to end
    Serve,
    /// Acknowledge messages over TCP until asked to end
    ServeTcp {
        /// Where to listen
        listen: SocketAddr,
    },
    /// Send by calls; prints one line of JSON
    Send(Load),
    /// Send over TCP; prints one line of JSON
    SendTcp {
        /// Where a `serve-tcp` listens
        to: SocketAddr,
        #[command(flatten)]
        load: Load,
    },
}

/// A call is given up after this long: longer than any run.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a message's length before it, and of its acknowledgement.
const WORD: usize = 8;

fn main() -> Result<()> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match Arguments::parse().command {
        Command::Serve => return runtime()?.block_on(serve()),
        Command::ServeTcp { listen } => return serve_tcp(listen),
        Command::Send(load) => runtime()?.block_on(send(load))?,
        Command::SendTcp { to, load } => send_tcp(to, load)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Takes everything and keeps nothing.
struct Sink;

impl Kv for Sink {
    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::not_found("nothing is kept here"))
    }

    async fn set(&self, _: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        Ok(Response::new(SetResponse { replaced: false }))
    }
}

async fn serve() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let asked_to_end = async move {
        terminate.recv().await;
    };
    let server = Server::builder().add_service(KvServer::new(Sink));
    server.serve_with_shutdown(tollfree::default_socket(), asked_to_end).await?;
    Ok(())
}

/// One message, and how long it took.
async fn set(client: KvClient, bytes: usize) -> Result<Duration, Status> {
    let (user, key, value) = ("alice".into(), "bulk".into(), vec![0x5a; bytes]);
    let mut request = Request::new(SetRequest { user, key, value, ttl_ms: 0 });
    request.set_timeout(TIMEOUT);
    let started = Instant::now();
    client.set(request).await.map(|_| started.elapsed())
}

async fn send(load: Load) -> Result<Outcome> {
    let client = KvClient::new(Channel::connect(tollfree::default_socket()).await?);
    // Agrees on the session and the layout.
    set(client.clone(), load.bytes).await?;
    let (mut durations, mut failed) = (durations()?, 0);
    let (started, mut last) = (Instant::now(), Duration::ZERO);
    let mut calls = JoinSet::new();
    for _ in 0..load.outstanding {
        calls.spawn(set(client.clone(), load.bytes));
    }
    let end = tokio::time::Instant::now() + load.time();
    while let Ok(Some(result)) = tokio::time::timeout_at(end, calls.join_next()).await {
        last = started.elapsed();
        match result? {
            Ok(took) => durations.saturating_record(took.as_nanos() as u64),
            Err(status) => {
                failed += 1;
                eprintln!("a call failed: {status}");
            }
        }
        calls.spawn(set(client.clone(), load.bytes));
    }
    Ok(Outcome::new(&load, &durations, failed, last.max(load.time())))
}

fn serve_tcp(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept a connection")?;
        std::thread::spawn(move || {
            // A sender that is done cuts off what it has under way.
            let _ = acknowledge(stream);
        });
    }
    Ok(())
}

fn acknowledge(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut word, mut message) = ([0; WORD], Vec::new());
    loop {
        stream.read_exact(&mut word)?;
        // Our own sender's length; memory grows with what really arrives.
        message.clear();
        (&stream).take(u64::from_le_bytes(word)).read_to_end(&mut message)?;
        stream.write_all(&word)?;
    }
}

fn send_tcp(to: SocketAddr, load: Load) -> Result<Outcome> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    // As many messages as are under way have their beginning in here.
    let (begun, answered) = sync_channel(load.outstanding.max(1));
    let writing = std::thread::spawn(move || {
        let message = vec![0x5a; load.bytes];
        while begun.send(Instant::now()).is_ok() {
            let written = writer
                .write_all(&(load.bytes as u64).to_le_bytes())
                .and_then(|()| writer.write_all(&message));
            if written.is_err() {
                return;
            }
        }
    });
    let mut durations = durations()?;
    let (started, mut word) = (Instant::now(), [0; WORD]);
    loop {
        let left = load.time().saturating_sub(started.elapsed());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        // Eight bytes never come in halves.
        match stream.read(&mut word) {
            Ok(WORD) => {}
            Ok(_) => anyhow::bail!("the other end has hung up"),
            Err(_) => break,
        }
        durations.saturating_record(answered.recv()?.elapsed().as_nanos() as u64);
    }
    let took = started.elapsed();
    drop(answered);
    // Has the writer's last write fail; the connection may be gone already.
    let _ = stream.shutdown(Shutdown::Both);
    let _ = writing.join();
    Ok(Outcome::new(&load, &durations, 0, took))
}
