//! Judging calls and what answers them by the policies of both sides, and doing what the verdicts say.
//!
//! A call that a policy lets through has exactly one response for its handlers, however the call ends: what waits for it
//! is kept here from the one to the other.

use crate::command::Side;
use crate::core::Core;
use crate::driver::Driver;
use crate::gate::{Arrival, Kept, text};
use crate::identity::Peer;
use tollfree_policy::{CallView, Outcome, ResponseView, Verdict};
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::{Code, Metadata, Reason};

/// A call to be judged.
pub struct Asked<'a> {
    pub side: Side,
    pub method: u32,
    /// By a name that this host knows.
    pub layout: u32,
    /// Policies can change it.
    pub flat: &'a mut [u8],
    pub body_len: u32,
    pub deadline_ns: u64,
    /// What it came by; `None` for calls of this host's applications.
    pub session: Option<u32>,
    /// What the caller says beside the message.
    pub metadata: Metadata<'a>,
}

/// A call that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// What waits for its response: a key of [`Core::judged`].
    pub judged: Option<u64>,
    /// How long it is to be held.
    pub delay_ns: u64,
    /// When it ends at the latest.
    pub deadline_ns: u64,
}

/// A flat block of the engine's own.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub layout: u32,
    pub len: usize,
    pub flat: [u8; FLAT_MAX],
}

impl Answer {
    /// The block without the room behind it.
    pub fn flat(&self) -> &[u8] {
        self.flat.get(..self.len).unwrap_or_default()
    }
}

/// How the engine itself ends a call.
#[derive(Clone, Debug)]
pub enum Ended {
    /// With a status, and why.
    Status(Code, String),
    /// OK, with what a policy knew.
    Answer(Box<Answer>),
    /// Without a word.
    Dropped,
}

impl From<(Code, String)> for Ended {
    fn from((status, why): (Code, String)) -> Ended {
        Ended::Status(status, why)
    }
}

/// A call under way whose response a policy is to judge.
pub struct Judged {
    side: Side,
    gate: u64,
    session: Option<u32>,
    method: u32,
    layout: u32,
    size: u32,
    at_ns: u64,
    /// What handlers of responses ask for of it.
    metadata: Vec<(String, String)>,
    /// The request, where handlers of responses read it.
    flat_len: u8,
    flat: [u8; FLAT_MAX],
}

/// What answers a call, on its way back.
pub struct Back<'a> {
    pub status: Code,
    pub layout: u32,
    /// Policies can change it.
    pub flat: &'a mut [u8],
    pub body_len: u32,
}

impl Back<'static> {
    /// A status and nothing else.
    pub fn status(status: Code) -> Back<'static> {
        Back { status, layout: 0, flat: &mut [], body_len: 0 }
    }
}

