//! Everything the engine knows besides its packet backend and its transport, and what becomes of transport events.

use crate::accepted::Accepted;
use crate::apps::{App, AppId, response};
use crate::bindings::Bindings;
use crate::calls::{Caller, HeldReply, Incoming, Origin, Outgoing, Progress, REPLY_TOKEN};
use crate::carriage::Carriage;
use crate::config::Config;
use crate::driver::Driver;
use crate::gate::Gate;
use crate::slab::Slab;
use std::collections::HashMap;
use tollfree_policy::Tracked;
use tollfree_ring::VerdictAt;
use tollfree_transport::{Event, IncomingCall, SessionChange, Transport, Verdict};
use tollfree_wire::{Code, Reason, SessionEntry};
use tracing::{info, warn};

/// A status that the engine itself answers a remote call with. Made while the transport is busy delivering events, sent
/// right after.
pub struct Refusal {
    pub call: IncomingCall,
    pub status: Code,
    pub why: String,
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
    /// What `session_tracker()` knows, by session index.
    pub tracked: HashMap<u32, Tracked>,
    pub reasons: [u64; Reason::COUNT],
    /// Whether an XDP program has judged what arrives.
    pub judged_below: bool,
    pub refusals: Vec<Refusal>,
    /// Calls that a policy dropped: never answered.
    pub ignored: Vec<IncomingCall>,
    /// Calls whose layout was just agreed on, with their flat blocks.
    pub ready: Vec<crate::bindings::WaitingCall>,
    /// Turns the loop has made: spreads calls over applications that serve the same method.
    pub turns: u64,
}

