//! One attachment of a server: requests in, answers back.
//!
//! One task owns the ring. It starts each handler itself, so that an answer that needs no waiting costs no task; a
//! handler that does wait goes on in a task of its own and sends its answer through a channel.

use super::Offer;
use super::handler::{Outcome, begin, guarded};
use super::streams::ServerStream;
use crate::attach::{Ears, LOOK, StreamRoom, free, hear_end, hush, write};
use crate::flow::Inbox;
use crate::metadata::MetadataMap;
use crate::outgoing::Outgoing;
use crate::received::Received;
use crate::streaming::Requests;
use crate::{HandlerFuture, Reply, Status, Waiting};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, DaemonOp, Span, Submission};
use tollfree_wire::Code;

/// How long the server looks at its ring before it sleeps: longer than a call takes whose parties had to be woken, or one
/// slow call would make every next one slow.
const SPIN: Duration = Duration::from_micros(150);
/// How long handlers at work may take to finish when the server is asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// Requests started before other tasks of the runtime get a turn.
const BATCH: usize = 32;

/// What handlers' tasks have for the ring.
pub enum Answer {
    /// The handler has finished.
    Reply { handle: u64, result: Result<Reply, Status> },
    /// One more message of its streaming response.
    Message { handle: u64, outgoing: Outgoing },
    /// That was the last.
    End { handle: u64, result: Result<(), Status> },
    /// It has consumed enough of its request for the writer to be told.
    Credit { handle: u64 },
}

/// What the serving task works with.
pub struct Desk {
    pub(super) port: Port,
    waiting: Waiting,
    offer: Arc<Offer>,
    pub(super) answers: mpsc::UnboundedSender<Answer>,
    /// Handlers that wait for something, by the daemon's handle of their call.
    pub(super) running: HashMap<u64, AbortHandle>,
    /// Answers that found no room.
    unsent: VecDeque<(u64, Code, Outgoing)>,
    /// The room of answers that the daemon still reads.
    spans: HashMap<u64, (Span, Span)>,
    /// Calls whose request or response streams.
    pub(super) streams: HashMap<u64, ServerStream>,
    /// Those of them whose messages found no room.
    pub(super) stalled: VecDeque<u64>,
    pub(super) stream_room: StreamRoom,
    closing: Option<Instant>,
}

impl Desk {
    /// A desk at rings just opened, and what its handlers' tasks send.
    pub fn new(port: Port, waiting: Waiting, offer: Arc<Offer>) -> (Desk, mpsc::UnboundedReceiver<Answer>) {
        let (answers, answered) = mpsc::unbounded_channel();
        let desk = Desk {
            port,
            waiting,
            offer,
            answers,
            running: HashMap::new(),
            unsent: VecDeque::new(),
            spans: HashMap::new(),
            streams: HashMap::new(),
            stalled: VecDeque::new(),
            stream_room: StreamRoom::default(),
            closing: None,
        };
        (desk, answered)
    }

