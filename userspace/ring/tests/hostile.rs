//! What an application can write into its memory, and what the daemon makes of it: valid submissions or `Corrupt`,
//! never a panic, never a wild read.

use proptest::prelude::*;
use rustix::fd::OwnedFd;
use tollfree_ring::{AppOp, Corrupt, DaemonOp, DeliveryHeader, Full, Geometry, Handover, daemon};
use tollfree_wire::header::{FLAT_MAX, MESSAGE_MAX};

const GEOMETRY: Geometry = Geometry { slots: 16, tx_bytes: 8192, rx_bytes: 4096, long_bytes: 8192 };
const RING: u64 = 4096;

/// The hostile application: it has the memory, but not our library.
struct Hostile {
    memory: OwnedFd,
    _rest: (OwnedFd, OwnedFd, OwnedFd, OwnedFd),
}

fn hostile() -> (Hostile, daemon::Port) {
    let (port, handover) = daemon::Port::create(&GEOMETRY).unwrap();
    let Handover { geometry: _, app_memory, daemon_memory, long_memory, doorbell, bell } = handover;
    (Hostile { memory: app_memory, _rest: (daemon_memory, long_memory, doorbell, bell) }, port)
}

impl Hostile {
    fn write(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(&self.memory, bytes, offset).unwrap(), bytes.len());
    }

    fn index(&self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
}

/// Everything the daemon does with an application in a turn.
fn turn(port: &mut daemon::Port) -> Result<usize, Corrupt> {
    let mut popped = 0;
    while let Some(submission) = port.pop()? {
        assert!(submission.flat.len as usize <= FLAT_MAX && submission.body.len <= MESSAGE_MAX);
        for span in [submission.flat, submission.body] {
            assert!(span.offset + span.len <= GEOMETRY.tx_bytes + GEOMETRY.long_bytes);
            port.read(span, 0, &mut vec![0; span.len as usize]);
        }
        popped += 1;
        assert!(popped <= GEOMETRY.slots as usize, "more than the ring holds");
    }
    port.commit();
    let header = DeliveryHeader { method: 1, ..DeliveryHeader::new(DaemonOp::Response, 1) };
    for _ in 0..popped + 2 {
        for len in [500, 5000] {
            let _: Result<(), Full> = port.deliver(&header, &[1; 8], |_, out| out.fill(1), len);
        }
    }
    port.publish();
    port.give_back();
    if port.prepare_sleep() {
        port.drain_doorbell();
    }
    port.awake();
    Ok(popped)
}

fn descriptor(op: u8, status: u8, flat: (u32, u32), body: (u32, u32)) -> Vec<u8> {
    let mut bytes = vec![op, status, 0, 0, 7, 0, 0, 0];
    bytes.extend([0; 16]);
    for word in [flat.0, flat.1, body.0, body.1] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(64, 0);
    bytes
}

#[test]
fn every_lie_has_its_name() {
    let cases = [
        ("op 0", descriptor(0, 0, (0, 0), (0, 0)), "operation 0"),
        ("op 10", descriptor(10, 0, (0, 0), (0, 0)), "operation 10"),
        ("flags", [vec![1, 0, 0, 8], descriptor(1, 0, (0, 0), (0, 0))[4..].to_vec()].concat(), "reserved"),
        ("status", descriptor(2, 17, (0, 0), (0, 0)), "status 17"),
        ("flat over the limit", descriptor(1, 0, (0, 193), (0, 0)), "flat block of 193"),
        ("flat past the end", descriptor(1, 0, (16384, 1), (0, 0)), "flat block of 1 bytes at 16384"),
        ("body past the end", descriptor(1, 0, (0, 0), (1, 16384)), "body of 16384 bytes at 1"),
        ("body that overflows", descriptor(1, 0, (0, 0), (u32::MAX, u32::MAX)), "body"),
        ("reserved", [descriptor(1, 0, (0, 0), (0, 0))[..63].to_vec(), vec![1]].concat(), "reserved"),
    ];
    for (name, bytes, message) in cases {
        let (app, mut port) = hostile();
        app.write(RING, &bytes);
        app.index(0, 1);
        let corrupt = port.pop().unwrap_err();
        assert!(corrupt.to_string().contains(message), "{name}: {corrupt}");
        assert_eq!(port.pop().unwrap_err(), corrupt, "{name}: stays corrupt");
    }
    let (app, mut port) = hostile();
    app.write(RING, &descriptor(3, 0, (0, 0), (0, 0)));
    app.index(0, 1);
    assert_eq!(port.pop().unwrap().unwrap().op, AppOp::Cancel);
}

#[test]
fn indices_out_of_reach_are_corrupt() {
    for produced in [17, u32::MAX, 1 << 31] {
        let (app, mut port) = hostile();
        app.index(0, produced);
        assert!(matches!(port.pop(), Err(Corrupt::Index { slots: 16, .. })), "{produced}");
    }
    // An application that claims to have read what was never sent.
    let (app, mut port) = hostile();
    app.index(64, 17);
    while turn(&mut port).is_ok() {}
    assert!(matches!(port.pop(), Err(Corrupt::Index { claimed: 17, .. })));
}

/// Descriptors near the truth, so that the checks behind the first are reached too.
fn near_truth() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop_oneof![0..300u32, 8000..8300u32, 16300..16400u32, any::<u32>()];
    let span = (edge.clone(), edge);
    (0..11u8, 0..19u8, span.clone(), span)
        .prop_map(|(op, status, flat, body)| descriptor(op, status, flat, body))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_give_submissions_or_corrupt(
        turns in proptest::collection::vec(
            (
                proptest::collection::vec(prop_oneof![3 => near_truth(), 1 => proptest::collection::vec(any::<u8>(), 64)], 0..16),
                prop_oneof![3 => 0..17u32, 1 => any::<u32>()],
                prop_oneof![3 => 0..4u32, 1 => any::<u32>()],
                any::<u32>(),
            ),
            1..8,
        )
    ) {
        let (app, mut port) = hostile();
        let (mut produced, mut consumed) = (0u32, 0u32);
        for (descriptors, ahead, read, sleep) in turns {
            for (place, bytes) in descriptors.iter().enumerate() {
                let slot = (produced as usize + place) % GEOMETRY.slots as usize;
                app.write(RING + 64 * slot as u64, bytes);
            }
            produced = produced.wrapping_add(ahead);
            consumed = consumed.wrapping_add(read);
            app.index(0, produced);
            app.index(64, consumed);
            app.index(128, sleep);
            if turn(&mut port).is_err() {
                break;
            }
        }
    }

    /// A mutator rewrites the whole ring while the daemon reads it.
    #[test]
    fn descriptors_that_change_while_read_are_still_checked(seed in any::<u64>()) {
        let (app, mut port) = hostile();
        let good = descriptor(1, 0, (0, 192), (192, 8000)).repeat(16);
        let bad = descriptor(1, 0, (16383, 192), (seed as u32, u32::MAX)).repeat(16);
        app.write(RING, &good);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    app.write(RING, &bad);
                    app.write(RING, &good);
                }
            });
            for produced in 1..200u32 {
                app.index(0, produced);
                if turn(&mut port).is_err() {
                    break;
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
