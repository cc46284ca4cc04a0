//! Everything the engine knows besides its packet backend and its transport, and what becomes of transport events.

use crate::accepted::Accepted;
use crate::apps::{App, AppId, response};
use crate::bindings::Bindings;
use crate::calls::{HeldReply, Incoming, Origin, Outgoing, Progress, REPLY_TOKEN};
use crate::carriage::Carriage;
use crate::config::Config;
use crate::delay::{Answered, Delayed};
use crate::driver::Driver;
use crate::exchange::Exchanges;
use crate::frames::Answer;
use crate::gate::Gate;
use crate::identity::Peer;
use crate::inbound::crowded;
use crate::log::PolicyLog;
use crate::slab::Slab;
use crate::streams::Direction;
use crate::verdict::{Back, Ended, Judged};
use std::collections::HashMap;
use tollfree_policy::{LogLine, Tracked};
use tollfree_ring::{DeliveryHeader, Flags, VerdictAt};
use tollfree_transport::{CallHandle, Event, IncomingCall, SessionChange, Transport, Verdict};
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::{Code, Reason, SessionEntry};
use tracing::{info, warn};

/// What the engine itself answers a remote call with. Made while the transport is busy delivering events, sent
/// right after.
pub struct Refusal {
    pub call: IncomingCall,
    pub ended: Ended,
}

/// What policies ask of a session.
pub struct Known {
    pub tracked: Tracked,
    pub peer: Peer,
}

/// The engine's knowledge.
pub struct Core<D> {
    pub config: Config,
    pub driver: D,
    pub apps: Slab<App>,
    /// Which applications serve a method, by its id.
    pub services: HashMap<u32, Vec<AppId>>,
    pub outgoing: Slab<Outgoing>,
    pub incoming: Slab<Incoming>,
    pub held: Slab<HeldReply>,
    pub bindings: Bindings,
    /// Layouts of peers found compatible.
    pub accepted: Accepted,
    /// What transport blocks say of how methods are carried.
    pub carriage: Carriage,
    /// Judges calls that arrive, where no XDP program has.
    pub server_gate: Gate,
    /// Judges calls that leave.
    pub client_gate: Gate,
    /// Sessions, by index.
    pub sessions: HashMap<u32, Known>,
    /// Calls whose responses a policy is to judge.
    pub judged: Slab<Judged>,
    /// Calls and answers that a policy holds.
    pub delayed: Delayed,
    /// Calls served here that a policy allows only so much time, or were when last counted.
    pub capped: usize,
    /// What policies have to say.
    pub log: PolicyLog,
    pub reasons: [u64; Reason::COUNT],
    /// Whether an XDP program has judged what arrives.
    pub judged_below: bool,
    pub refusals: Vec<Refusal>,
    /// Calls whose service has no room now: their callers are to try again.
    pub deferred: Vec<IncomingCall>,
    /// Directions of streams whose writers are to be told of free room.
    pub taken: Vec<Direction>,
    /// What carries streams to and from other hosts.
    pub exchanges: Exchanges,
    /// Calls that have opened streams which are over before these were answered.
    pub abandoned: Vec<CallHandle>,
    /// Streams that could not go on, by their keys in `outgoing`.
    pub broken: Vec<(u64, Code, String)>,
    /// Calls whose layout was just agreed on, with their flat blocks.
    pub ready: Vec<crate::bindings::WaitingCall>,
    /// Turns the loop has made: spreads calls over applications that serve the same method.
    pub turns: u64,
}

impl<D: Driver> Core<D> {
    pub fn new(config: Config, driver: D, judged_below: bool, life: u64) -> Core<D> {
        Core {
            config,
            driver,
            judged_below,
            apps: Slab::default(),
            services: HashMap::new(),
            outgoing: Slab::default(),
            incoming: Slab::default(),
            held: Slab::default(),
            bindings: Bindings::default(),
            accepted: Accepted::default(),
            carriage: Carriage::default(),
            server_gate: Gate::default(),
            client_gate: Gate::default(),
            sessions: HashMap::new(),
            judged: Slab::default(),
            delayed: Delayed::default(),
            capped: 0,
            log: PolicyLog::default(),
            reasons: [0; Reason::COUNT],
            refusals: Vec::new(),
            deferred: Vec::new(),
            taken: Vec::new(),
            exchanges: Exchanges::new(life),
            abandoned: Vec::new(),
            broken: Vec::new(),
            ready: Vec::new(),
            turns: 0,
        }
    }

