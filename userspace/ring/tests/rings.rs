//! Both ends of the rings in one process: order, limits, waking, attaching.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use tollfree_ring::attach::{self, Attach};
use tollfree_ring::{
    AppOp, DaemonOp, DeliveryHeader, Error, Flags, Full, Geometry, Span, Submission, VerdictAt, app, daemon,
};
use tollfree_wire::Code;

const SMALL: Geometry = Geometry { slots: 8, tx_bytes: 4096, rx_bytes: 4096, long_bytes: 4096 };

fn ports(geometry: &Geometry) -> (app::Port, daemon::Port) {
    let (daemon, handover) = daemon::Port::create(geometry).unwrap();
    (app::Port::open(handover).unwrap(), daemon)
}

fn call(cookie: u64, flat: Span, body: Span) -> Submission {
    Submission {
        flags: Flags { metadata: true, last: false, bare: true },
        method: 7,
        layout: 9,
        deadline_us: 11,
        flat,
        body,
        count: 5,
        ..Submission::new(AppOp::Call, cookie)
    }
}

fn response(cookie: u64) -> DeliveryHeader {
    DeliveryHeader {
        status: Code::PermissionDenied,
        flags: Flags { metadata: false, last: true, bare: false },
        method: 7,
        layout: 9,
        deadline_us: 11,
        verdict_at: VerdictAt::Driver,
        count: 6,
        ..DeliveryHeader::new(DaemonOp::Response, cookie)
    }
}

#[test]
fn a_submission_and_a_delivery_arrive_as_they_left() {
    let (mut app, mut daemon) = ports(&Geometry::default());
    let flat = app.alloc(13).unwrap();
    let body = app.alloc(70_001).unwrap();
    let bytes: Vec<u8> = (0..70_001u32).map(|n| n as u8).collect();
    assert!(app.write(flat, 0, b"flat as it is"));
    assert!(app.write(body, 0, &bytes));
    assert!(!app.write(flat, 1, b"flat as it is"), "past the end of the span");
    app.push(&call(u64::MAX, flat, body)).unwrap();
    assert_eq!(daemon.pop(), Ok(None), "not published yet");
    app.publish();
    let got = daemon.pop().unwrap().unwrap();
    assert_eq!(got, call(u64::MAX, flat, body));
    for (at, len) in [(0, 70_001), (1, 100), (69_994, 7), (3, 8), (5, 0)] {
        let mut copy = vec![0xee; len];
        daemon.read(body, at, &mut copy);
        assert_eq!(copy, bytes[at..at + len]);
    }
    let mut past = [0xee; 8];
    daemon.read(body, 69_994, &mut past);
    assert_eq!(past, [0; 8], "reads past the span are zeros");

    daemon.deliver(&response(3), b"flat", |_, out| out.copy_from_slice(&bytes), bytes.len()).unwrap();
    assert!(app.pop(|_| ()).unwrap().is_none(), "not published yet");
    daemon.publish();
    app.pop(|delivery| {
        assert_eq!(
            (delivery.op, delivery.call, delivery.status),
            (DaemonOp::Response, 3, Code::PermissionDenied)
        );
        assert_eq!((delivery.flat, delivery.body), (&b"flat"[..], &bytes[..]));
        assert_eq!(delivery.verdict_at, VerdictAt::Driver);
    })
    .unwrap()
    .unwrap();
}

