//! The service's end: which services there are, and attaching to the daemon, again where it comes back. How requests are taken
//! and answered is in `desk`, how handlers run in `handler`.

use crate::attach::{Ears, open, process_name};
use crate::{CallInfo, HandlerFuture, Service, Status, Waiting};
use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tollfree_ring::app::Port;
use tollfree_ring::attach;

mod desk;
mod handler;
mod streams;

use desk::Desk;

/// How long a server waits before it looks for its daemon again, the first time and at most.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

type Start = Box<dyn Fn(CallInfo, &[u8], &[u8]) -> HandlerFuture + Send + Sync>;

/// Offers services to the daemon.
///
/// A daemon may be restarted while its servers run: they attach to the next one. Calls under way end `UNAVAILABLE`.
#[derive(Default)]
pub struct Server {
    waiting: Waiting,
    ends_with_daemon: bool,
    names: Vec<String>,
    descriptor_sets: Vec<Vec<u8>>,
    offer: Offer,
}

/// The handlers, and which of them has a method.
#[derive(Default)]
struct Offer {
    handlers: Vec<Start>,
    methods: HashMap<u32, usize>,
}

impl Server {
    /// A server without services.
    pub fn builder() -> Server {
        Server::default()
    }

    /// How the server waits for requests.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Server {
        self.waiting = waiting;
        self
    }

    /// Has the server end when its daemon does, for a supervisor to start it again, rather than attach to the next one.
    #[must_use]
    pub fn end_with_daemon(mut self) -> Server {
        self.ends_with_daemon = true;
        self
    }

    /// Offers a service, as a generated `…Server` wraps it.
    #[must_use]
    pub fn add_service<S: Service>(mut self, service: S) -> Server {
        let service = Arc::new(service);
        let Offer { handlers, methods } = &mut self.offer;
        methods.extend(S::METHODS.iter().map(|method| (method.id, handlers.len())));
        handlers.push(Box::new(move |info, flat, body| service.clone().call(info, flat, body)));
        self.names.push(S::NAME.to_owned());
        if !self.descriptor_sets.iter().any(|set| set == S::DESCRIPTOR_SET) {
            self.descriptor_sets.push(S::DESCRIPTOR_SET.to_vec());
        }
        self
    }

    /// Serves for good. When the daemon ends, the server waits until one listens at `path` again, and attaches to that.
    ///
    /// # Errors
    /// `UNAVAILABLE` when no daemon listens at `path` in the beginning, or it ends and [`Server::end_with_daemon`] says so;
    /// `FAILED_PRECONDITION` when it, or the next one, refuses the services.
    pub async fn serve(self, path: impl AsRef<Path>) -> Result<(), Status> {
        self.serve_with_shutdown(path, std::future::pending()).await
    }

    /// Serves until `shutdown` completes; handlers at work then have five seconds to finish.
    ///
    /// # Errors
    /// As [`Server::serve`]; a shutdown is none.
    pub async fn serve_with_shutdown(
        self,
        path: impl AsRef<Path>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Status> {
        let Server { waiting, ends_with_daemon, names, descriptor_sets, offer } = self;
        let greeting =
            attach::Attach { version: attach::VERSION, name: process_name(), descriptor_sets, serves: names };
        let (path, offer, mut shutdown) = (path.as_ref(), Arc::new(offer), pin!(shutdown));
        let mut attached = open(path, greeting.clone()).await?;
        loop {
            let (port, ears) = attached;
            let (desk, answered) = Desk::new(port, waiting, offer.clone());
            match desk.run(ears, answered, shutdown.as_mut()).await {
                Err(_) if !ends_with_daemon => {}
                result => return result,
            }
            attached = tokio::select! {
                again = attach_again(path, &greeting) => again?,
                () = shutdown.as_mut() => return Ok(()),
            };
        }
    }
}

/// Attaches to the next daemon, once there is one.
async fn attach_again(path: &Path, greeting: &attach::Attach) -> Result<(Port, Ears), Status> {
    let [mut pause, longest] = LOOK_AGAIN;
    loop {
        tokio::time::sleep(pause).await;
        match open(path, greeting.clone()).await {
            Err(status) if status.code() == tollfree_wire::Code::Unavailable => {
                pause = (pause * 2).min(longest);
            }
            attached => return attached,
        }
    }
}
