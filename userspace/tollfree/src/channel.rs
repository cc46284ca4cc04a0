//! The client's end: calls out, results back.

use crate::link::{Link, listen};
use crate::service::{Outgoing, decode};
use crate::{Message, MethodInfo, Request, Response, Status, Waiting};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;
use tollfree_wire::Code;
use tollfree_wire::header::NO_DEADLINE;

/// A way to every service the daemon can reach. Cloning is cheap; clones and tasks share it freely. A channel whose
/// daemon was restarted attaches again with the next call.
#[derive(Clone, Debug)]
pub struct Channel {
    path: PathBuf,
    waiting: Waiting,
    descriptor_set: &'static [u8],
    attachment: Arc<Attachment>,
}

#[derive(Debug, Default)]
struct Attachment {
    current: Mutex<Option<Listened>>,
    /// Held while attaching, so that tasks that start together attach once.
    attaching: tokio::sync::Mutex<()>,
}

/// A link with the task that listens for it.
#[derive(Debug)]
struct Listened {
    link: Arc<Link>,
    listener: AbortHandle,
}

impl Drop for Listened {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Channel {
    /// Names the daemon's socket, usually [`default_socket`](crate::default_socket). The daemon learns of this client
    /// with the first call, when it is known what services it speaks to.
    ///
    /// # Errors
    /// `UNAVAILABLE` where there is no socket.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Channel, Status> {
        let path = path.as_ref().to_owned();
        if let Err(error) = std::fs::metadata(&path) {
            let why = format!(
                "{}: no daemon listens there ({error}); start one with `tollfree run`",
                path.display()
            );
            return Err(Status::unavailable(why));
        }
        Ok(Channel { path, waiting: Waiting::default(), descriptor_set: &[], attachment: Arc::default() })
    }

    /// How tasks wait for responses.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Channel {
        self.waiting = waiting;
        self.attachment = Arc::default();
        self
    }

    /// The same channel for the services in `descriptor_set`; generated clients do this in `new`. The daemon learns the
    /// layouts from it.
    #[must_use]
    pub fn describe(mut self, descriptor_set: &'static [u8]) -> Channel {
        self.descriptor_set = descriptor_set;
        self.attachment = Arc::default();
        self
    }

    /// Makes a call; generated clients wrap this. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The status the call ended with, where not OK.
    pub async fn call<Req: Message, Resp: Message>(
        &self,
        method: MethodInfo,
        request: Request<Req>,
    ) -> Result<Response<Resp>, Status> {
        // No time left is no time left; more than the header can say is the longest it can.
        let deadline_us = request.timeout().map(|timeout| {
            u32::try_from(timeout.as_micros()).map_or(NO_DEADLINE - 1, |us| us.min(NO_DEADLINE - 1))
        });
        let outgoing = Outgoing::new(request.into_inner())?;
        let link = self.link().await?;
        link.call(method.id, &outgoing, deadline_us, |received| match received.status {
            Code::Ok => decode::<Resp>(received.flat(), received.body()).map(Response::new),
            code => {
                let message = String::from_utf8_lossy(received.body());
                Err(Status::new(code, message).decided_at(received.verdict_at))
            }
        })
        .await?
    }

    fn attached(&self) -> Option<Arc<Link>> {
        let current = self.attachment.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|listened| listened.link.clone()).filter(|link| !link.is_dead())
    }

    async fn link(&self) -> Result<Arc<Link>, Status> {
        if let Some(link) = self.attached() {
            return Ok(link);
        }
        let _first = self.attachment.attaching.lock().await;
        if let Some(link) = self.attached() {
            return Ok(link);
        }
        let (link, ears) = Link::attach(&self.path, self.descriptor_set, self.waiting).await?;
        let link = Arc::new(link);
        let listener = tokio::spawn(listen(link.clone(), ears)).abort_handle();
        let listened = Listened { link: link.clone(), listener };
        *self.attachment.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(listened);
        Ok(link)
    }
}
