//! Streams of `demo.Feed`, by Tollfree and by tonic over TCP: the same service and the same client, written once.
//! `cargo xtask perf streams` compares the two.
#![forbid(unsafe_code)]

mod feed;
mod load;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use load::Load;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Streams messages, by Tollfree or by tonic", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve demo.Feed until asked to end
    Serve,
    /// Serve demo.Feed by tonic until asked to end
    ServeTonic {
        /// Where to listen
        listen: SocketAddr,
    },
    /// Stream by Tollfree; prints one line of JSON
    Run(Load),
    /// Stream by tonic; prints one line of JSON
    RunTonic {
        /// Where a `serve-tonic` listens
        to: SocketAddr,
        #[command(flatten)]
        load: Load,
    },
}

fn main() -> Result<()> {
    let command = Arguments::parse().command;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(command))
}

async fn run(command: Command) -> Result<()> {
    let outcome = match command {
        Command::Serve => {
            let service = feed::tollfree::FeedServer::new(feed::tollfree::Service);
            let server = tollfree::Server::builder().add_service(service);
            server.serve_with_shutdown(tollfree::default_socket(), terminated()?).await?;
            return Ok(());
        }
        Command::ServeTonic { listen } => {
            let service = feed::tonic::FeedServer::new(feed::tonic::Service);
            let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
            server.serve_with_shutdown(listen, terminated()?).await?;
            return Ok(());
        }
        Command::Run(load) => {
            let channel = tollfree::Channel::connect(tollfree::default_socket()).await?;
            feed::tollfree::run(feed::tollfree::FeedClient::new(channel), &load).await?
        }
        Command::RunTonic { to, load } => {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{to}"))?.tcp_nodelay(true);
            let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {to}"))?;
            feed::tonic::run(feed::tonic::FeedClient::new(channel), &load).await?
        }
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn terminated() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        terminate.recv().await;
    })
}