impl<D: Driver> Core<D> {
    /// Judges a call. `Err` says how it ends here instead of going on.
    pub fn judge(&mut self, now: u64, arrival: Arrival, asked: Asked<'_>) -> Result<Passed, Ended> {
        let Asked { side, method, layout, flat, body_len, deadline_ns, session, metadata } = asked;
        let passed = Passed { judged: None, delay_ns: 0, deadline_ns };
        let size = (flat.len() as u32).saturating_add(body_len);
        let (key, start) = match arrival {
            Arrival::Free => return Ok(passed),
            Arrival::Judged(key) => {
                let judged =
                    self.expect_response(now, key, side, session, method, (layout, size), flat, metadata);
                return Ok(Passed { judged, ..passed });
            }
            Arrival::Judge(key, start) => (key, start),
            Arrival::Unknown => {
                self.count(Reason::Undecided);
                let why = "the server's policy is being put in force; try again";
                return Err((Code::Unavailable, why.to_owned()).into());
            }
        };
        let Core { sessions, server_gate, client_gate, config, .. } = self;
        let gate = match side {
            Side::Server => server_gate,
            Side::Client => client_gate,
        };
        let local = Peer::local();
        let (tracked, peer) = match session.and_then(|session| sessions.get_mut(&session)) {
            Some(known) => (Some(&mut known.tracked), &known.peer),
            None => (None, &local),
        };
        let entries = metadata.iter().filter_map(|(key, value)| Some((key, text(value)?)));
        let entries: Vec<(&str, &str)> = entries.collect(); // without metadata, no memory
        let mut call = CallView {
            method,
            layout,
            flat,
            size,
            deadline_ns: (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(now)),
            port: config.port,
            now_ns: now,
            session: tracked,
            peer: &peer.view(),
            metadata: &entries,
            backends: &[],
            start,
        };
        let Some(outcome) = gate.judge(key, &mut call) else { return Ok(passed) };
        let Outcome { verdict, ref why, element, delay_ns, timeout_ns, audited, .. } = *outcome;
        let why = why.clone();
        for _ in 0..audited {
            self.count(Reason::PolicyAudit);
        }
        let ended = match verdict {
            Verdict::Send | Verdict::Retry | Verdict::Ask(_) => {
                let judged =
                    self.expect_response(now, key, side, session, method, (layout, size), flat, metadata);
                let deadline_ns =
                    timeout_ns.map_or(deadline_ns, |left| deadline_ns.min(now.saturating_add(left)));
                return Ok(Passed { judged, delay_ns, deadline_ns });
            }
            // The caller hears nothing, as when the network had lost the call.
            Verdict::Drop(reason) => {
                self.count(reason);
                return Err(Ended::Dropped);
            }
            Verdict::Reject(status, reason) => {
                self.count(reason);
                if let Some(why) = &why {
                    self.log.line(now, format_args!("refused {status:?}: {why}"));
                }
                let why = why.map_or_else(|| refused_by(side, session).to_owned(), |why| why.to_string());
                Ended::Status(status, why)
            }
            Verdict::Answer => {
                self.count(Reason::PolicyAnswer);
                let mut answer = Box::new(Answer { layout: 0, len: 0, flat: [0; FLAT_MAX] });
                (answer.layout, answer.len) =
                    self.gate(side).answer(key, &mut answer.flat).unwrap_or_default();
                Ended::Answer(answer)
            }
        };
        // The elements before the one that ended the call see how.
        let judged = self.expect_response(now, key, side, session, method, (layout, size), flat, metadata);
        Err(self.send_back(now, judged, element, ended))
    }

