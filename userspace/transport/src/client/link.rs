//! Calls on their way to a slot: one link per peer, which has at most one session for new calls and a queue of calls that
//! wait for it. A session that will end but still has calls is *closing*: it takes no new ones.

use super::calls::{Call, Place};
use crate::event::*;
use crate::extension::{message_len, order_len};
use crate::outbox::Ready;
use crate::session::Session;
use crate::transport::Transport;
use crate::window::Window;
use std::collections::{HashMap, VecDeque};
use tollfree_wire::Code;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::{FLAT_MAX, MESSAGE_MAX};
use tollfree_wire::spec::MethodSpec;

/// Fragments of one message of an unreliable method: they leave at once, and nobody says what has arrived.
pub(crate) const UNRELIABLE_FRAGMENTS: u32 = 32;

/// The way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub peer: Peer,
    /// The session for new calls, agreed on or on its way there.
    pub session: Option<u32>,
    /// All sessions with calls, the above included.
    pub sessions: Vec<u32>,
    /// Calls that wait, by key.
    pub queue: VecDeque<u64>,
    /// The peer's epoch, once known.
    pub epoch: Option<u32>,
}

/// All links. They stay: there are as many as peers this host calls.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: Vec<Link>,
    by_peer: HashMap<Peer, u32>,
}

impl Links {
    fn to(&mut self, peer: Peer) -> u32 {
        *self.by_peer.entry(peer).or_insert_with(|| {
            self.links.push(Link { peer, ..Link::default() });
            self.links.len() as u32 - 1
        })
    }

    #[inline]
    pub fn get_mut(&mut self, link: u32) -> &mut Link {
        &mut self.links[link as usize]
    }

    /// The link to a peer, where this host has called it.
    pub fn find(&self, peer: &Peer) -> Option<u32> {
        self.by_peer.get(peer).copied()
    }

    /// A session is gone.
    pub fn forget(&mut self, index: u32) {
        for link in &mut self.links {
            link.sessions.retain(|session| *session != index);
            link.session = link.session.filter(|session| *session != index);
        }
    }
}

impl Transport {
    /// Makes a call. It may wait for a session or for one of its session's slots; it ends with an
    /// [`Event::Response`] in any case, never before this returns.
    pub fn call(&mut self, now: u64, peer: Peer, call: NewCall<'_>) -> CallHandle {
        let NewCall { flat, body_len, .. } = call;
        let fits = flat.len() <= FLAT_MAX && body_len <= MESSAGE_MAX;
        let call = if fits { call } else { NewCall { flat: &[], metadata: false, body_len: 0, ..call } };
        self.counters.calls_made += 1;
        let link = self.links.to(peer);
        let key = self.calls.insert(&mut self.timers, link, &call);
        if !fits {
            self.fail_call(
                now,
                key,
                Code::ResourceExhausted,
                "the request is over the limit of a message's length",
            );
            return CallHandle(key);
        }
        if let Some(call) = self.calls.get_mut(key) {
            call.limit(now, &self.specs.of(call.method).unwrap_or_default());
            if call.deadline_ns != u64::MAX {
                self.timers.set(call.timer, call.deadline_ns);
            }
        }
        self.links.get_mut(link).queue.push_back(key);
        self.pump(now, link);
        CallHandle(key)
    }

    /// Moves waiting calls into free slots; opens a session if there is none.
    #[inline]
    pub(crate) fn pump(&mut self, now: u64, link_id: u32) {
        loop {
            let link = self.links.get_mut(link_id);
            let Some(&key) = link.queue.front() else { return };
            let Some(call) = self.calls.get_mut(key).filter(|call| call.place == Place::Queued) else {
                link.queue.pop_front();
                continue;
            };
            let Some(index) = link.session else { return self.connect(now, link_id) };
            let Some(session) = self.table.get_mut(index).filter(|session| session.is_open()) else { return };
            let (spec, room) = match carriage(session, call) {
                Ok(carried) => carried,
                Err((status, why)) => {
                    link.queue.pop_front();
                    self.fail_call(now, key, status, why);
                    continue;
                }
            };
            let Some(client) = session.client() else { return };
            let Some(id) = client.take_slot(key, spec.ordered, now) else { return };
            call.open(index, id, spec, room, &mut self.boards);
            call.limit(now, &spec);
            call.ready = true;
            link.queue.pop_front();
            if call.deadline_ns != u64::MAX {
                self.timers.set(call.timer, call.deadline_ns);
            }
            let long = call.body_len > room;
            self.outbox.push(Ready::Call(key));
            if long {
                self.probe_path(now, index);
            }
        }
    }

    /// Ends every call that waits for a session.
    pub(super) fn fail_queue(&mut self, now: u64, link: u32, status: Code, why: &'static str) {
        while let Some(key) = self.links.get_mut(link).queue.pop_front() {
            if self.calls.get_mut(key).is_some_and(|call| call.place == Place::Queued) {
                self.fail_call(now, key, status, why);
            }
        }
    }
}

/// How a session carries a call, and how much of its message goes into each packet; or why it cannot.
fn carriage(session: &Session, call: &Call) -> Result<(MethodSpec, u32), (Code, &'static str)> {
    let Some(spec) = session.specs.of(call.method) else {
        let why = "the peer cannot carry this method as this host's transport block asks; it may run an older version";
        return Err((Code::FailedPrecondition, why));
    };
    let room = session.path.room(call.flat_len.into(), &spec);
    let window = Window::once(call.body_len + order_len(&spec), room);
    if message_len(&spec, &window) > MESSAGE_MAX {
        return Err((Code::ResourceExhausted, "the request is over the limit of a message's length"));
    }
    if !spec.is_reliable() && window.fragments() > UNRELIABLE_FRAGMENTS {
        let why =
            "the request is too long for an unreliable method; make it reliable() in the transport block";
        return Err((Code::ResourceExhausted, why));
    }
    Ok((spec, room))
}
