//! Every pair of NATs: direct where it can be, and the reason where it cannot.

use std::time::Duration;

use receptor_quic::punch::{CandidateKind, Event, NatClass, Outcome, Why};

use crate::nat::{Behaviour, Filtering, Mapping};
use crate::world::{INTERNET, World};

const KINDS: [Option<(Mapping, Filtering)>; 7] = [
    None,
    Some((Mapping::Independent, Filtering::None)),
    Some((Mapping::Independent, Filtering::Address)),
    Some((Mapping::Independent, Filtering::Port)),
    Some((Mapping::Dependent, Filtering::None)),
    Some((Mapping::Dependent, Filtering::Address)),
    Some((Mapping::Dependent, Filtering::Port)),
];
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn behaviour(mapping: Mapping, filtering: Filtering) -> Behaviour {
    Behaviour { mapping, filtering, hairpin: false, remembers: false }
}

/// An end of that kind in a network of its own.
fn place(world: &mut World, kind: Option<(Mapping, Filtering)>, n: usize) -> usize {
    let name = ["alice", "bob"][n];
    let end = world.end(name);
    match kind {
        None => world.interface(end, INTERNET, &format!("198.51.100.{}", n + 1)),
        Some((mapping, filtering)) => {
            let outside = format!("192.0.2.{}", n + 1);
            let realm = world.behind(INTERNET, &outside, behaviour(mapping, filtering));
            world.interface(end, realm, &format!("10.0.{n}.2"));
        }
    }
    world.observe(end);
    end
}

/// Why the pair stays relayed; none: it does not.
fn obstacle(a: Option<(Mapping, Filtering)>, b: Option<(Mapping, Filtering)>) -> Option<Outcome> {
    let dependent =
        |kind: Option<(Mapping, Filtering)>| matches!(kind, Some((Mapping::Dependent, _)));
    let by_port = |kind: Option<(Mapping, Filtering)>| matches!(kind, Some((_, Filtering::Port)));
    match (dependent(a), dependent(b)) {
        (true, true) => Some(Outcome::BothEndpointDependent),
        (true, false) if by_port(b) => Some(Outcome::PortGuessingNeeded),
        (false, true) if by_port(a) => Some(Outcome::PortGuessingNeeded),
        _ => None,
    }
}

fn pair(seed: u64, kinds: [Option<(Mapping, Filtering)>; 2], loss: f64) {
    let mut world = World::new(seed);
    (world.loss, world.duplication, world.jitter) = (loss, 0.05, 20);
    let a = place(&mut world, kinds[0], 0);
    let b = place(&mut world, kinds[1], 1);
    world.run(SECONDS(1));
    world.connect(a, b);
    // The end that speaks first is the server, half of the time.
    if seed.is_multiple_of(2) {
        world.talk(a, b)
    } else {
        world.talk(b, a)
    }
    let what = format!("seed {seed}, {:?} and {:?}", kinds[0], kinds[1]);
    match obstacle(kinds[0], kinds[1]) {
        None => {
            let direct = world.run_for(SECONDS(3), |world| world.both_direct(a, b));
            assert!(direct, "{what}: {:#?} {:#?}", world.explain(a, b), world.explain(b, a));
            for (end, path) in [(a, world.path(a, b)), (b, world.path(b, a))] {
                assert_eq!(world.trace(end, path.unwrap().to), Some(a + b - end), "{what}");
            }
        }
        Some(outcome) => {
            world.run(SECONDS(12));
            for (end, other) in [(a, b), (b, a)] {
                assert_eq!(world.explain(end, other).why, Why::Failed(outcome), "{what}");
                assert_eq!(world.path(end, other), None, "{what}");
            }
        }
    }
    for end in [a, b] {
        assert!(world.most_probes_a_second(end) <= 220, "{what}");
    }
}