#[test]
fn full_rings_refuse_and_recover() {
    let (mut app, mut daemon) = ports(&SMALL);
    for round in 0..3 {
        for cookie in 0..8 {
            app.push(&call(cookie, Span::default(), Span::default())).unwrap();
        }
        assert_eq!(app.push(&call(8, Span::default(), Span::default())), Err(Full), "round {round}");
        app.publish();
        for cookie in 0..8 {
            assert_eq!(daemon.pop().unwrap().unwrap().call, cookie);
        }
        assert_eq!(
            app.push(&call(8, Span::default(), Span::default())),
            Err(Full),
            "popped but not committed"
        );
        daemon.commit();

        // 512 bytes is as long as a body in the region gets: five fit with their flat blocks.
        let big = daemon.largest_body();
        assert_eq!(daemon.deliver(&response(0), &[], |_, _| (), big + 1), Err(Full));
        for _ in 0..5 {
            daemon.deliver(&response(1), &[1; 192], |_, out| out.fill(2), 512).unwrap();
        }
        assert_eq!(daemon.deliver(&response(2), &[1; 192], |_, out| out.fill(0), 512), Err(Full));
        daemon.publish();
        for _ in 0..5 {
            app.pop(|delivery| assert_eq!(delivery.body, vec![2; 512])).unwrap().unwrap();
        }
        assert_eq!(
            daemon.deliver(&response(2), &[1; 192], |_, out| out.fill(0), 512),
            Err(Full),
            "read but not committed"
        );
        app.commit();
        daemon.deliver(&response(2), &[], |_, out| out.fill(3), 64).unwrap();
        daemon.publish();
        app.pop(|delivery| assert_eq!(delivery.body, [3; 64])).unwrap().unwrap();
        app.commit();
    }
}

const LONG: Geometry = Geometry { slots: 8, tx_bytes: 4096, rx_bytes: 4096, long_bytes: 256 << 10 };

/// Bytes that are each another's neighbour's only.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + seed) as u8).collect()
}

#[test]
fn long_messages_go_beside_the_region_in_both_directions() {
    let (mut app, mut daemon) = ports(&LONG);
    for round in 0..5 {
        // Four blocks of 64 KiB, or one of all.
        for len in [513, 50_001, 65_536, 256 << 10] {
            let body = pattern(len, round);
            let span = app.alloc(len as u32).expect("everything was freed");
            assert!(app.write(span, 0, &body));
            app.push(&call(1, Span::default(), span)).unwrap();
            app.publish();
            let got = daemon.pop().unwrap().unwrap();
            let mut copy = vec![0; len];
            daemon.read(got.body, 0, &mut copy);
            assert!(copy == body, "{len} bytes up");
            app.free(span);
            daemon.commit();

            let write = |at: usize, out: &mut [u8]| out.copy_from_slice(&body[at..at + out.len()]);
            daemon.deliver(&response(1), b"flat", write, len).unwrap();
            daemon.publish();
            app.pop(|delivery| {
                assert!(delivery.flat == b"flat" && delivery.body == body, "{len} bytes down")
            })
            .unwrap()
            .unwrap();
            app.commit();
        }
    }
}

#[test]
fn when_the_room_for_long_messages_is_full_short_ones_still_pass() {
    let (mut app, mut daemon) = ports(&LONG);
    let spans: Vec<Span> = std::iter::from_fn(|| app.alloc(60_000)).collect();
    assert_eq!(spans.len(), 4);
    assert!(app.alloc(100).is_some());
    spans.into_iter().for_each(|span| app.free(span));
    assert!(app.alloc(256 << 10).is_some());

    for _ in 0..4 {
        daemon.deliver(&response(1), &[], |_, out| out.fill(1), 60_000).unwrap();
    }
    assert_eq!(daemon.deliver(&response(1), &[], |_, out| out.fill(1), 60_000), Err(Full));
    daemon.deliver(&response(2), &[], |_, out| out.fill(2), 100).unwrap();
    daemon.publish();
    assert_eq!(app.pop(|delivery| delivery.body == vec![1; 60_000]), Ok(Some(true)));
    app.commit();
    daemon.deliver(&response(3), &[], |_, out| out.fill(3), 60_000).unwrap();
    daemon.publish();
    let mut rest = Vec::new();
    while let Some(got) = app.pop(|delivery| (delivery.call, delivery.body.len())).unwrap() {
        rest.push(got);
    }
    assert_eq!(rest, [(1, 60_000), (1, 60_000), (1, 60_000), (2, 100), (3, 60_000)]);
}

