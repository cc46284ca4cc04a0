//! Running handlers: until they first wait, and in tasks of their own from then on. A panic becomes a status.

use super::Offer;
use crate::streaming::Requests;
use crate::{CallInfo, HandlerFuture, Reply, Status};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tollfree_ring::Delivery;
use tollfree_wire::header::NO_DEADLINE;

/// How far a handler came at once.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of a loop; a box would cost an allocation per call"
)]
pub enum Outcome {
    Ready(Result<Reply, Status>),
    Waits(HandlerFuture),
}

/// Starts a request's handler and lets it run until it first waits.
pub fn begin(offer: &Offer, closing: bool, delivery: &Delivery<'_>, requests: Option<Requests>) -> Outcome {
    if closing {
        return Outcome::Ready(Err(Status::unavailable("the service is shutting down")));
    }
    let Some(start) = offer.methods.get(&delivery.method).and_then(|handler| offer.handlers.get(*handler))
    else {
        let why = format!("the application has no method with id {:#010x}", delivery.method);
        return Outcome::Ready(Err(Status::unimplemented(why)));
    };
    let left =
        (delivery.deadline_us != NO_DEADLINE).then(|| Duration::from_micros(delivery.deadline_us.into()));
    let info = CallInfo {
        method: delivery.method,
        deadline: left.map(|left| Instant::now() + left),
        has_metadata: delivery.flags.metadata,
        bare: delivery.flags.bare,
        requests,
    };
    let started = catch_unwind(AssertUnwindSafe(|| {
        let mut handler = start(info, delivery.flat, delivery.body);
        // Without a waker: a handler that waits is polled again in its task, with that task's.
        match handler.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Outcome::Ready(result),
            Poll::Pending => Outcome::Waits(handler),
        }
    }));
    started.unwrap_or_else(|_| Outcome::Ready(Err(panicked())))
}

/// Runs a handler to its end; a panic becomes a status.
pub async fn guarded(mut handler: HandlerFuture) -> Result<Reply, Status> {
    poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}

pub fn panicked() -> Status {
    Status::internal("the handler panicked; the service's log says where")
}