/// `RECEPTOR_SEEDS=10000` plays more of them.
fn seeds(usual: u64) -> u64 {
    std::env::var("RECEPTOR_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

#[test]
fn every_pair_is_direct_within_three_seconds_where_the_nats_allow_it_and_says_why_where_not() {
    for seed in 0..seeds(100) {
        for a in KINDS {
            for b in KINDS {
                pair(seed, [a, b], 0.0);
            }
        }
    }
}

#[test]
fn ten_percent_of_loss_on_both_access_links_changes_nothing() {
    for seed in 1_000_000..1_000_000 + seeds(200) {
        for a in KINDS {
            for b in KINDS {
                pair(seed, [a, b], 0.1);
            }
        }
    }
}

#[test]
fn classes_are_told_to_the_peer() {
    let mut world = World::new(1);
    let a = place(&mut world, None, 0);
    let b = place(&mut world, KINDS[6], 1);
    world.run(SECONDS(1));
    world.connect(a, b);
    world.talk(a, b);
    assert!(world.run_for(SECONDS(3), |world| world.both_direct(a, b)));
    let explanation = world.explain(a, b);
    assert_eq!(
        (explanation.mine, explanation.theirs),
        (NatClass::Public, NatClass::EndpointDependent)
    );
    assert_eq!(explanation.why, Why::Direct);
    assert_eq!(explanation.path.unwrap().kind, CandidateKind::PeerReflexive);
    let outcomes: Vec<_> = world.ends[a]
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Round { .. }))
        .collect();
    assert_eq!(outcomes.len(), 1);
}

#[test]
fn two_nats_in_a_row_on_both_sides_are_passed() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.loss = 0.1;
        let home = behaviour(Mapping::Independent, Filtering::Port);
        let ends = [0, 1].map(|n| {
            let carrier = world.behind(INTERNET, &format!("192.0.2.{}", n + 1), home);
            let realm = world.behind(carrier, "100.64.0.9", home);
            let end = world.end(["alice", "bob"][n]);
            world.interface(end, realm, "192.168.1.2");
            world.observe(end);
            end
        });
        world.connect(ends[0], ends[1]);
        world.talk(ends[0], ends[1]);
        assert!(
            world.run_for(SECONDS(3), |world| world.both_direct(ends[0], ends[1])),
            "seed {seed}"
        );
    }
}

#[test]
fn behind_one_nat_without_hairpin_the_local_network_is_used() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let realm =
            world.behind(INTERNET, "192.0.2.1", behaviour(Mapping::Dependent, Filtering::Port));
        let ends = [0, 1].map(|n| {
            let end = world.end(["alice", "bob"][n]);
            world.interface(end, realm, &format!("192.168.1.{}", n + 2));
            world.observe(end);
            end
        });
        world.connect(ends[0], ends[1]);
        world.talk(ends[0], ends[1]);
        assert!(
            world.run_for(SECONDS(1), |world| world.both_direct(ends[0], ends[1])),
            "seed {seed}"
        );
        assert_eq!(world.path(ends[0], ends[1]).unwrap().to, "192.168.1.3:7000".parse().unwrap());
    }
}

#[test]
fn behind_one_carrier_nat_it_depends_on_the_hairpin() {
    for hairpin in [false, true] {
        let mut world = World::new(7);
        let home = behaviour(Mapping::Independent, Filtering::Port);
        let carrier = world.behind(INTERNET, "192.0.2.1", Behaviour { hairpin, ..home });
        let ends = [0, 1].map(|n| {
            let realm = world.behind(carrier, &format!("100.64.0.{}", n + 1), home);
            let end = world.end(["alice", "bob"][n]);
            world.interface(end, realm, &format!("192.168.{n}.2"));
            world.observe(end);
            end
        });
        world.connect(ends[0], ends[1]);
        world.talk(ends[0], ends[1]);
        let direct = world.run_for(SECONDS(10), |world| world.both_direct(ends[0], ends[1]));
        assert_eq!(direct, hairpin);
        if !hairpin {
            assert_eq!(world.explain(ends[0], ends[1]).why, Why::Failed(Outcome::NoAnswer));
        }
    }
}

#[test]
fn ipv6_behind_firewalls_helps_where_the_nats_do_not() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.loss = 0.1;
        let ends = [0, 1].map(|n| {
            let end = place(&mut world, KINDS[6], n);
            world.interface(end, INTERNET, &format!("2001:db8:{n}::2"));
            world.firewall(end);
            end
        });
        world.connect(ends[0], ends[1]);
        world.talk(ends[0], ends[1]);
        assert!(
            world.run_for(SECONDS(3), |world| world.both_direct(ends[0], ends[1])),
            "seed {seed}"
        );
        assert!(world.path(ends[0], ends[1]).unwrap().to.is_ipv6());
    }
}

#[test]
fn a_public_node_behind_a_firewall_is_punched_like_any_other() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.loss = 0.1;
        let a = place(&mut world, None, 0);
        world.firewall(a);
        let b = place(&mut world, KINDS[3], 1);
        world.run(SECONDS(1));
        world.connect(a, b);
        world.talk(b, a);
        assert!(world.run_for(SECONDS(3), |world| world.both_direct(a, b)), "seed {seed}");
    }
}

