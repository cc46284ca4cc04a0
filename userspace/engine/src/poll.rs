//! The poll loop itself: one turn takes a bounded amount of work from every side.

use crate::apps::AppId;
use crate::command::{Gone, Handle, Inbox, pair};
use crate::config::Config;
use crate::core::Core;
use crate::driver::Driver;
use crate::wait::{Next, TICK_NS, Waiter, Work};
use rustix::time::{ClockId, clock_gettime};
use std::hash::{DefaultHasher, Hasher};
use tollfree_nic::{Nic, TxError};
use tollfree_transport::{Blocked, Route, Transmit, Transport};
use tollfree_wire::Reason;
use tracing::warn;

mod obey;

/// Packets taken from the backend in one turn.
const PACKETS_PER_TURN: usize = 64;
/// Descriptors taken from one application in one turn.
const DESCRIPTORS_PER_TURN: usize = 32;
/// Most applications one engine serves.
const APPS_MAX: usize = 1024;
/// How often memory that long messages no longer need is looked for, in ns.
const LOOK_NS: u64 = 1_000_000_000;

/// Why an engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call that every Linux answers failed.
    #[error("the engine could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// The packet backend failed.
    #[error(transparent)]
    Nic(#[from] tollfree_nic::Error),
}

/// An engine over one packet backend.
pub struct Engine<N, D> {
    nic: N,
    transport: Transport,
    core: Core<D>,
    inbox: Inbox,
    waiter: Waiter,
    /// Scratch: the applications attached, so that walking them does not borrow the table.
    ids: Vec<AppId>,
    next_tick: u64,
    next_look: u64,
    transmitted: u64,
    stopping: bool,
}

