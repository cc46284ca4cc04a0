//! The client's end: calls out, results back.

use crate::{Message, MethodInfo, Request, Response, Status, service::Outgoing};
use std::path::Path;

/// A way to every service the daemon can reach. Cloning is cheap; clones and tasks share it freely.
#[derive(Clone, Debug)]
pub struct Channel {}

impl Channel {
    /// Connects to the daemon's socket, usually [`default_socket`](crate::default_socket).
    ///
    /// # Errors
    /// `UNAVAILABLE` where nobody listens there.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Channel, Status> {
        Err(Status::unavailable(format!("{}: no daemon listens there", path.as_ref().display())))
    }

    /// The same channel for the services in `descriptor_set`; generated clients do this in `new`. The daemon learns the
    /// layouts from it.
    #[must_use]
    pub fn describe(self, _descriptor_set: &'static [u8]) -> Channel {
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
        let _outgoing = Outgoing::new(request.into_inner())?;
        Err(Status::unavailable(format!("{}: not connected", method.path)))
    }
}