    /// Serves until the daemon ends, which is an error unless the server is to end as well, or until `shutdown` has completed
    /// and what was at work then is done.
    pub async fn run(
        mut self,
        ears: Ears,
        mut answered: mpsc::UnboundedReceiver<Answer>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Status> {
        let Ears { doorbell, stream } = ears;
        let mut byte = [0; 1];
        let mut worked = Instant::now();
        let mut looked = worked;
        loop {
            let mut any = self.turn()?;
            while let Ok(answer) = answered.try_recv() {
                any = true;
                self.take(answer);
            }
            any |= self.send_unsent();
            any |= self.send_stalled();
            self.port.publish();
            if any {
                worked = Instant::now();
            }
            if self.is_finished() {
                return Ok(());
            }
            // A future that has completed must not be polled again.
            if self.closing.is_none() && poll_once(shutdown.as_mut()).await.is_some() {
                self.closing = Some(Instant::now() + GRACE);
            }
            if !any && (matches!(self.waiting, Waiting::Sleep) || worked.elapsed() >= SPIN) {
                self.give_all_credit();
            }
            if any || self.spins(worked) {
                // A server that never sleeps would never hear of the daemon's end below.
                if !any && poll_once(pin!(hear_end(&stream, &mut byte))).await == Some(true) {
                    return self.gone();
                }
                std::thread::yield_now();
                tokio::task::yield_now().await;
                continue;
            }
            if !self.port.prepare_sleep() {
                self.port.awake();
                continue;
            }
            let now = Instant::now();
            if self.port.holds_long() && now >= looked + LOOK {
                self.port.give_back();
                looked = now;
            }
            let patience = if self.port.holds_long() { LOOK } else { Duration::from_secs(3600) };
            let until = self.closing.unwrap_or(now + patience);
            tokio::select! {
                _ = doorbell.readable() => if hush(&doorbell) {
                    return self.gone();
                },
                ended = hear_end(&stream, &mut byte) => if ended {
                    return self.gone();
                },
                answer = answered.recv() => if let Some(answer) = answer { self.take(answer) },
                () = shutdown.as_mut(), if self.closing.is_none() => {
                    self.closing = Some(Instant::now() + GRACE);
                }
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.port.awake();
            worked = Instant::now();
        }
    }

    /// The daemon has ended.
    fn gone(&self) -> Result<(), Status> {
        match self.closing {
            Some(_) => Ok(()),
            None => Err(Status::unavailable("the connection to the daemon has ended")),
        }
    }

    fn spins(&self, worked: Instant) -> bool {
        match self.waiting {
            Waiting::Busy => true,
            Waiting::Adaptive => worked.elapsed() < SPIN,
            Waiting::Sleep => false,
        }
    }

    fn is_finished(&self) -> bool {
        let Some(until) = self.closing else { return false };
        let Desk { running, unsent, spans, streams, .. } = self;
        let idle = running.is_empty() && unsent.is_empty() && spans.is_empty() && streams.is_empty();
        idle || Instant::now() >= until
    }

    /// Takes a batch of deliveries. True if there were any.
    fn turn(&mut self) -> Result<bool, Status> {
        let mut any = false;
        for _ in 0..BATCH {
            let Desk { port, offer, closing, answers, streams, .. } = self;
            let popped = port.pop(|delivery| {
                let handle = delivery.call;
                match delivery.op {
                    DaemonOp::Request => {
                        let requests = (!delivery.flags.last).then(|| requests(handle, answers));
                        let inbox = requests.as_ref().map(|requests| requests.inbox.clone());
                        let outcome = begin(offer, closing.is_some(), &delivery, requests);
                        Taken::Request { handle, outcome, inbox }
                    }
                    DaemonOp::RequestMessage => {
                        if let Some(stream) = streams.get(&handle) {
                            stream.arrived(Received::new(&delivery));
                        }
                        Taken::Nothing
                    }
                    DaemonOp::RequestEnd => {
                        if let Some(stream) = streams.get(&handle) {
                            stream.requests_end(Ok(()));
                        }
                        Taken::Nothing
                    }
                    DaemonOp::ResponseCredit => {
                        if let Some(stream) = streams.get(&handle) {
                            stream.credited(delivery.count);
                        }
                        Taken::Nothing
                    }
                    DaemonOp::ResponseTaken => Taken::Room(handle, delivery.count),
                    DaemonOp::Released => Taken::Released(handle),
                    DaemonOp::Cancelled => Taken::Cancelled(handle),
                    DaemonOp::Response
                    | DaemonOp::ResponseHead
                    | DaemonOp::ResponseMessage
                    | DaemonOp::RequestCredit
                    | DaemonOp::RequestTaken => Taken::Nothing,
                }
            });
            let taken = match popped {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(corrupt) => {
                    return Err(Status::unavailable(format!("the daemon's ring is corrupt: {corrupt}")));
                }
            };
            any = true;
            match taken {
                Taken::Request { handle, outcome, inbox } => {
                    if let Some(inbox) = inbox {
                        self.streams.insert(handle, ServerStream::reading(inbox));
                    }
                    match outcome {
                        Outcome::Ready(result) => self.answer(handle, result),
                        Outcome::Waits(handler) => self.spawn(handle, handler),
                    }
                }
                Taken::Released(handle) => {
                    if let Some((flat, body)) = self.spans.remove(&handle) {
                        free(&mut self.port, flat, body);
                    }
                    self.forget_stream(handle, &Status::cancelled("the call has been answered"));
                }
                Taken::Cancelled(handle) => {
                    if let Some(task) = self.running.remove(&handle) {
                        task.abort();
                    }
                    self.forget_stream(handle, &Status::cancelled("the caller no longer waits"));
                }
                Taken::Room(handle, count) => self.taken(handle, count),
                Taken::Nothing => {}
            }
        }
        if any {
            self.port.commit();
        }
        Ok(any)
    }

    fn spawn(&mut self, handle: u64, handler: HandlerFuture) {
        let answers = self.answers.clone();
        let task = tokio::spawn(async move {
            let result = guarded(handler).await;
            // The desk is gone when the server has ended: nobody is left to answer.
            let _ = answers.send(Answer::Reply { handle, result });
        });
        self.running.insert(handle, task.abort_handle());
    }

    /// Takes what a handler's task has sent, unless its call was cancelled meanwhile.
    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Reply { handle, result } => {
                if self.running.remove(&handle).is_some() {
                    self.answer(handle, result);
                }
            }
            Answer::Message { handle, outgoing } => self.send_message(handle, outgoing),
            Answer::End { handle, result } => {
                if self.running.remove(&handle).is_some() {
                    let (status, outgoing) = match result.and_then(|()| Outgoing::bare(&MetadataMap::new())) {
                        Ok(nothing) => (Code::Ok, nothing),
                        Err(status) => Outgoing::status(&status),
                    };
                    self.send_end(handle, status, outgoing);
                }
            }
            Answer::Credit { handle } => self.give_credit(handle),
        }
    }