#[test]
fn what_long_messages_took_is_given_back_when_they_are_gone() {
    let (mut daemon, handover) = daemon::Port::create(&LONG).unwrap();
    let memories = [handover.app_memory.try_clone().unwrap(), handover.long_memory.try_clone().unwrap()];
    let mut app = app::Port::open(handover).unwrap();
    let taken = || memories.each_ref().map(|memory| rustix::fs::fstat(memory).unwrap().st_blocks * 512);
    let before = taken();
    let span = app.alloc(100_000).unwrap();
    assert!(app.write(span, 0, &[1; 100_000]));
    daemon.deliver(&response(1), &[], |_, out| out.fill(1), 100_000).unwrap();
    daemon.publish();
    let full = taken();
    assert!(full[0] >= before[0] + 100_000 && full[1] >= before[1] + 100_000, "{before:?} {full:?}");
    for _ in 0..3 {
        app.give_back();
        daemon.give_back();
    }
    assert_eq!(taken(), full, "in use");
    assert_eq!(app.pop(|delivery| delivery.body == vec![1; 100_000]), Ok(Some(true)));
    app.commit();
    app.free(span);
    assert!(app.holds_long());
    app.give_back();
    daemon.give_back();
    app.give_back();
    daemon.give_back();
    assert!(!app.holds_long());
    let after = taken();
    assert!(after[0] < before[0] + 10_000 && after[1] == before[1], "{before:?} {after:?}");
    let span = app.alloc(100_000).unwrap();
    assert!(app.write(span, 0, &[2; 100_000]), "it can be used again");
}

#[test]
fn a_sleeper_is_rung_once_for_work_and_for_room() {
    let (mut app, mut daemon) = ports(&SMALL);
    let rings = |port: &app::Port| {
        let mut buffer = [0; 16];
        rustix::io::read(port.doorbell(), &mut buffer).unwrap_or(0)
    };
    daemon.deliver(&response(1), &[], |_, _| (), 0).unwrap();
    daemon.publish();
    assert_eq!(rings(&app), 0, "awake");
    assert!(!app.prepare_sleep(), "work is there");
    app.awake();
    app.pop(|_| ()).unwrap().unwrap();
    assert!(app.prepare_sleep());
    for _ in 0..3 {
        daemon.deliver(&response(1), &[], |_, _| (), 0).unwrap();
        daemon.publish();
    }
    assert_eq!(rings(&app), 1);
    app.awake();
    while app.pop(|_| ()).unwrap().is_some() {}
    app.commit();

    while app.push(&call(1, Span::default(), Span::default())).is_ok() {}
    app.publish();
    assert!(app.prepare_sleep());
    daemon.pop().unwrap().unwrap();
    daemon.commit();
    assert_eq!(rings(&app), 1, "room was wanted");
    app.awake();
    app.push(&call(1, Span::default(), Span::default())).unwrap();
    app.publish();
    assert!(app.prepare_sleep());
    daemon.pop().unwrap().unwrap();
    daemon.commit();
    assert_eq!(rings(&app), 0, "no room was wanted");
}

/// Two threads, tiny rings, both sides sleeping whenever they may: a lost wake-up would hang, a lost or reordered
/// descriptor fails.
#[test]
fn nothing_is_lost_between_two_sleepy_threads() {
    const CALLS: u64 = 20_000;
    let (mut app, mut daemon) = ports(&SMALL);
    let wait = |fd: rustix::fd::BorrowedFd<'_>| {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "a wake-up was lost");
    };
    let server = std::thread::spawn(move || {
        let (mut done, mut stuck) = (0, None::<(u64, [u8; 24])>);
        while done < CALLS {
            let mut moved = false;
            while stuck.is_none()
                && let Some(submission) = daemon.pop().unwrap()
            {
                let mut body = [0; 24];
                daemon.read(submission.body, 0, &mut body);
                stuck = Some((submission.call, body));
                if let Some((cookie, body)) = stuck
                    && daemon.deliver(&response(cookie), &[], |_, out| out.copy_from_slice(&body), 24).is_ok()
                {
                    (stuck, done, moved) = (None, done + 1, true);
                }
            }
            if let Some((cookie, body)) = stuck
                && daemon.deliver(&response(cookie), &[], |_, out| out.copy_from_slice(&body), 24).is_ok()
            {
                (stuck, done, moved) = (None, done + 1, true);
            }
            daemon.commit();
            daemon.publish();
            if !moved {
                if daemon.prepare_sleep() {
                    wait(daemon.doorbell());
                }
                daemon.awake();
                daemon.drain_doorbell();
            }
        }
        daemon
    });
    let (mut sent, mut received) = (0u64, 0u64);
    let mut spans = std::collections::VecDeque::new();
    while received < CALLS {
        let mut moved = false;
        while sent < CALLS
            && let Some(body) = app.alloc(24)
        {
            app.write(body, 0, &sent.to_le_bytes().repeat(3));
            if app.push(&call(sent, Span::default(), body)).is_err() {
                app.free(body);
                break;
            }
            spans.push_back(body);
            (sent, moved) = (sent + 1, true);
        }
        app.publish();
        while app
            .pop(|delivery| {
                assert_eq!(delivery.call, received);
                assert_eq!(delivery.body, received.to_le_bytes().repeat(3));
            })
            .unwrap()
            .is_some()
        {
            app.free(spans.pop_front().unwrap());
            (received, moved) = (received + 1, true);
        }
        app.commit();
        if !moved {
            if app.prepare_sleep() {
                wait(app.doorbell());
            }
            app.awake();
            app.drain_doorbell();
        }
    }
    server.join().unwrap();
}