#[test]
fn a_public_node_that_is_reached_does_not_probe_the_peers_other_addresses() {
    let mut world = World::new(3);
    let a = place(&mut world, None, 0);
    let b = place(&mut world, KINDS[3], 1);
    world.run(SECONDS(1));
    world.connect(b, a);
    world.talk(b, a);
    world.run(SECONDS(10));
    assert!(world.both_direct(a, b));
    let private = world
        .sent
        .iter()
        .filter(|sent| sent.by == a && sent.probe.to.ip().to_string().starts_with("10."));
    assert_eq!(private.count(), 0);
}

#[test]
fn where_udp_is_blocked_nothing_is_answered_and_the_waits_double() {
    let mut world = World::new(5);
    let a = place(&mut world, KINDS[3], 0);
    let b = place(&mut world, KINDS[3], 1);
    world.cut = true;
    world.connect(a, b);
    world.talk(a, b);
    world.run(SECONDS(600));
    let explanation = world.explain(a, b);
    assert_eq!(explanation.why, Why::Failed(Outcome::NoAnswer));
    let times: Vec<_> = explanation.attempts.iter().rev().map(|attempt| attempt.at).collect();
    let waits: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!((4..=8).contains(&waits.len()), "{waits:?}");
    assert!(
        waits[0] >= 13 && waits[0] <= 24 && waits.windows(2).all(|pair| pair[1] > pair[0]),
        "{waits:?}"
    );
    assert!(explanation.next_round.is_some());
}

#[test]
fn a_peer_that_does_not_answer_is_called_silent() {
    for silent in [0, 1] {
        let mut world = World::new(5);
        let a = place(&mut world, KINDS[1], 0);
        let b = place(&mut world, KINDS[1], 1);
        world.connect(a, b);
        let (deaf, other) = if silent == 0 { (a, b) } else { (b, a) };
        world.ends[deaf].deaf = true;
        world.talk(other, deaf);
        world.run(SECONDS(7));
        assert_eq!(world.explain(other, deaf).why, Why::Failed(Outcome::PeerSilent));
    }
}

#[test]
fn an_offer_an_answer_or_a_request_that_is_lost_is_repeated_and_the_pair_is_direct_in_the_same_attempt()
 {
    for (caller_offers, messages) in [(true, 2), (false, 3)] {
        for lost in 0..messages {
            let mut world = World::new(5);
            let a = place(&mut world, KINDS[2], 0);
            let b = place(&mut world, KINDS[2], 1);
            world.lost = vec![lost];
            world.connect(a, b);
            let (caller, callee) = if caller_offers { (a, b) } else { (b, a) };
            world.talk(caller, callee);
            let direct = world.run_for(SECONDS(4), |world| world.both_direct(a, b));
            assert!(
                direct,
                "offers: {caller_offers}, message {lost} is lost: {:?}",
                world.explain(caller, callee)
            );
            for (near, far) in [(a, b), (b, a)] {
                let attempts = world.explain(near, far).attempts;
                assert_eq!(attempts.len(), 1, "{attempts:?}");
            }
        }
    }
}

#[test]
fn nothing_is_tried_before_packets_flow() {
    let mut world = World::new(5);
    let a = place(&mut world, KINDS[1], 0);
    let b = place(&mut world, KINDS[1], 1);
    world.connect(a, b);
    world.run(SECONDS(100));
    assert!(world.sent.is_empty() && world.told.is_empty());
    assert_eq!(world.explain(a, b).why, Why::Idle);
}

#[test]
fn a_node_without_an_address_of_the_peers_ip_version_says_that_there_was_nothing_to_probe() {
    let mut world = World::new(5);
    let a = place(&mut world, None, 0);
    let b = world.end("bob");
    world.interface(b, INTERNET, "2001:db8::2");
    world.connect(a, b);
    world.talk(a, b);
    world.run(SECONDS(10));
    assert_eq!(world.explain(a, b).why, Why::Failed(Outcome::NoCandidates));
}

