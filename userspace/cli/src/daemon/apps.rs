//! The socket that applications attach to: who may, what they say they serve, and the end of their connections.
//! The rings themselves are `tollfree-ring`'s; what moves through them is the engine's.

use super::ask;
use anyhow::{Context, Result, anyhow};
use std::os::unix::net::UnixStream as BlockingStream;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tollfree_engine::{AppId, Attach, Command, Gone, Handle};
use tollfree_ring::daemon::Port;
use tollfree_ring::{Geometry, Handover, attach};
use tollfree_schema::Manifest;
use tracing::{debug, warn};

/// Greetings read at the same time; more wait in the socket's queue.
const GREETINGS_MAX: usize = 64;
/// The longest name that is kept of what an application calls itself.
const NAME_MAX: usize = 64;

/// Accepts applications until the task is dropped.
pub async fn serve(listener: UnixListener, engine: Handle, geometry: Geometry) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    loop {
        let Ok(permit) = greetings.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others' ends give some back.
                warn!(%error, "cannot accept an application");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let engine = engine.clone();
        tokio::spawn(async move {
            let attached = greet(stream, &engine, geometry).await;
            drop(permit);
            match attached {
                Ok(attached) => attached.until_gone(&engine).await,
                Err(error) => warn!("application refused: {}", crate::exit::flatten(&error)),
            }
        });
    }
}

/// An application whose rings the engine polls.
struct Attached {
    id: AppId,
    stream: UnixStream,
    gone: oneshot::Receiver<Gone>,
}

/// What an application said, read and checked.
struct Greeting {
    stream: BlockingStream,
    attach: Attach,
    handover: Handover,
    gone: oneshot::Receiver<Gone>,
}

async fn greet(stream: UnixStream, engine: &Handle, geometry: Geometry) -> Result<Attached> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    // Blocks for as long as the application takes, at most a few seconds.
    let Greeting { stream, attach, handover, gone } =
        tokio::task::spawn_blocking(move || greeting(stream, &geometry)).await??;

    // The engine first: an application must not find rings that nobody polls.
    let id = match ask(engine, |reply| Command::Attach(Box::new(attach), reply)).await {
        Ok(id) => id,
        Err(_) => {
            let why = "the engine serves as many applications as it can, or is stopping";
            attach::reply(&stream, Err(why))?;
            return Err(anyhow!(why));
        }
    };
    let handed_over = attach::reply(&stream, Ok(&handover)).map_err(anyhow::Error::from).and_then(|()| {
        stream.set_nonblocking(true)?;
        Ok(UnixStream::from_std(stream)?)
    });
    match handed_over {
        Ok(stream) => Ok(Attached { id, stream, gone }),
        Err(error) => {
            engine.send(Command::Detach(id))?;
            Err(error)
        }
    }
}

fn greeting(mut stream: BlockingStream, geometry: &Geometry) -> Result<Greeting> {
    let (said, peer) = attach::accept(&mut stream)?;
    let attach::Attach { version: _, mut name, descriptor_sets, serves } = said;
    name.retain(|c| !c.is_control());
    let name: String = name.chars().take(NAME_MAX).collect();
    let prepared = manifest(&descriptor_sets, &serves).and_then(|manifest| {
        let (port, handover) = Port::create(geometry).context("cannot make its rings")?;
        Ok((manifest, port, handover))
    });
    match prepared {
        Ok((manifest, port, handover)) => {
            let (left, gone) = oneshot::channel();
            let on_gone = Box::new(move |why| {
                // Nobody waits where the application parted first.
                let _ = left.send(why);
            });
            let attach = Attach { port, name, pid: peer.pid, manifest, serves, on_gone };
            Ok(Greeting { stream, attach, handover, gone })
        }
        Err(error) => {
            attach::reply(&stream, Err(&crate::exit::flatten(&error)))?;
            Err(error.context(format!("{name} (process {})", peer.pid)))
        }
    }
}

/// One manifest of all descriptor sets. A service that several of them have counts once.
fn manifest(descriptor_sets: &[Vec<u8>], serves: &[String]) -> Result<Manifest> {
    let mut all = Manifest::default();
    for set in descriptor_sets {
        for service in Manifest::from_descriptor_set(set)?.services {
            match all.service(&service.name) {
                None => all.services.push(service),
                Some(known) if *known == service => {}
                Some(_) => {
                    return Err(anyhow!("its descriptor sets disagree about service {}", service.name));
                }
            }
        }
    }
    match serves.iter().find(|name| all.service(name).is_none()) {
        None => Ok(all),
        Some(name) => Err(anyhow!("it serves {name}, which its descriptor sets do not define")),
    }
}

impl Attached {
    /// Waits for either end to part; then the engine forgets the application.
    async fn until_gone(self, engine: &Handle) {
        let Attached { id, mut stream, gone } = self;
        let mut byte = [0; 1];
        tokio::select! {
            // Nothing is said after the greeting: whatever comes is the end, or breaks the protocol.
            read = stream.read(&mut byte) => {
                debug!(?id, ?read, "application's socket closed");
                // An engine that has stopped has forgotten everyone.
                let _ = engine.send(Command::Detach(id));
            }
            why = gone => debug!(?id, ?why, "engine dismissed the application"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_takes_a_definition() {
        let error = manifest(&[], &["demo.Hash".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "it serves demo.Hash, which its descriptor sets do not define");
        assert!(manifest(&[b"rubbish".to_vec()], &[]).is_err());
    }
}
