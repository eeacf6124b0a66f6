//! What the menu found, in the smallest form.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{Buckets, Digest, Message, NeighbourKind, Router, SessionUp};

use crate::probe::{Probe, draft, entry, record};
use crate::sim::id;

/// Forgotten at each node before it came again, such a record went round in a full mesh for ever
/// (seed 47, with latencies of up to 400 ms and tombstones of 50 ms).
#[test]
fn that_a_node_leaves_which_is_not_known_is_neither_kept_nor_repeated() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("other");
    let mut withdrawal = draft("ghost", (5, 7), vec![]);
    withdrawal.leaving = true;
    let withdrawal = withdrawal.seal().unwrap();
    probe.update("n", &withdrawal);
    assert!(probe.held("ghost").is_none());
    // Neither does the announcement of one lead to more than one request.
    probe.tell("n", Message::Have(vec![entry(&withdrawal)])).unwrap();
    probe.wait(150);
    assert!(probe.sent_to("n").contains(&Message::Want(vec![withdrawal.origin.clone()])));
    probe.update("n", &withdrawal);
    probe.wait(500);
    assert_eq!((probe.sent_to("n"), probe.sent_to("other")), (vec![], vec![]));
    assert_eq!(probe.router.sizes().pulls, 0);
}

/// The trees of origins that were gone stayed until the next flood (seed 11198).
#[test]
fn with_the_records_of_nodes_that_are_gone_their_trees_are_forgotten() {
    let mut probe = Probe::new();
    probe.sync("n");
    for sequence in [1, 2] {
        for origin in ["x", "y", "z"] {
            probe.update("n", &record(origin, (5, sequence), &[("n", 1)]));
        }
    }
    assert_eq!(probe.router.sizes().trees, 3);
    probe.wait(1_000_000);
    let sizes = probe.router.sizes();
    assert_eq!((sizes.records, sizes.trees), (1, 0));
}

/// Requests went before all else, and were repeated every second: a stream that takes one message
/// in more than a second never carried anything else (seed 31221).
#[test]
fn requests_that_fill_a_slow_stream_leave_room_for_the_records() {
    let mut probe = Probe::tuned(|config| config.limits.window_messages = 1);
    probe.sync("n");
    probe.sync("other");
    let Probe { mut router, mut now, .. } = probe;
    let mut sent = Vec::new();
    for round in 1..10 {
        let news = record("news", (5, round), &[("other", 1)]);
        let news = Message::Update(news.advertisement().clone());
        router.handle_message(&id("other"), news, now).unwrap();
        let awaited = record(&format!("awaited{round}"), (5, 1), &[]);
        router.handle_message(&id("n"), Message::Have(vec![entry(&awaited)]), now).unwrap();
        // The stream takes one message in a second and a half.
        for _ in 0..3 {
            now += Duration::from_millis(500);
            router.handle_timeout(now);
            router.handle_writable(&id("other"), now);
            sent.extend(std::iter::from_fn(|| router.poll_transmit()));
        }
        router.handle_writable(&id("n"), now);
    }
    let mut to_n =
        sent.iter().filter(|transmit| transmit.to == id("n")).map(|transmit| &transmit.message);
    assert!(to_n.clone().any(|message| matches!(message, Message::Want(_))), "{sent:?}");
    let tells = |message: &Message| !matches!(message, Message::Want(_) | Message::Digest { .. });
    assert!(to_n.any(tells), "{sent:?}");
}

/// Asked in buckets while the list of all that it holds waited for the stream, a node listed those
/// buckets only, and the sync never ended: the other end has nothing to answer then (seed 171).
#[test]
fn a_list_of_all_that_waits_for_the_stream_is_not_cut_down_to_some_buckets() {
    let mut probe = Probe::new();
    probe.sync("other");
    probe.update("other", &record("other", (5, 1), &[("me", 1)]));
    let Probe { mut router, now, .. } = probe;
    let kind = NeighbourKind::Full;
    let up = SessionUp { neighbour: id("n"), instance: 1, cost: Cost::DEFAULT, kind };
    router.handle_session_up(up, now).unwrap();
    let to_n = |router: &mut Router| {
        let sent = std::iter::from_fn(|| router.poll_transmit());
        sent.filter(|transmit| transmit.to == id("n"))
            .map(|transmit| transmit.message)
            .collect::<Vec<_>>()
    };
    assert!(matches!(to_n(&mut router)[..], [Message::Digest { .. }]));
    router.handle_message(&id("n"), Message::Digest { digest: Digest(1), count: 1 }, now).unwrap();
    let buckets = Buckets::of(&[record("n", (5, 1), &[])], 3);
    router.handle_message(&id("n"), Message::Buckets(buckets), now).unwrap();
    router.handle_writable(&id("n"), now);
    assert!(matches!(to_n(&mut router)[..], [Message::Summary { last: true, buckets: None, .. }]));
}