#[test]
fn the_application_cannot_resize_or_write_what_is_not_its_own() {
    use rustix::fs::ftruncate;
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
    let (_daemon, handover) = daemon::Port::create(&SMALL).unwrap();
    for memory in [&handover.app_memory, &handover.daemon_memory, &handover.long_memory] {
        assert_eq!(ftruncate(memory, 0), Err(rustix::io::Errno::PERM));
        assert_eq!(ftruncate(memory, 1 << 20), Err(rustix::io::Errno::PERM));
    }
    assert!(rustix::io::pwrite(&handover.daemon_memory, &[1], 0).is_err(), "write() is sealed too");
    let map = |protection| {
        // SAFETY: a fresh mapping, of which nothing is touched.
        unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                MapFlags::SHARED,
                &handover.daemon_memory,
                0,
            )
        }
    };
    assert_eq!(map(ProtFlags::READ | ProtFlags::WRITE), Err(rustix::io::Errno::PERM));
    let page = map(ProtFlags::READ).unwrap();
    // SAFETY: the page mapped above.
    let upgraded = unsafe { rustix::mm::mprotect(page, 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
    assert_eq!(upgraded, Err(rustix::io::Errno::ACCESS));
}

#[test]
fn attaching_passes_the_rings_and_the_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (greeting, peer) = attach::accept(&mut stream).unwrap();
        assert_eq!(greeting.descriptor_sets[0].len(), 1 << 20);
        assert_eq!((peer.pid, peer.uid), (std::process::id(), rustix::process::getuid().as_raw()));
        let (mut port, handover) = daemon::Port::create(&Geometry::default()).unwrap();
        attach::reply(&stream, Ok(&handover)).unwrap();
        drop(handover);
        port.deliver(&response(5), &[], |_, _| (), 0).unwrap();
        port.publish();
        let (mut refused, _) = listener.accept().unwrap();
        attach::accept(&mut refused).unwrap();
        attach::reply(&refused, Err("no such service")).unwrap();
        let (mut old, _) = listener.accept().unwrap();
        let error = attach::accept(&mut old).unwrap_err();
        assert!(error.to_string().contains("version"), "{error}");
        (port, stream)
    });
    let greeting = Attach {
        version: attach::VERSION,
        name: "test".into(),
        descriptor_sets: vec![vec![7; 1 << 20]],
        serves: vec!["demo.Hash".into()],
    };
    let (_stream, handover) = attach::attach(&path, &greeting).unwrap();
    assert_eq!(handover.geometry, Geometry::default());
    let mut port = app::Port::open(handover).unwrap();
    let start = Instant::now();
    while !port.has_delivery() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(port.pop(|delivery| delivery.call).unwrap(), Some(5));
    let refused = attach::attach(&path, &greeting).unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why == "no such service"), "{refused}");
    assert!(attach::attach(&path, &Attach { version: 99, ..greeting }).is_err());
    daemon.join().unwrap();
    let nobody = attach::attach(&folder.path().join("none"), &Attach::default()).unwrap_err();
    assert!(nobody.to_string().contains("connecting"), "{nobody}");
}
