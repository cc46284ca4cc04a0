//! The record against hand-made acks and a model of a lossy path.

use super::*;
use crate::sack::{AckBody, AckHead, Arrivals};
use proptest::prelude::*;

const PATIENT: Tolerance = Tolerance { packets: 3, ns: u64::MAX / 2 };

fn sent(total: u32) -> Scoreboard {
    let mut board = Scoreboard::default();
    board.reset(total, u32::MAX, 0);
    while let Some(index) = board.due(total) {
        board.sent(index, 100 + u64::from(index), u64::from(index) * 10);
    }
    board
}

fn arrived(indices: &[u32]) -> AckBody {
    let mut arrivals = Arrivals::default();
    for &index in indices {
        arrivals.note(index, 100 + u64::from(index), false, 0);
    }
    arrivals.ack(u32::MAX, 0)
}

fn tell(board: &mut Scoreboard, indices: &[u32], now: u64, tolerance: Tolerance) -> Progress {
    let body = arrived(indices);
    board.acknowledge(&Ack::read(body.bytes()).unwrap(), now, now, tolerance)
}

#[test]
fn three_later_arrivals_tell_a_loss_and_two_do_not() {
    let mut board = sent(10);
    assert_eq!(tell(&mut board, &[0, 2, 3], 500, PATIENT).lost, 0);
    assert!(board.is_behind());
    assert_eq!(board.due(10), None);
    let progress = tell(&mut board, &[0, 2, 3, 4], 510, PATIENT);
    assert_eq!((progress.lost, progress.arrived, board.due(10)), (1, 1, Some(1)));
    assert!(board.sent(1, 110, 520));
    assert_eq!(board.due(10), None);
    assert_eq!(
        tell(&mut board, &[0, 2, 3, 4, 5, 6, 7, 8, 9], 530, PATIENT).lost,
        0,
        "1 was sent after all of them"
    );
    assert_eq!((board.outstanding(), board.is_behind()), (1, false), "sent again after all that has arrived");
    assert_eq!((board.expire(), board.due(10)), (0, None), "nothing sent after it has arrived");
    assert_eq!((board.give_up(), board.due(10)), (1, Some(1)));
}

#[test]
fn a_lost_retransmission_is_told_by_what_was_sent_after_it() {
    let mut board = Scoreboard::default();
    board.reset(20, u32::MAX, 0);
    let send = |board: &mut Scoreboard, count| {
        for _ in 0..count {
            if let Some(index) = board.due(20) {
                board.sent(index, 0, 0);
            }
        }
    };
    send(&mut board, 5);
    tell(&mut board, &[1, 2, 3], 1, PATIENT);
    send(&mut board, 5); // 0 again, then 5 to 8
    assert_eq!(tell(&mut board, &[1, 2, 3, 4, 5, 6], 2, PATIENT).lost, 0);
    assert_eq!(tell(&mut board, &[1, 2, 3, 4, 5, 6, 7], 3, PATIENT).lost, 1);
    assert_eq!(board.due(20), Some(0));
}

#[test]
fn time_tells_a_loss_too() {
    let mut board = sent(10);
    let hasty = Tolerance { packets: 100, ns: 25 };
    assert_eq!(tell(&mut board, &[1, 2], 500, hasty).lost, 0);
    assert_eq!(tell(&mut board, &[1, 2, 3], 500, hasty).lost, 1, "sent 30 ns after the missing one");
    assert_eq!(tell(&mut board, &[0, 1, 2, 3], 510, hasty).late, 1, "it had only been late");
    assert_eq!((board.due(10), board.outstanding()), (None, 6));
}

#[test]
fn the_echo_measures_the_round_trip_without_the_receivers_time() {
    let mut board = sent(10);
    let ack = |base, echo_index, echo_sequence, hold_ns| {
        AckBody::from(AckHead { base, limit: 10, echo_index, echo_sequence, hold_ns, marked: 0 })
    };
    let mut take = |body: AckBody, now| {
        board.acknowledge(&Ack::read(body.bytes()).unwrap(), now, now, PATIENT).round_trip
    };
    assert_eq!(take(ack(2, 1, 101, 100), 400), Some(400 - 10 - 100));
    assert_eq!(take(ack(3, 2, 999, 100), 400), None, "of another transmission");
    assert_eq!(take(ack(4, 3, 103, 1000), 400), None, "held for longer than it was away");
    assert_eq!(take(ack(4, 3, 103, 0), 400), None, "said before");
}