    /// What `session_tracker()` has noted of a session, wherever it runs.
    pub fn tracked(&self, index: u32) -> Tracked {
        let below = if self.judged_below { self.driver.tracked(index) } else { None };
        let here = self.sessions.get(&index).map(|known| known.tracked);
        below.into_iter().chain(here).max_by_key(|tracked| tracked.last_seen_ns).unwrap_or_default()
    }

    pub fn count(&mut self, reason: Reason) {
        self.reasons[reason.index()] += 1;
    }

    /// Takes one event of the transport.
    pub fn on_event(&mut self, now: u64, event: Event<'_>) {
        match event {
            Event::Request(request) => self.on_request(now, &request),
            Event::Response { token, status, layout, flat, metadata, body, verdict } => {
                let at = match verdict {
                    Verdict::Peer { by_engine: true } => VerdictAt::Engine,
                    Verdict::Peer { by_engine: false } if status == Code::Ok => VerdictAt::None,
                    Verdict::Peer { by_engine: false } => VerdictAt::Application,
                    Verdict::Driver => VerdictAt::Driver,
                    Verdict::Transport(_) => VerdictAt::Transport,
                };
                let body = match verdict {
                    Verdict::Transport(why) => why.as_bytes(),
                    Verdict::Driver if status != Code::Ok && body.is_empty() => driver_text(status),
                    Verdict::Driver => body,
                    Verdict::Peer { .. } => body,
                };
                let flags = Flags { metadata, ..Flags::default() };
                self.on_response(now, token, status, at, flags, layout, flat, body);
            }
            Event::Cancelled { call } => self.on_cancelled(now, call),
            Event::Released { token } => self.on_released(token & !REPLY_TOKEN),
            Event::SessionUp { peer } => {
                info!(%peer, "session up");
                self.accepted.session_up(peer);
            }
            Event::SessionDown { peer, why } => {
                info!(%peer, why, "session down");
                self.bindings.forget_peer(peer);
                self.accepted.session_down(peer);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one response event")]
    pub fn on_response(
        &mut self,
        now: u64,
        token: u64,
        status: Code,
        at: VerdictAt,
        flags: Flags,
        layout: u32,
        flat: &[u8],
        body: &[u8],
    ) {
        if let Some(Outgoing { progress: Progress::Sent(_), remote: Some(remote), .. }) =
            self.outgoing.get(token)
        {
            // Only the peer's engine says that a stream is open; its policies' answers have nothing behind the block.
            match Answer::split(body).filter(|_| status == Code::Ok && at == VerdictAt::Engine) {
                Some((answer, frames)) => return self.on_opened(now, token, answer, frames),
                // The server may have opened it all the same.
                None if at == VerdictAt::Transport => self.exchanges.cancel(remote.link, remote.stream),
                None => {}
            }
        }
        let Some(call) = self.remove_outgoing(token) else {
            return self.count(Reason::StaleCall);
        };
        let Outgoing { origin, method, binding, judged, .. } = call;
        match origin {
            Origin::App { app, cookie, .. } => {
                // The peer's service may have been replaced by one with another layout: ask again before the next call.
                if status == Code::FailedPrecondition
                    && let Some(key) = binding
                {
                    self.bindings.doubt(&key);
                }
                let mut copy = [0; FLAT_MAX];
                let mut flat = flat;
                if judged.is_some()
                    && let Some(changed) = copy.get_mut(..flat.len())
                {
                    changed.copy_from_slice(flat);
                    let mut back = Back { status, layout, flat: changed, body_len: body.len() as u32 };
                    match self.judge_back(now, judged, &mut back) {
                        Ok(0) => flat = changed,
                        Ok(_) if !self.delayed.has_room(flat.len() + body.len()) => {
                            return self.end_here(now, call, crowded());
                        }
                        Ok(delay_ns) => {
                            let (flat, body) = (changed.to_vec(), body.to_vec());
                            let answer = Answered { status, at, flags, layout, flat, body };
                            return self.hold_response(now, delay_ns, call, answer);
                        }
                        Err(ended) => return self.end_here(now, call, ended),
                    }
                }
                if let Some(app) = self.apps.get_mut(app.0) {
                    let header = DeliveryHeader { flags, ..response(cookie, method, layout, status, at) };
                    app.deliver(&header, flat, body);
                }
            }
            Origin::Exchange { link, batch } => self.on_exchanged(now, link, batch, status, body),
            Origin::Bind => {
                let Some(key) = binding else { return };
                if status == Code::Ok {
                    self.ready.extend(self.bindings.agree(key));
                    return;
                }
                let why = String::from_utf8_lossy(body).into_owned();
                // Only the peer's own word about the layout is worth remembering; a lost peer says nothing about it.
                let waiting = match status {
                    Code::FailedPrecondition => self.bindings.refuse(key, now, &why),
                    _ => self.bindings.forget(&key),
                };
                for call in waiting {
                    self.fail(now, call.token, status, at, &why);
                }
            }
        }
    }

    fn on_released(&mut self, key: u64) {
        if let Some(HeldReply::Batch(_)) = self.held.get(key) {
            return self.release_batch(key);
        }
        let Some(HeldReply::App { app: id, handle, .. }) = self.held.remove(key) else { return };
        let Some(app) = self.apps.get_mut(id.0) else { return };
        app.held_replies -= 1;
        app.release(handle);
        self.bury(id);
    }

    /// Mirrors opened and closed sessions to the kernel. Runs before anything is sent on them.
    pub fn mirror_sessions(&mut self, now: u64, transport: &mut Transport) {
        for change in transport.session_changes() {
            let mirrored = match change {
                SessionChange::Opened(guard, idle_ns) => {
                    let tracked = Tracked { last_seen_ns: now, idle_ns, calls: 0 };
                    let identity = self.config.identities.of(guard.peer);
                    let others = self.sessions.values().filter(|known| known.peer.address == guard.peer);
                    let sessions = 1 + others.count() as u32;
                    let peer = Peer { address: guard.peer, identity, sessions };
                    let inserted =
                        self.driver.session_insert(&SessionEntry::new(guard, now, idle_ns), &peer.view());
                    self.sessions.insert(guard.index, Known { tracked, peer });
                    inserted
                }
                SessionChange::Closed(index) => {
                    self.sessions.remove(&index);
                    self.driver.session_remove(index)
                }
            };
            if let Err(error) = mirrored {
                warn!(
                    error,
                    "the session table in the kernel could not be updated; packets of the session are refused"
                );
            }
        }
    }

    /// Writes what policies have changed through to the kernel. Before anything is sent that was judged after it.
    pub fn write_through(&mut self) {
        let Core { server_gate, driver, .. } = self;
        server_gate.take_changes(|generation, table, written| {
            if let Err(error) = driver.table_write(generation, table, written) {
                warn!(error, table = table.name, "a policy's table in the kernel could not be updated");
            }
        });
    }

    /// Housekeeping: what policies have logged, policies that no call can meet any more.
    pub fn look_after_policies(&mut self, now: u64) {
        let Core { server_gate, client_gate, log, .. } = self;
        for gate in [server_gate, client_gate] {
            let lost = gate.take_log(|LogLine { element, method, text }| {
                log.line(now, format_args!("{element}() method {method:#010x}: {text}"));
            });
            log.lost(lost);
            gate.release(now);
        }
        log.tell(now);
    }
}

/// What a caller reads when a policy refused its call in the driver without a word of its own.
fn driver_text(status: Code) -> &'static [u8] {
    match status {
        Code::FailedPrecondition => b"the server's policy was not compiled for this layout of the request; apply it again with the current schema",
        Code::Unauthenticated => b"the session idled past the server's limit",
        _ => b"refused by the server's policy, in its network driver",
    }
}
