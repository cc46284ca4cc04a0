//! Any bytes, as a frame off the wire and as a UDP payload: never a panic, never a byte invented, and the driver's decoder
//! and the engine's agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollfree_wire::flat::FlatView;
use tollfree_wire::header::{HEADER_LEN, Packet};
use tollfree_wire::session::{Guard, Role};
use tollfree_wire::{Cursor, Frame, Kind, Replay};
use zerocopy::FromBytes;

const PORT: u16 = 7400;

fuzz_target!(|bytes: &[u8]| {
    packet(bytes);
    frame(bytes);
});

fn packet(payload: &[u8]) {
    let Ok(packet) = Packet::decode(payload) else { return };
    assert_eq!(HEADER_LEN + packet.flat_padded.len() + packet.body.len(), payload.len());
    assert!(packet.flat.len() <= packet.flat_padded.len());
    let view = FlatView(packet.flat);
    for offset in 0..packet.flat.len() + 9 {
        assert_eq!(view.u64(offset).is_some(), offset + 8 <= packet.flat.len());
        if let Some(value) = view.bytes(offset, 15) {
            assert!(value.len() <= 15);
        }
    }
}

fn frame(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let Ok(frame) = Frame::decode(&mut cursor, PORT.into()) else {
        return;
    };
    // Whatever XDP lets through, the engine must be able to read the same way, up to the end that UDP's length gives.
    let udp_len =
        u16::read_from_bytes(&bytes[frame.header_offset - 4..frame.header_offset - 2]).map(u16::from_be);
    let payload_len = usize::from(udp_len.expect("two bytes")) - 8;
    let payload = &bytes[frame.header_offset..frame.header_offset + payload_len];
    let packet = Packet::decode(payload).expect("XDP has accepted it");
    assert_eq!((packet.header, packet.kind), (frame.header, frame.kind));

    // A session whose index and peer happen to match must still want the tag.
    let guard = Guard {
        index: frame.header.session,
        peer_index: 1,
        peer: frame.source,
        peer_port: frame.source_port,
        role: Role::Server as u8,
        reserved: 0,
        identity: 0,
        key: [1, 2],
        replay: Replay::NONE,
    };
    let verdict = guard.check(&frame.header, frame.kind, frame.source, frame.source_port, cursor);
    let mut engine = guard;
    let again = guard.check(
        &packet.header,
        packet.kind,
        frame.source,
        frame.source_port,
        Cursor::new(packet.flat_padded),
    );
    assert_eq!(verdict, again);
    if verdict.is_ok() && engine.accept(frame.kind, frame.header.sequence).is_ok() {
        assert!(engine.accept(frame.kind, frame.header.sequence).is_err() || frame.kind == Kind::Reject);
    }
}