    /// A handler has finished.
    fn answer(&mut self, handle: u64, result: Result<Reply, Status>) {
        let (status, outgoing) = match result {
            Ok(Reply { outgoing, responses: None }) => (Code::Ok, outgoing),
            Ok(Reply { outgoing, responses: Some(responses) }) => {
                return self.respond_streaming(handle, outgoing, responses);
            }
            Err(status) => Outgoing::status(&status),
        };
        if self.streams.contains_key(&handle) {
            self.send_end(handle, status, outgoing);
        } else {
            self.send(handle, status, outgoing);
        }
    }

    fn send(&mut self, handle: u64, status: Code, outgoing: Outgoing) {
        if !self.unsent.is_empty() || !self.try_send(handle, status, &outgoing) {
            self.unsent.push_back((handle, status, outgoing));
        }
    }

    /// False: no room now.
    pub(super) fn try_send(&mut self, handle: u64, status: Code, outgoing: &Outgoing) -> bool {
        let largest = self.port.largest_body();
        let (too_long, broken);
        let (status, outgoing) = if outgoing.body_len > largest {
            let why = format!("the response has {} bytes; the rings take {largest}", outgoing.body_len);
            too_long = Outgoing::status(&Status::resource_exhausted(why));
            (too_long.0, &too_long.1)
        } else {
            (status, outgoing)
        };
        let (status, outgoing, written) = match write(&mut self.port, outgoing) {
            Ok(written) => (status, outgoing, written),
            Err(error) => {
                broken = Outgoing::status(&error);
                (broken.0, &broken.1, write(&mut self.port, &broken.1).unwrap_or_default())
            }
        };
        let Some((flat, body)) = written else { return false };
        let (flags, layout) = (outgoing.flags(), outgoing.layout);
        let submission =
            Submission { status, flags, layout, flat, body, ..Submission::new(AppOp::Respond, handle) };
        if self.port.push(&submission).is_err() {
            free(&mut self.port, flat, body);
            return false;
        }
        self.spans.insert(handle, (flat, body));
        true
    }

    fn send_unsent(&mut self) -> bool {
        let mut any = false;
        while let Some((handle, status, outgoing)) = self.unsent.pop_front() {
            if !self.try_send(handle, status, &outgoing) {
                self.unsent.push_front((handle, status, outgoing));
                break;
            }
            any = true;
        }
        any
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Nobody is left to take their answers.
        for task in self.running.values() {
            task.abort();
        }
    }
}

/// What a delivery was.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of a loop; a box would cost an allocation per call"
)]
enum Taken {
    Request { handle: u64, outcome: Outcome, inbox: Option<Arc<Inbox>> },
    Released(u64),
    Cancelled(u64),
    Room(u64, u32),
    Nothing,
}

/// The reading end of a streaming request.
fn requests(handle: u64, answers: &mpsc::UnboundedSender<Answer>) -> Requests {
    let answers = answers.clone();
    let credit = move || {
        // The desk is gone when the server has ended: nobody is left to give credit to.
        let _ = answers.send(Answer::Credit { handle });
    };
    Requests { inbox: Arc::default(), credit: Box::new(credit) }
}

/// A future's result, if it is complete now.
async fn poll_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}
