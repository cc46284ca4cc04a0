//! What must hold in a world at any moment. Whatever does not hold panics.

use super::{Ended, METHOD, MS, World, flat, pattern, read_flat};
use crate::host::{Made, Running};
use tollfree_transport::{Event, IncomingRequest};
use tollfree_wire::Code;

impl World {
    pub(super) fn on_event(&mut self, at: usize, event: Event<'_>) {
        match event {
            Event::Request(request) => self.on_request(at, &request),
            Event::Response { token, status, layout, flat, body, verdict, .. } => {
                let made = self.hosts[at].made.remove(&token).expect("one response per call");
                let Made { uid, to, reply_len, denied, .. } = made;
                let trusted = !self.hosts[at].rogue && !self.hosts[to].rogue;
                if status == Code::Ok && trusted {
                    let expected = pattern(!uid, reply_len);
                    assert!(body == expected, "call {uid}: wrong reply");
                    assert_eq!((layout, flat), (9, &expected[..expected.len().min(5)]));
                    assert!(self.ran.contains(&uid), "call {uid} was answered and never ran");
                }
                if trusted && denied {
                    assert!(status != Code::Ok && !self.ran.contains(&uid), "call {uid} got past the policy");
                }
                let before = self.ended.insert(uid, Ended { at: self.now, status, verdict });
                assert_eq!(before, None, "call {uid} ended twice");
                self.note(format_args!("call {uid} ends at host {at}: {status:?} ({verdict:?})"));
            }
            Event::Cancelled { call } => {
                let host = &mut self.hosts[at];
                let before = host.running.len();
                host.running.retain(|running| running.call != call);
                host.cancelled += before - host.running.len();
            }
            Event::Released { token } => {
                let released = self.hosts[at].held.remove(&token);
                assert!(released.is_some(), "token {token} was released twice");
            }
            Event::SessionUp { peer } => {
                let other = self.number(&peer).expect("a session is with a host that exists");
                self.note(format_args!("host {at} has a session with host {other}"));
            }
            Event::SessionDown { peer, why } => {
                let other = self.number(&peer).expect("a session was with a host that exists");
                self.note(format_args!("host {at} has ended a session with host {other}: {why}"));
            }
        }
    }

    fn on_request(&mut self, at: usize, request: &IncomingRequest<'_>) {
        let now = self.local(at);
        let honest = self.number(&request.peer).is_some_and(|from| !self.hosts[from].rogue);
        assert!(request.deadline_ns > now, "a request was delivered after its deadline");
        let takes = self.random.below(self.hosts[at].handler.clone());
        let mut running = Running { at: self.now + takes, call: request.call, reply: Vec::new() };
        if honest {
            let (uid, reply_len) = read_flat(request.flat).expect("the flat block is the caller's");
            assert_eq!(request.layout, uid as u32);
            assert_eq!(request.flat, flat(uid, reply_len));
            assert!(request.body == pattern(uid, request.body.len()), "call {uid}: wrong bytes");
            assert!(self.ran.insert(uid), "call {uid} ran twice");
            self.delivered.push(uid);
            self.check_order(at, request.session, request.method, uid);
            running.reply = pattern(!uid, reply_len);
            self.note(format_args!("call {uid} runs at host {at}"));
        } else {
            running.reply = pattern(0, request.body.len() * 3);
        }
        self.hosts[at].running.push(running);
    }

    /// Calls of an ordered method come in the order in which they were made on their session. One that was sent on another session
    /// before has lost its place.
    fn check_order(&mut self, at: usize, session: u32, method: u32, uid: u64) {
        if !self.spec.ordered || method != METHOD || self.first_sent.get(&uid) != Some(&(at, session)) {
            return;
        }
        let last = self.last_delivered.insert((at, session), uid).unwrap_or(0);
        assert!(last < uid, "call {uid} ran after call {last}, which was made later on the same session");
    }

    /// Nothing may be left when nothing happens any more and every session has idled out.
    pub fn assert_nothing_left(&mut self) {
        let quiet = u64::from(self.config.idle_ms) * MS * 3 + self.config.dead_ns * 3;
        self.run_for(quiet);
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.rogue) {
            let open: Vec<u64> = host.made.values().map(|made| made.uid).collect();
            assert!(open.is_empty(), "host {number}: calls never ended: {open:?}");
            assert!(host.running.is_empty(), "host {number}: calls never answered nor cancelled");
            assert!(host.held.is_empty(), "host {number}: tokens never released: {:?}", host.held.keys());
            let Some(transport) = &host.transport else { continue };
            let held = transport.held();
            assert_eq!(
                (held.calls, held.sessions, held.reassembly_bytes, held.in_flight),
                (0, 0, 0, 0),
                "host {number}: {held:?}"
            );
        }
    }
}
