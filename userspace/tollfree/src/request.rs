//! What a handler is given and gives back.

use crate::metadata::MetadataMap;
use futures_core::Stream;
use std::time::{Duration, Instant};

/// A message, or a stream of them, on its way to a service, with metadata and the call's time limit.
#[derive(Clone, Debug, Default)]
pub struct Request<T> {
    metadata: MetadataMap,
    message: T,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
}

impl<T> Request<T> {
    /// A request without a time limit.
    pub fn new(message: T) -> Request<T> {
        Request { metadata: MetadataMap::new(), message, timeout: None, deadline: None }
    }

    /// What the call says beside its message.
    pub fn metadata(&self) -> &MetadataMap {
        &self.metadata
    }

    /// The same, to change.
    pub fn metadata_mut(&mut self) -> &mut MetadataMap {
        &mut self.metadata
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

    /// Metadata, time limit and message.
    pub(crate) fn into_parts(self) -> (MetadataMap, Option<Duration>, T) {
        (self.metadata, self.timeout, self.message)
    }

    /// The same request with another message.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Request<U> {
        let Request { metadata, message, timeout, deadline } = self;
        Request { metadata, message: change(message), timeout, deadline }
    }

    pub(crate) fn received(metadata: MetadataMap, message: T, deadline: Option<Instant>) -> Request<T> {
        Request { metadata, message, timeout: None, deadline }
    }
}

/// What a client method with a streaming request takes: a stream of messages, or a [`Request`] of one.
pub trait IntoStreamingRequest {
    /// The stream.
    type Stream: Stream<Item = Self::Message> + Send + 'static;
    /// What it yields.
    type Message;

    /// The request.
    fn into_streaming_request(self) -> Request<Self::Stream>;
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for S {
    type Stream = S;
    type Message = S::Item;

    fn into_streaming_request(self) -> Request<S> {
        Request::new(self)
    }
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for Request<S> {
    type Stream = S;
    type Message = S::Item;

    fn into_streaming_request(self) -> Request<S> {
        self
    }
}

impl<T> From<T> for Request<T> {
    fn from(message: T) -> Request<T> {
        Request::new(message)
    }
}

/// A message, or a stream of them, on its way back, with metadata.
#[derive(Clone, Debug, Default)]
pub struct Response<T> {
    metadata: MetadataMap,
    message: T,
}

impl<T> Response<T> {
    /// A response with this message.
    pub fn new(message: T) -> Response<T> {
        Response { metadata: MetadataMap::new(), message }
    }

    /// What the answer says beside its message.
    pub fn metadata(&self) -> &MetadataMap {
        &self.metadata
    }

    /// The same, to change.
    pub fn metadata_mut(&mut self) -> &mut MetadataMap {
        &mut self.metadata
    }

    /// The same response with another message.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Response<U> {
        let Response { metadata, message } = self;
        Response { metadata, message: change(message) }
    }

    /// Metadata and message.
    pub fn into_parts(self) -> (MetadataMap, T) {
        (self.metadata, self.message)
    }

    pub(crate) fn received(metadata: MetadataMap, message: T) -> Response<T> {
        Response { metadata, message }
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
