//! An application that makes calls that stream.

use super::random::Random;
use super::stream::{Reader, Writer, message, opening};
use super::{Kind, Schema, region_is_free};
use std::collections::BTreeMap;
use tollfree_ring::app::Port;
use tollfree_ring::{AppOp, DaemonOp, Submission};
use tollfree_wire::Code;

/// How a call is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// When everything has been said.
    Complete,
    /// By its caller, after so much time.
    Cancel(u64),
    /// By its deadline, after so much time.
    Deadline(u64),
}

struct Call {
    kind: Kind,
    plan: Plan,
    writer: Writer,
    reader: Reader,
    ended: bool,
    cancelled: bool,
    head: bool,
}

/// The application.
pub struct Caller {
    pub port: Port,
    schema: Schema,
    random: Random,
    calls: BTreeMap<u64, Call>,
    /// How calls have ended, and why, by their streams.
    pub ends: BTreeMap<u32, (Code, String)>,
}

impl Caller {
    pub fn new(port: Port, schema: Schema, random: Random) -> Caller {
        Caller { port, schema, random, calls: BTreeMap::new(), ends: BTreeMap::new() }
    }

    /// Calls that have not ended.
    pub fn open(&self) -> usize {
        self.calls.len()
    }

    /// Makes a call of so many messages each way.
    pub fn call(&mut self, id: u32, kind: Kind, plan: Plan, totals: (u32, u32), now: u64) -> bool {
        let (requests, _) = kind.totals(totals);
        let bytes = message(id, 0, 0);
        let Some(body) = self.port.alloc(bytes.len() as u32) else { return false };
        assert!(self.port.write(body, 0, &bytes));
        let last = requests == 1;
        let submission = Submission {
            method: self.schema.method(kind),
            layout: self.schema.layout,
            flags: opening(last),
            body,
            deadline_us: match plan {
                Plan::Deadline(after) => (after / 1000) as u32,
                Plan::Complete | Plan::Cancel(_) => tollfree_wire::header::NO_DEADLINE,
            },
            ..Submission::new(AppOp::Call, u64::from(id))
        };
        if self.port.push(&submission).is_err() {
            self.port.free(body);
            return false;
        }
        let mut writer = Writer::new(id, 0, requests);
        writer.written = 1;
        writer.count(body);
        let reader = Reader::new(id, 1);
        let plan = match plan {
            Plan::Cancel(after) => Plan::Cancel(now + after),
            plan => plan,
        };
        let call = Call { kind, plan, writer, reader, ended: last, cancelled: false, head: false };
        self.calls.insert(u64::from(id), call);
        true
    }

    /// Reads what has come, and writes what it wants to say.
    pub fn act(&mut self, now: u64) {
        loop {
            let Caller { port, calls, ends, .. } = self;
            let mut over = None;
            let mut taken = None;
            let popped = port.pop(|delivery| {
                let cookie = delivery.call;
                let Some(call) = calls.get_mut(&cookie) else {
                    panic!("{:?} for a call that is over: {cookie}", delivery.op);
                };
                match delivery.op {
                    DaemonOp::ResponseHead => {
                        assert!(!std::mem::replace(&mut call.head, true), "two beginnings");
                        call.reader.hold(0);
                    }
                    DaemonOp::ResponseMessage => {
                        assert!(call.head, "a message before the response has begun");
                        call.reader.take(delivery.body);
                    }
                    DaemonOp::RequestCredit => call.writer.credit(delivery.count),
                    DaemonOp::RequestTaken => taken = Some((cookie, delivery.count)),
                    DaemonOp::Response => {
                        if delivery.status == Code::Ok {
                            call.complete(delivery.body);
                        }
                        let why = String::from_utf8_lossy(delivery.body).into_owned();
                        over = Some((cookie, (delivery.status, why)));
                    }
                    DaemonOp::Cancelled => {
                        assert!(call.cancelled, "cancelled by nobody");
                        over = Some((cookie, (Code::Cancelled, String::new())));
                    }
                    other => panic!("a caller is told {other:?}"),
                }
            });
            if popped.expect("the ring is sound").is_none() {
                break;
            }
            if let Some((cookie, count)) = taken
                && let Some(call) = calls.get_mut(&cookie)
            {
                call.writer.taken(port, count);
            }
            if let Some((cookie, end)) = over
                && let Some(mut call) = calls.remove(&cookie)
            {
                call.writer.end(port);
                assert!(ends.insert(cookie as u32, end).is_none(), "a call ends twice");
            }
        }
        self.port.commit();
        let Caller { port, schema, random, calls, .. } = self;
        for (&cookie, call) in calls.iter_mut().filter(|(_, call)| !call.cancelled) {
            if let Plan::Cancel(at) = call.plan
                && now >= at
            {
                call.cancelled = port.push(&Submission::new(AppOp::Cancel, cookie)).is_ok();
                continue;
            }
            call.act(random, port, cookie, schema.layout);
        }
        self.port.publish();
    }

    /// Nothing of the region is in use.
    pub fn is_tidy(&mut self) -> bool {
        region_is_free(&mut self.port)
    }
}

impl Call {
    fn act(&mut self, random: &mut Random, port: &mut Port, cookie: u64, layout: u32) {
        let mut burst = random.below(20);
        while burst > 0 && self.writer.written < self.writer.total && self.writer.is_open() {
            if !self.writer.write(port, AppOp::RequestMessage, cookie, layout) {
                break;
            }
            burst -= 1;
        }
        if self.writer.written == self.writer.total && !self.ended {
            self.ended = port.push(&Submission::new(AppOp::RequestEnd, cookie)).is_ok();
        }
        if !random.one_in(3) {
            self.reader.consume(random, port, AppOp::ResponseCredit, cookie);
        }
    }

    /// It has ended well: then everything was said, and heard.
    fn complete(&self, body: &[u8]) {
        assert_eq!(self.writer.written, self.writer.total, "answered before the request was complete");
        let expected = u32::from_le_bytes(body[..4].try_into().unwrap());
        assert_eq!(self.reader.read, expected, "messages of a response were lost");
        assert!(self.kind != Kind::Up || expected == 0);
    }
}