    /// One side's policies.
    pub fn gate(&mut self, side: Side) -> &mut crate::gate::Gate {
        match side {
            Side::Server => &mut self.server_gate,
            Side::Client => &mut self.client_gate,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one call")]
    fn expect_response(
        &mut self,
        now: u64,
        gate: u64,
        side: Side,
        session: Option<u32>,
        method: u32,
        (layout, size): (u32, u32),
        flat: &[u8],
        metadata: Metadata<'_>,
    ) -> Option<u64> {
        let Kept { request, metadata } = self.gate(side).sees_responses(gate, metadata)?;
        self.gate(side).open(gate);
        let mut judged = Judged {
            side,
            gate,
            session,
            method,
            layout,
            size,
            at_ns: now,
            metadata,
            flat_len: 0,
            flat: [0; FLAT_MAX],
        };
        if let Some(room) = judged.flat.get_mut(..flat.len()).filter(|_| request) {
            room.copy_from_slice(flat);
            judged.flat_len = flat.len() as u8;
        }
        Some(self.judged.insert(judged))
    }

    /// Shows what answers a call to the policy that has let it through, once; gives for how many ns the answer is to be
    /// held. `Err` says how the call ends instead.
    pub fn judge_back(&mut self, now: u64, judged: Option<u64>, back: &mut Back<'_>) -> Result<u64, Ended> {
        self.judge_back_from(now, judged, None, back)
    }

    fn judge_back_from(
        &mut self,
        now: u64,
        judged: Option<u64>,
        ended_at: Option<usize>,
        back: &mut Back<'_>,
    ) -> Result<u64, Ended> {
        let Some(mut judged) = judged.and_then(|key| self.judged.remove(key)) else { return Ok(0) };
        let Core { sessions, server_gate, client_gate, config, .. } = self;
        let gate = match judged.side {
            Side::Server => server_gate,
            Side::Client => client_gate,
        };
        let local = Peer::local();
        let (tracked, peer) = match judged.session.and_then(|session| sessions.get_mut(&session)) {
            Some(known) => (Some(&mut known.tracked), &known.peer),
            None => (None, &local),
        };
        let entries = judged.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let entries: Vec<(&str, &str)> = entries.collect(); // without metadata, no memory
        let mut call = CallView {
            method: judged.method,
            layout: judged.layout,
            flat: judged.flat.get_mut(..usize::from(judged.flat_len)).unwrap_or_default(),
            size: judged.size,
            deadline_ns: None,
            port: config.port,
            now_ns: now,
            session: tracked,
            peer: &peer.view(),
            metadata: &entries,
            backends: &[],
            start: tollfree_policy::Start::Chain,
        };
        let mut response = ResponseView {
            status: back.status,
            layout: back.layout,
            size: (back.flat.len() as u32).saturating_add(back.body_len),
            flat: back.flat,
            latency_ns: now.saturating_sub(judged.at_ns),
            backend: None,
            attempt: 1,
            ended_at,
        };
        let Some(outcome) = gate.judge_response(judged.gate, &mut call, &mut response) else { return Ok(0) };
        let Outcome { verdict, ref why, delay_ns, audited, .. } = *outcome;
        let why = why.clone();
        gate.close(judged.gate);
        for _ in 0..audited {
            self.count(Reason::PolicyAudit);
        }
        match verdict {
            Verdict::Send | Verdict::Answer | Verdict::Retry | Verdict::Ask(_) => Ok(delay_ns),
            Verdict::Drop(reason) => {
                self.count(reason);
                Err(Ended::Dropped)
            }
            Verdict::Reject(status, reason) => {
                self.count(reason);
                let why = why
                    .map_or_else(|| "the response was refused by a policy".to_owned(), |why| why.to_string());
                Err(Ended::Status(status, why))
            }
        }
    }

    /// What becomes of a call's end that is the engine's own, once the policy that has let the call through has seen it.
    pub fn end_back(&mut self, now: u64, judged: Option<u64>, ended: Ended) -> Ended {
        self.send_back(now, judged, None, ended)
    }

    fn send_back(&mut self, now: u64, judged: Option<u64>, from: Option<usize>, mut ended: Ended) -> Ended {
        let result = match &mut ended {
            Ended::Dropped => return self.forget(judged),
            Ended::Status(status, why) => {
                let mut back = Back { body_len: why.len() as u32, ..Back::status(*status) };
                self.judge_back_from(now, judged, from, &mut back)
            }
            Ended::Answer(answer) => {
                let Answer { layout, len, flat } = &mut **answer;
                let flat = flat.get_mut(..*len).unwrap_or_default();
                let mut back = Back { status: Code::Ok, layout: *layout, flat, body_len: 0 };
                self.judge_back_from(now, judged, from, &mut back)
            }
        };
        result.err().unwrap_or(ended)
    }

    /// A call that is dropped has no response.
    fn forget(&mut self, judged: Option<u64>) -> Ended {
        if let Some(judged) = judged.and_then(|key| self.judged.remove(key)) {
            self.gate(judged.side).close(judged.gate);
        }
        Ended::Dropped
    }
}

/// What a caller reads whom a policy refuses without a word of its own.
fn refused_by(side: Side, session: Option<u32>) -> &'static str {
    match (side, session) {
        (Side::Client, _) => "refused by this host's policy for outgoing calls",
        (Side::Server, Some(_)) => "refused by the server's policy, in its engine",
        (Side::Server, None) => "refused by this host's policy, in its engine",
    }
}