#[test]
fn twenty_nodes_that_all_talk_to_each_other_settle() {
    let mut world = World::new(9);
    let ends: Vec<_> = (0..20)
        .map(|n| {
            let (mapping, filtering) = KINDS[1 + n % 3].unwrap();
            let realm = world.behind(
                INTERNET,
                &format!("192.0.2.{}", n + 1),
                behaviour(mapping, filtering),
            );
            let end = world.end(&format!("node-{n}"));
            world.interface(end, realm, &format!("10.0.{n}.2"));
            world.observe(end);
            end
        })
        .collect();
    for a in 0..20 {
        for b in a + 1..20 {
            world.connect(ends[a], ends[b]);
            world.talk(ends[a], ends[b]);
            world.talk(ends[b], ends[a]);
        }
    }
    let all = |world: &World| (0..20).all(|a| (a + 1..20).all(|b| world.both_direct(a, b)));
    assert!(world.run_for(SECONDS(6), all));
    world.run(SECONDS(20));
    world.sent.clear();
    world.run(SECONDS(10));
    let probes = world.sent.iter().filter(|sent| crate::world::is_probe(&sent.probe)).count();
    assert!(probes <= 20 * 19 * 11, "{probes} probes in ten seconds");
    assert!(all(&world));
}

/// A NAT that does not filter its own input, as plain Linux masquerade.
const BARE: Behaviour = Behaviour {
    mapping: Mapping::Independent,
    filtering: Filtering::Port,
    hairpin: false,
    remembers: true,
};

/// Two ends behind NATs of these behaviours.
fn behind(world: &mut World, behaviours: [Behaviour; 2]) -> [usize; 2] {
    [0, 1].map(|n| {
        let end = world.end(["alice", "bob"][n]);
        let realm = world.behind(INTERNET, &format!("192.0.2.{}", n + 1), behaviours[n]);
        world.interface(end, realm, &format!("10.0.{n}.2"));
        world.observe(end);
        end
    })
}

#[test]
fn nats_that_do_not_filter_their_own_input_are_passed() {
    for seed in 0..seeds(100) {
        for other in
            KINDS.into_iter().flatten().map(|(mapping, filtering)| behaviour(mapping, filtering))
        {
            for behaviours in [[BARE, BARE], [BARE, other], [other, BARE]] {
                let mut world = World::new(seed);
                let [a, b] = behind(&mut world, behaviours);
                world.run(SECONDS(1));
                world.connect(a, b);
                world.talk(a, b);
                let guess = other.mapping == Mapping::Dependent && behaviours != [BARE, BARE];
                let direct = world.run_for(SECONDS(3), |world| world.both_direct(a, b));
                let what = format!("seed {seed}, {behaviours:?}: {:#?}", world.explain(a, b));
                assert!(direct || guess, "{what}");
            }
        }
    }
}

#[test]
fn a_flow_that_a_nat_remembers_is_avoided_by_fresh_ports() {
    for seed in 0..seeds(100) {
        for loss in [0.0, 0.1] {
            let mut world = World::new(seed);
            (world.loss, world.jitter) = (loss, 3);
            let [a, b] = behind(&mut world, [BARE, BARE]);
            world.run(SECONDS(1));
            // A stray datagram arrives at the other's NAT first.
            let usual = std::mem::take(&mut world.loss);
            world.send_datagram(a, None, "192.0.2.2:7000".parse().unwrap(), vec![0; 8]);
            world.loss = usual;
            world.run(SECONDS(1));
            world.connect(a, b);
            world.talk(a, b);
            let direct = world.run_for(SECONDS(5), |world| world.both_direct(a, b));
            assert!(direct, "seed {seed}, loss {loss}: {:#?}", world.explain(a, b));
            for (end, path) in [(a, world.path(a, b)), (b, world.path(b, a))] {
                assert!(
                    path.is_some_and(|path| path.local_port.is_some()),
                    "seed {seed}: {path:?}"
                );
                assert!(
                    world.ends[end].ports.len() <= 16,
                    "seed {seed}: {:?}",
                    world.ends[end].ports
                );
            }
            world.run(SECONDS(60));
            assert!(world.both_direct(a, b), "seed {seed}");
            assert!(
                world.ends[a].ports.len() <= 4 && world.ends[b].ports.len() <= 4,
                "seed {seed}"
            );
            let [of_a, of_b] = [&a, &b].map(|end| world.ends[*end].id.clone());
            world.ends[a].punch.disconnected(&of_b, world.now);
            world.ends[b].punch.disconnected(&of_a, world.now);
            world.run(SECONDS(1));
            assert!(
                world.ends[a].ports.is_empty() && world.ends[b].ports.is_empty(),
                "seed {seed}"
            );
        }
    }
}