impl<D: Driver> Core<D> {
    pub fn new(config: Config, driver: D, judged_below: bool) -> Core<D> {
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
            tracked: HashMap::new(),
            reasons: [0; Reason::COUNT],
            refusals: Vec::new(),
            ignored: Vec::new(),
            ready: Vec::new(),
            turns: 0,
        }
    }

    /// What `session_tracker()` has noted of a session, wherever it runs.
    pub fn tracked(&self, index: u32) -> Tracked {
        let below = if self.judged_below { self.driver.tracked(index) } else { None };
        below.or_else(|| self.tracked.get(&index).copied()).unwrap_or_default()
    }

    pub fn count(&mut self, reason: Reason) {
        self.reasons[reason.index()] += 1;
    }

    /// Takes one event of the transport.
    pub fn on_event(&mut self, now: u64, event: Event<'_>) {
        match event {
            Event::Request(request) => self.on_request(now, &request),
            Event::Response { token, status, layout, flat, body, verdict } => {
                let at = match verdict {
                    Verdict::Peer { by_engine: true } => VerdictAt::Engine,
                    Verdict::Peer { by_engine: false } if status == Code::Ok => VerdictAt::None,
                    Verdict::Peer { by_engine: false } => VerdictAt::Application,
                    Verdict::Driver => VerdictAt::Driver,
                    Verdict::Transport(_) => VerdictAt::Transport,
                };
                let body = match verdict {
                    Verdict::Transport(why) => why.as_bytes(),
                    Verdict::Driver => driver_text(status),
                    Verdict::Peer { .. } => body,
                };
                self.on_response(now, token, status, at, layout, flat, body);
            }
            Event::Cancelled { call } => self.on_cancelled(call),
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
    fn on_response(
        &mut self,
        now: u64,
        token: u64,
        status: Code,
        at: VerdictAt,
        layout: u32,
        flat: &[u8],
        body: &[u8],
    ) {
        let Some(Outgoing { origin, method, binding, .. }) = self.outgoing.remove(token) else {
            return self.count(Reason::StaleCall);
        };
        match origin {
            Origin::App { app, cookie, .. } => {
                // The peer's service may have been replaced by one with another layout: ask again before the next call.
                if status == Code::FailedPrecondition
                    && let Some(key) = binding
                {
                    self.bindings.forget(&key);
                }
                if let Some(app) = self.apps.get_mut(app.0) {
                    app.deliver(&response(cookie, method, layout, status, at), flat, body);
                }
            }
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
                    self.fail(call.token, status, at, &why);
                }
            }
        }
    }

    /// Ends an outgoing call that the transport does not have (any more).
    pub fn fail(&mut self, token: u64, status: Code, at: VerdictAt, why: &str) {
        let Some(Outgoing { origin, method, .. }) = self.outgoing.remove(token) else { return };
        if let Origin::App { app, cookie, .. } = origin
            && let Some(app) = self.apps.get_mut(app.0)
        {
            app.fail(cookie, method, status, at, why);
        }
    }

    fn on_cancelled(&mut self, call: IncomingCall) {
        let is_it = |incoming: &Incoming| matches!(incoming.caller, Caller::Remote(other) if other == call);
        for handle in self.incoming.keys_where(is_it) {
            self.tell_cancelled(handle);
        }
    }

    /// Tells an application that nobody waits for its answer any more.
    pub fn tell_cancelled(&mut self, handle: u64) {
        let Some(Incoming { app, .. }) = self.incoming.remove(handle) else { return };
        if let Some(app) = self.apps.get_mut(app.0) {
            app.cancelled(handle);
        }
    }

    fn on_released(&mut self, key: u64) {
        let Some(HeldReply { app: id, handle, .. }) = self.held.remove(key) else { return };
        let Some(app) = self.apps.get_mut(id.0) else { return };
        app.held_replies -= 1;
        app.release(handle);
        self.bury(id);
    }

    /// Drops an application that is detached once nothing needs its memory.
    fn bury(&mut self, id: AppId) {
        if self.apps.get(id.0).is_some_and(|app| app.detached && app.held_replies == 0) {
            self.apps.remove(id.0);
        }
    }

    /// Mirrors opened and closed sessions to the kernel. Runs before anything is sent on them.
    pub fn mirror_sessions(&mut self, now: u64, transport: &mut Transport) {
        for change in transport.session_changes() {
            let mirrored = match change {
                SessionChange::Opened(guard, idle_ns) => {
                    self.tracked.insert(guard.index, Tracked { last_seen_ns: now, idle_ns, calls: 0 });
                    self.driver.session_insert(&SessionEntry::new(guard, now, idle_ns))
                }
                SessionChange::Closed(index) => {
                    self.tracked.remove(&index);
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

    /// Copies a part of a message's body to where the transport wants it: into a frame.
    pub fn copy_body(&self, token: u64, at: u32, out: &mut [u8]) {
        let source = if token & REPLY_TOKEN != 0 {
            self.held.get(token & !REPLY_TOKEN).map(|reply| (reply.app, reply.body))
        } else {
            match self.outgoing.get(token) {
                Some(Outgoing { origin: Origin::App { app, body, .. }, .. }) => Some((*app, *body)),
                Some(Outgoing { origin: Origin::Bind, binding: Some(key), .. }) => {
                    let question = self.bindings.question(key).unwrap_or_default();
                    if let Some(part) = question.get(at as usize..at as usize + out.len()) {
                        out.copy_from_slice(part);
                    }
                    None
                }
                _ => None,
            }
        };
        if let Some((app, body)) = source
            && let Some(app) = self.apps.get(app.0)
        {
            app.port.read(body, at as usize, out);
        }
    }

    /// Removes an application: its own calls are withdrawn, the calls it served end `UNAVAILABLE`.
    pub fn detach(&mut self, now: u64, transport: &mut Transport, id: AppId) {
        let Some(app) = self.apps.get_mut(id.0) else { return };
        app.detached = true;
        info!(app = app.name, pid = app.pid, "application detached");
        for served in self.services.values_mut() {
            served.retain(|other| *other != id);
        }
        self.services.retain(|_, served| !served.is_empty());

        let mine = |call: &Outgoing| matches!(call.origin, Origin::App { app, .. } if app == id);
        for token in self.outgoing.keys_where(mine) {
            self.withdraw(now, transport, token);
        }
        for handle in self.incoming.keys_where(|call| call.app == id) {
            let Some(call) = self.incoming.remove(handle) else { continue };
            let why = "the service's process ended before it answered";
            match call.caller {
                Caller::Remote(call) => {
                    self.refusals.push(Refusal { call, status: Code::Unavailable, why: why.to_owned() });
                }
                Caller::Local { outgoing } => self.fail(outgoing, Code::Unavailable, VerdictAt::Engine, why),
            }
        }
        self.bury(id);
    }

    /// Forgets an outgoing call whose caller no longer wants the result.
    pub fn withdraw(&mut self, now: u64, transport: &mut Transport, token: u64) {
        let Some(call) = self.outgoing.remove(token) else { return };
        match call.progress {
            Progress::Binding => self.bindings.withdraw(token),
            Progress::Sent(handle) => transport.cancel(now, handle),
            Progress::Local { incoming } => self.tell_cancelled(incoming),
            Progress::Dropped => {}
        }
    }
}

/// What a caller reads when a policy refused its call in the driver: the reject itself carries no text.
fn driver_text(status: Code) -> &'static [u8] {
    match status {
        Code::FailedPrecondition => b"the server's policy was not compiled for this layout of the request; apply it again with the current schema",
        Code::Unauthenticated => b"the session idled past the server's limit",
        _ => b"refused by the server's policy, in its network driver",
    }
}
