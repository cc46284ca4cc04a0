//! A policy's cost in the engine: all of it, the request and, where it cares, the response.

use crate::subject::Subject;
use std::hint::black_box;
use std::time::Instant;
use tollfree_policy::{CallView, PeerView, ResponseView, Start, Tracked, Verdict};
use tollfree_wire::Code;

/// Calls of a round, whose requests lie in memory before the clock starts, as packets do; and rounds: a million calls in
/// all, in rounds so short that most of them run without a break.
const CALLS: u32 = 256;
const ROUNDS: u32 = 4_000;
/// Calls after which lines of the log and writes for the driver are thrown away, as the engine takes them in batches.
const BATCH: u32 = 64;

/// ns per call in the best round. `flat` is the request's flat block, at first as it arrives, at last as it goes on.
pub fn measure(subject: &Subject<'_>, flat: &mut [u8]) -> f64 {
    let Subject { compiled, entries, method, identity, .. } = subject;
    let program = &compiled.program;
    let mut state = program.new_state();
    state.seed(7);
    for [table, key, value] in entries {
        state.table_set(table, key, value).expect("the entry fits the table");
    }
    let peer = PeerView {
        address: crate::driver::ADDRESS,
        identity: Some(identity.as_str()).filter(|identity| !identity.is_empty()),
        sessions: 1,
        ..PeerView::default()
    };
    let backends = vec![8; program.selectors().len()];
    let mut tracked = Tracked::default();
    let mut now_ns = 1_000_000_000_000;
    let (changes, responds) = (program.changes_requests(), program.has_response());
    let arrived = flat.to_vec();
    let mut requests = vec![arrived.clone(); CALLS as usize];
    let mut answer = vec![0; usize::from(method.response.flat_len)];
    let mut least = f64::MAX;
    for _ in 0..ROUNDS {
        if changes {
            requests.iter_mut().for_each(|request| request.copy_from_slice(&arrived));
        }
        let started = Instant::now();
        for (call, request) in (0..).zip(&mut requests) {
            now_ns += 1_000;
            let size = request.len() as u32;
            let mut view = CallView {
                method: method.id,
                layout: method.request.fingerprint,
                flat: request,
                size,
                deadline_ns: Some(1_000_000_000),
                port: crate::common::PORT,
                now_ns,
                session: Some(&mut tracked),
                peer: &peer,
                metadata: &[],
                backends: &backends,
                start: Start::Chain,
            };
            let verdict = black_box(program.judge(&mut state, &mut view)).verdict;
            if responds && verdict == Verdict::Send {
                let mut response = ResponseView {
                    status: Code::Ok,
                    layout: method.response.fingerprint,
                    size: answer.len() as u32,
                    flat: &mut answer,
                    latency_ns: 20_000,
                    backend: Some(0),
                    attempt: 1,
                    ended_at: None,
                };
                black_box(program.judge_response(&mut state, &mut view, &mut response));
            }
            if call % BATCH == 0 {
                state.take_log(|_| ());
                state.take_changes(|_| ());
            }
        }
        least = least.min(started.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    flat.copy_from_slice(requests.last().expect("a round has calls"));
    least
}
