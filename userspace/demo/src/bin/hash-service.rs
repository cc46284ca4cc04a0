//! A whole service: the trait that the schema's stubs define, and a server that offers it.
#![forbid(unsafe_code)]

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tollfree::{Request, Response, Server, Status};
use tollfree_demo::{
    digest,
    stubs::{
        HashRequest, HashResponse,
        hash_server::{Hash, HashServer},
    },
};

struct Hasher;

impl Hash for Hasher {
    async fn sha256(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let digest = digest(&request.get_ref().data).to_vec();
        Ok(Response::new(HashResponse { digest }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let asked_to_end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let server = Server::builder().add_service(HashServer::new(Hasher));
    server.serve_with_shutdown(tollfree::default_socket(), asked_to_end).await?;
    Ok(())
}