#[test]
fn what_was_turned_back_is_sent_from_the_beginning() {
    let mut board = sent(10);
    tell(&mut board, &[0, 1], 5, PATIENT);
    assert_eq!((board.turn_back(7), board.due(10), board.outstanding()), (8, None, 0));
    assert_eq!(tell(&mut board, &[0, 1, 2], 6, PATIENT), Progress::default(), "of what was sent before");
    assert!(board.sent(0, 200, 10));
    let room = AckBody::from(AckHead { base: 1, limit: 10, ..AckHead::default() });
    assert!(board.acknowledge(&Ack::read(room.bytes()).unwrap(), 9, 20, PATIENT).news);
    assert_eq!(board.due(10), Some(1));
    assert_eq!((board.turn_back(8), board.due(10)), (0, Some(1)), "overtaken");
}

#[test]
fn no_more_is_under_way_than_the_method_lets() {
    let mut board = Scoreboard::default();
    board.reset(100, 64, 3);
    for index in 0..3 {
        board.sent(index, 1, 1);
    }
    assert_eq!(board.due(100), None);
    tell(&mut board, &[0], 5, PATIENT);
    assert_eq!(board.due(100), Some(3));
}

#[test]
fn a_receiver_without_room_stops_the_sender() {
    let mut board = Scoreboard::default();
    board.reset(100, 4, 0);
    for index in 0..4 {
        assert_eq!(board.due(100), Some(index));
        board.sent(index, 1, 1);
    }
    assert_eq!(board.due(100), None);
    let more = AckBody::from(AckHead { base: 4, limit: 6, ..AckHead::default() });
    assert!(board.acknowledge(&Ack::read(more.bytes()).unwrap(), 5, 5, PATIENT).news);
    assert_eq!(board.due(100), Some(4));
    let older = AckBody::from(AckHead { base: 4, limit: 4, ..AckHead::default() });
    board.acknowledge(&Ack::read(older.bytes()).unwrap(), 4, 5, PATIENT);
    assert_eq!(board.due(100), Some(4), "an ack that was overtaken changes nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_lost_everything_arrives_and_counts_agree(total in 1..4000u32, seed in any::<u64>()) {
        let mut board = Scoreboard::default();
        board.reset(total, 16, 0);
        let mut arrivals = Arrivals::default();
        let (mut sequence, mut in_network) = (0, 0);
        let mut random = seed;
        let mut choice = |of: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % of
        };
        let tolerance = Tolerance { packets: 3, ns: 1000 };
        for round in 0..100_000u64 {
            if board.base() == total { break }
            let burst = 1 + choice(800);
            for _ in 0..burst {
                let Some(index) = board.due(total) else { break };
                sequence += 1;
                prop_assert!(index < total);
                in_network += u32::from(board.sent(index, sequence, round * 100));
                if choice(3) != 0 {
                    prop_assert_ne!(arrivals.judge(index), crate::sack::Arrival::TooFar);
                    arrivals.note(index, sequence, false, round * 100);
                }
            }
            if choice(4) != 0 {
                let body = arrivals.ack(total, round * 100 + 50);
                let progress = board.acknowledge(&Ack::read(body.bytes()).unwrap(), round + 1, round * 100 + 60, tolerance);
                in_network -= progress.landed + progress.lost;
            } else if choice(2) == 0 {
                in_network -= board.expire();
            } else {
                in_network -= board.give_up();
            }
            prop_assert_eq!(in_network, board.outstanding());
        }
        prop_assert_eq!(board.base(), total);
        prop_assert_eq!(arrivals.base(), total);
    }

    #[test]
    fn no_ack_whatever_it_says_confuses_it(total in 1..3000u32, acks in proptest::collection::vec((any::<[u32; 6]>(), any::<[u64; 6]>(), 0..7usize, any::<bool>()), 0..60)) {
        let mut board = Scoreboard::default();
        board.reset(total, 64, 0);
        for (number, (head, words, count, near)) in acks.into_iter().enumerate() {
            for _ in 0..40 {
                let Some(index) = board.due(total) else { break };
                prop_assert!(index < total);
                board.sent(index, number as u64, number as u64);
            }
            let [base, limit, echo_index, echo_sequence, hold_ns, marked] = head;
            let base = if near { base % (board.next() + 2) } else { base };
            let mut bytes = zerocopy::IntoBytes::as_bytes(&AckHead { base, limit, echo_index, echo_sequence, hold_ns, marked }).to_vec();
            bytes.extend(words[..count.min(6)].iter().flat_map(|word| word.to_le_bytes()));
            board.acknowledge(&Ack::read(&bytes).unwrap(), number as u64, number as u64, Tolerance { packets: 3, ns: 5 });
            prop_assert!(board.base() <= board.next() && board.next() <= total && board.next() - board.base() <= SPAN);
            prop_assert!(board.outstanding() <= board.next() - board.base());
        }
    }
}