impl<N: Nic, D: Driver> Engine<N, D> {
    /// Builds an engine; nothing moves before [`Engine::run`].
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new(
        config: Config,
        nic: N,
        driver: D,
        transport: tollfree_transport::Config,
    ) -> Result<(Self, Handle), Error> {
        let (handle, inbox) =
            pair().map_err(|source| Error::System { what: "make an event descriptor", source })?;
        let waiter = Waiter::new(config.waiting, nic.fd(), &inbox)
            .map_err(|source| Error::System { what: "set up its waiting", source })?;
        let life = life(&transport.secret);
        let transport = tollfree_transport::Config {
            verified: N::VERIFIED,
            max_payload: nic.max_payload(),
            ports: nic.ports(),
            ..transport
        };
        let engine = Engine {
            nic,
            transport: Transport::new(transport),
            core: Core::new(config, driver, N::VERIFIED, life),
            inbox,
            waiter,
            ids: Vec::new(),
            next_tick: 0,
            next_look: 0,
            transmitted: 0,
            stopping: false,
        };
        Ok((engine, handle))
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// When the packet backend fails for good; sessions and applications end with the engine.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.stopping {
            let now = now();
            let work = self.turn(now, self::now)?;
            if self.waiter.after(now, work) == Next::Sleep && self.may_sleep() {
                let due = self.transport.timeout().into_iter().chain(self.core.delayed.due()).min();
                self.waiter.sleep(now, due);
                self.woken();
            }
        }
        self.transport.close_all(now());
        self.transmit(now());
        self.nic.flush()?;
        Ok(())
    }

    /// One turn: commands, applications, packets, timers, then everything that has become ready to send. `leaving` says what
    /// time it is by then.
    pub(crate) fn turn(&mut self, now: u64, leaving: impl FnOnce() -> u64) -> Result<Work, Error> {
        let mut work = Work { any: self.take_commands(now), ..Work::default() };
        self.core.turns = self.core.turns.wrapping_add(1);
        work.any |= self.take_submissions(now);
        work.any |= self.take_packets(now)?;
        if now >= self.next_tick {
            self.next_tick = now + TICK_NS;
            self.nic.tick(now);
            self.core.expire_local(now);
            self.core.look_after_clients(now);
            self.core.expire_served(now);
            self.core.look_after_policies(now);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_NS;
            self.give_back();
        }
        if self.transport.timeout().is_some_and(|due| due <= now) {
            let Engine { transport, core, .. } = self;
            transport.handle_timeouts(now, &mut |event| core.on_event(now, event));
            work.any = true;
        }
        work.any |= self.core.go_on(now, &mut self.transport);
        self.core.send_ready(now, &mut self.transport);
        self.core.end_broken(now, &mut self.transport);
        self.core.cancel_abandoned(now, &mut self.transport);
        self.core.exchange(now, &mut self.transport);
        self.core.answer_exchanges(now, &mut self.transport);
        self.core.send_refusals(now, &mut self.transport);
        self.core.mirror_sessions(now, &mut self.transport);
        self.core.write_through();
        // Round trips are measured between here and the other end's: what the turn itself took is not the network's.
        let leaving = if work.any { leaving() } else { now };
        work.transmitted = self.transmit(leaving);
        if work.transmitted {
            self.nic.flush()?;
        }
        self.core.tell_taken();
        work.delivered = self.publish();
        work.any |= work.transmitted | work.delivered;
        Ok(work)
    }

    fn take_commands(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Ok(command) = self.inbox.commands.try_recv() {
            any = true;
            self.obey(now, command);
        }
        any
    }

    fn take_submissions(&mut self, now: u64) -> bool {
        let mut any = false;
        let mut place = 0;
        // An application that is detached on the way leaves its place to another, which then waits for the next turn.
        while let Some(&id) = self.ids.get(place) {
            place += 1;
            for _ in 0..DESCRIPTORS_PER_TURN {
                let Some(app) = self.core.apps.get_mut(id.0).filter(|app| app.keeps_up()) else { break };
                match app.port.pop() {
                    Ok(Some(submission)) => {
                        any = true;
                        self.core.submit(now, &mut self.transport, id, &submission);
                    }
                    Ok(None) => break,
                    Err(corrupt) => {
                        warn!(app = app.name, pid = app.pid, %corrupt, "application disconnected");
                        app.dismiss(Gone::Corrupt);
                        self.detach(now, id);
                        break;
                    }
                }
            }
            if let Some(app) = self.core.apps.get_mut(id.0) {
                app.port.commit();
                any |= app.drain_backlog();
            }
        }
        any
    }

    fn take_packets(&mut self, now: u64) -> Result<bool, Error> {
        let Engine { nic, transport, core, .. } = self;
        let received = nic.receive(PACKETS_PER_TURN, &mut |packet| match transport.receive_marked(
            now,
            packet.from,
            packet.payload,
            packet.marked,
            &mut |event| core.on_event(now, event),
        ) {
            Ok(()) => core.count(Reason::Delivered),
            Err(reason) => core.count(reason),
        })?;
        Ok(received > 0)
    }

    /// Marshals whatever may be sent straight into transmit frames. True if anything was.
    fn transmit(&mut self, now: u64) -> bool {
        let Engine { nic, transport, core, transmitted, .. } = self;
        let before = *transmitted;
        transport.transmit(now, &mut |packet: Transmit<'_>| {
            let Route { from, to } = packet.route;
            let fill = &mut |frame: &mut [u8]| {
                packet.write(frame, |token, at, out| core.copy_body(token, at, out));
            };
            match nic.transmit(from, &to, packet.payload_len(), fill) {
                // A peer whose MAC address is being looked up is a peer whose packet got lost: it will be sent again.
                Ok(()) | Err(TxError::Unreachable) => {
                    *transmitted += 1;
                    Ok(())
                }
                Err(TxError::Full) => Err(Blocked),
                Err(TxError::Failed(error)) => {
                    warn!(%error, peer = %to, "a packet could not be sent");
                    core.count(Reason::TxFailed);
                    Ok(())
                }
            }
        });
        *transmitted != before
    }

    /// Gives back the memory of long messages that applications have read.
    fn give_back(&mut self) {
        for id in &self.ids {
            if let Some(app) = self.core.apps.get_mut(id.0) {
                app.port.give_back();
            }
        }
    }

    fn publish(&mut self) -> bool {
        let mut any = false;
        for id in &self.ids {
            if let Some(app) = self.core.apps.get_mut(id.0) {
                any |= app.publish();
            }
        }
        any
    }

    /// Tells every application that the engine is about to sleep; false when one has just put work in its ring.
    fn may_sleep(&mut self) -> bool {
        let mut ready = true;
        for id in &self.ids {
            if let Some(app) = self.core.apps.get_mut(id.0) {
                ready &= app.port.prepare_sleep();
            }
        }
        if !ready {
            self.tell_awake();
        }
        ready
    }

    fn tell_awake(&mut self) {
        for id in &self.ids {
            if let Some(app) = self.core.apps.get_mut(id.0) {
                app.port.awake();
            }
        }
    }

    fn woken(&mut self) {
        self.tell_awake();
        for id in &self.ids {
            if let Some(app) = self.core.apps.get(id.0) {
                app.port.drain_doorbell();
            }
        }
        // Nothing to read is the usual case.
        let _ = rustix::io::read(&self.inbox.doorbell, &mut [0; 8]);
    }

    /// Whether nothing is under way, and nothing left of what was.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let Core { outgoing, incoming, held, exchanges, .. } = &self.core;
        let under_way = outgoing.len() + incoming.len() + held.len() + self.transport.held().calls;
        under_way == 0 && exchanges.is_idle()
    }
}

/// A number, never 0, that no other start of a daemon has, as no other has its secret.
fn life(secret: &[u8; 32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(secret);
    hasher.finish() | 1
}

/// The monotonic clock, in ns: the one XDP programs read too.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
