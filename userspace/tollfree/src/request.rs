//! What a handler is given and gives back.

use std::time::{Duration, Instant};

/// A message on its way to a service, with the call's time limit.
#[derive(Clone, Debug, Default)]
pub struct Request<T> {
    message: T,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
}

impl<T> Request<T> {
    /// A request without a time limit.
    pub fn new(message: T) -> Request<T> {
        Request { message, timeout: None, deadline: None }
    }

    /// Limits the call, from the moment it is made, to `timeout` (at most 71 minutes, counted in µs). When it runs
    /// out, the caller gets `DEADLINE_EXCEEDED` and work not yet started is not started.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// The limit that was set.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// In a handler: when the caller stops waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The message.
    pub fn get_ref(&self) -> &T {
        &self.message
    }

    /// The message, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.message
    }

    /// The message alone.
    pub fn into_inner(self) -> T {
        self.message
    }

    pub(crate) fn received(message: T, deadline: Option<Instant>) -> Request<T> {
        Request { message, timeout: None, deadline }
    }
}

impl<T> From<T> for Request<T> {
    fn from(message: T) -> Request<T> {
        Request::new(message)
    }
}

/// A message on its way back.
#[derive(Clone, Debug, Default)]
pub struct Response<T> {
    message: T,
}

impl<T> Response<T> {
    /// A response with this message.
    pub fn new(message: T) -> Response<T> {
        Response { message }
    }

    /// The message.
    pub fn get_ref(&self) -> &T {
        &self.message
    }

    /// The message, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.message
    }

    /// The message alone.
    pub fn into_inner(self) -> T {
        self.message
    }
}

impl<T> From<T> for Response<T> {
    fn from(message: T) -> Response<T> {
        Response::new(message)
    }
}
