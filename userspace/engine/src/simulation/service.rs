//! An application that serves calls that stream.

use super::random::Random;
use super::stream::{Reader, Writer, id_of};
use super::{Kind, Schema, region_is_free};
use std::collections::BTreeMap;
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, DaemonOp, Span, Submission};
use tollfree_wire::Code;

struct Serving {
    kind: Kind,
    reader: Reader,
    writer: Writer,
    complete: bool,
    head: bool,
    answered: bool,
    cancelled: bool,
    /// The answer's room.
    body: Span,
}

/// How a service has seen a stream end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Answered,
    Cancelled,
}

/// The application.
pub struct Service {
    pub port: Port,
    schema: Schema,
    random: Random,
    served: BTreeMap<u64, Serving>,
    /// One stream in so many is refused in the middle.
    refuses: u64,
    /// How streams have ended.
    pub ends: BTreeMap<u32, Seen>,
    /// Streams that it has ended with a status other than OK.
    pub refused: Vec<u32>,
    /// How many messages a call's response has, by its stream.
    pub responses: BTreeMap<u32, u32>,
}

impl Service {
    pub fn new(port: Port, schema: Schema, random: Random, refuses: u64) -> Service {
        let (served, ends, responses) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Service { port, schema, random, served, refuses, ends, refused: Vec::new(), responses }
    }

    /// Streams that have not ended.
    pub fn open(&self) -> usize {
        self.served.len()
    }

    /// Reads what has come, and writes what it wants to say.
    pub fn act(&mut self) {
        loop {
            let Service { port, schema, served, responses, .. } = self;
            let (mut over, mut taken) = (None, None);
            let popped = port.pop(|delivery| {
                let handle = delivery.call;
                if delivery.op == DaemonOp::Request {
                    let id = id_of(delivery.body);
                    let kind = schema.kind(delivery.method);
                    let total = responses.get(&id).copied().unwrap_or_default();
                    let mut reader = Reader::new(id, 0);
                    reader.take(delivery.body);
                    let writer = Writer::new(id, 1, total);
                    let serving = Serving {
                        kind,
                        reader,
                        writer,
                        complete: delivery.flags.last,
                        head: false,
                        answered: false,
                        cancelled: false,
                        body: Span::default(),
                    };
                    assert!(served.insert(handle, serving).is_none(), "a handle is used twice");
                    return;
                }
                let Some(call) = served.get_mut(&handle) else {
                    panic!("{:?} for a stream that is over", delivery.op);
                };
                match delivery.op {
                    DaemonOp::RequestMessage => {
                        assert!(!call.complete, "a message after the end");
                        call.reader.take(delivery.body);
                    }
                    DaemonOp::RequestEnd => {
                        assert!(!std::mem::replace(&mut call.complete, true), "two ends");
                    }
                    DaemonOp::ResponseCredit => call.writer.credit(delivery.count),
                    DaemonOp::ResponseTaken => taken = Some((handle, delivery.count)),
                    DaemonOp::Released => {
                        assert!(call.answered, "released without an answer");
                        over = Some((handle, if call.cancelled { Seen::Cancelled } else { Seen::Answered }));
                    }
                    DaemonOp::Cancelled => {
                        assert!(!std::mem::replace(&mut call.cancelled, true), "cancelled twice");
                        // An answer that has crossed it is released after it.
                        over = (!call.answered).then_some((handle, Seen::Cancelled));
                    }
                    other => panic!("a service is told {other:?}"),
                }
            });
            if popped.expect("the ring is sound").is_none() {
                break;
            }
            if let Some((handle, count)) = taken
                && let Some(call) = served.get_mut(&handle)
            {
                call.writer.taken(port, count);
            }
            if let Some((handle, seen)) = over {
                self.end(handle, seen);
            }
        }
        self.port.commit();
        let Service { port, schema, random, served, refuses, refused, .. } = self;
        for (&handle, call) in served.iter_mut().filter(|(_, call)| !call.answered) {
            call.act(random, port, handle, schema.layout, *refuses, refused);
        }
        self.port.publish();
    }

    fn end(&mut self, handle: u64, seen: Seen) {
        let Some(mut call) = self.served.remove(&handle) else { return };
        call.writer.end(&mut self.port);
        if call.body.len > 0 {
            self.port.free(call.body);
        }
        assert!(self.ends.insert(call.reader.id, seen).is_none(), "a stream runs twice");
    }

    /// Nothing of the region is in use.
    pub fn is_tidy(&mut self) -> bool {
        region_is_free(&mut self.port)
    }
}

impl Serving {
    fn act(
        &mut self,
        random: &mut Random,
        port: &mut Port,
        handle: u64,
        layout: u32,
        refuses: u64,
        refused: &mut Vec<u32>,
    ) {
        if !random.one_in(3) {
            self.reader.consume(random, port, AppOp::RequestCredit, handle);
        }
        if random.one_in(refuses) {
            let submission = Submission { status: Code::Aborted, ..Submission::new(AppOp::Respond, handle) };
            self.answered = port.push(&submission).is_ok();
            if self.answered {
                refused.push(self.reader.id);
            }
            return;
        }
        if self.kind != Kind::Up {
            if !self.head {
                if port.push(&Submission::new(AppOp::ResponseHead, handle)).is_err() {
                    return;
                }
                self.head = true;
                self.writer.count(Span::default());
            }
            let mut burst = random.below(20);
            while burst > 0 && self.writer.written < self.writer.total && self.writer.is_open() {
                if !self.writer.write(port, AppOp::ResponseMessage, handle, layout) {
                    break;
                }
                burst -= 1;
            }
        }
        let said = self.kind == Kind::Up || self.writer.written == self.writer.total;
        if said && self.complete {
            let count = if self.kind == Kind::Up { 0 } else { self.writer.written };
            let Some(body) = port.alloc(4) else { return };
            assert!(port.write(body, 0, &count.to_le_bytes()));
            if port.push(&Submission { body, ..Submission::new(AppOp::Respond, handle) }).is_err() {
                return port.free(body);
            }
            (self.answered, self.body) = (true, body);
        }
    }
}
