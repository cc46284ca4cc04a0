//! A whole service: the trait that the schema's stubs define, and a server that offers it.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tollfree::{Request, Response, Server, Status};
use tollfree_demo::{
    digest,
    stubs::{
        HashRequest, HashResponse,
        hash_server::{Hash, HashServer},
    },
};

#[derive(Parser)]
#[command(about = "Serves demo.Hash until it is asked to end", version)]
struct Arguments {
    /// The daemon's socket
    #[arg(long, default_value_os_t = tollfree::default_socket())]
    socket: PathBuf,
}

struct Hasher;

impl Hash for Hasher {
    async fn sha256(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let digest = digest(&request.get_ref().data).to_vec();
        Ok(Response::new(HashResponse { digest }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { socket } = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let asked_to_end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let server = Server::builder().add_service(HashServer::new(Hasher));
    server.serve_with_shutdown(socket, asked_to_end).await?;
    Ok(())
}
