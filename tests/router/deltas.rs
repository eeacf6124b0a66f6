//! Changes in the place of large records: what they save, and that nothing depends on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::router::{
    Advertisement, Config, DecodeError, Delta, Draft, FloodMode, LinkClass, Message, NeighbourKind,
    PeerError, Record,
};

use crate::flood::{start, update};
use crate::fuzz::PrintSeed;
use crate::probe::{Probe, draft, entry, link};
use crate::reference::assert_converged;
use crate::rng::Rng;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

/// A thousand take minutes in a build that is not optimised: there are fewer leaves there, which
/// each are sent as much.
const LEAVES: usize = if cfg!(debug_assertions) { 150 } else { 1_000 };

/// The target is 200 B a node for a hub of a thousand; what comparing digests takes afterwards is
/// in it.
#[test]
fn a_node_that_joins_a_large_hub_costs_each_node_at_most_200_bytes() {
    let mut sim = hub(LEAVES, FloodMode::Tree);
    let (nodes, before) = (sim.nodes.len() as u64, sim.sent);
    let received = sim.received.clone();
    sim.boot("newcomer", 0);
    sim.connect("n00", "newcomer");
    sim.run_for(Duration::from_secs(10));
    let report = per_node(&sim, &received, &["n00", "newcomer"]);
    println!("a router joins: {report:?}");
    assert!(report.most <= 200, "{report:?}");
    assert!(report.mean <= report.most as f64 && report.of_the_whole_mesh > report.mean);
    assert_eq!(sim.sent.deltas - before.deltas, nodes, "the hub's change, to all others");
    // The hub's record and the newcomer's go to all but their origins, after a sync of all records.
    assert_eq!(sim.sent.payloads - before.payloads, 3 * nodes);
    assert_hub_known(&sim, LEAVES + 1);
}

#[test]
fn a_stub_that_joins_a_large_hub_costs_each_node_at_most_200_bytes() {
    let mut sim = hub(LEAVES, FloodMode::Full);
    let (nodes, before) = (sim.nodes.len() as u64, sim.sent);
    let received = sim.received.clone();
    sim.attach(&id("n00"), id("laptop"), Cost::DEFAULT);
    sim.run_for(Duration::from_secs(10));
    let report = per_node(&sim, &received, &["n00"]);
    println!("a stub joins: {report:?}");
    assert!(report.most <= 200, "{report:?}");
    let sent = (sim.sent.payloads - before.payloads, sim.sent.deltas - before.deltas);
    assert_eq!(sent, (nodes - 1, nodes - 1));
    assert_hub_known(&sim, LEAVES + 1);
}

#[test]
fn a_signed_change_of_a_large_hub_takes_at_most_280_bytes() {
    // A credential's name, and the longest signature by ECDSA P-256.
    let signed = |record: Record| record.with_proof(vec![7; 16 + 72].into());
    let before = hub_record(1, 1_000);
    let plain = change(&before, &hub_record(2, 1_001)).encode().len();
    let len = change(&signed(before), &signed(hub_record(2, 1_001))).encode().len();
    println!("{plain} bytes, {len} signed");
    assert!(len <= 280, "{len}");
}

#[test]
fn a_change_of_a_large_record_takes_one_payload_per_node_as_any_update_does() {
    let mut edges = topologies::star(160);
    edges.extend([
        ("n01".into(), "n02".into()),
        ("n02".into(), "n03".into()),
        ("n40".into(), "n50".into()),
    ]);
    let mut sim = Sim::flooding(1, FloodMode::Tree);
    sim.latency = (1, 10);
    start(&mut sim, &edges);
    for round in 0..5 {
        let before = sim.sent.deltas;
        let sent = update(&mut sim, &id("n00"));
        assert_eq!((sent.payloads, sent.wants), (159, 0), "round {round}");
        assert_eq!(sim.sent.deltas - before, 159, "round {round}");
    }
}

#[test]
fn what_travels_as_a_change_gives_the_bytes_of_the_record() {
    let mut rng = Rng::new(5);
    for round in 0..2_000 {
        let (base, result) = (random(&mut rng, 1), random(&mut rng, 2));
        let delta = Delta::between(&base, &result, usize::MAX).expect("of one process");
        assert_eq!(delta.apply(&base).as_ref(), Some(result.advertisement()), "round {round}");
        let frame = Message::Delta(Arc::new(delta.clone())).encode();
        assert_eq!(Message::decode(&frame), Ok(Some(Message::Delta(Arc::new(delta.clone())))));
        assert_eq!((delta.base(), delta.stamp()), (base.stamp(), result.stamp()));
        assert_eq!(delta.apply(&result), None);
    }
}

#[test]
fn a_change_is_taken_by_a_node_that_holds_the_version_before() {
    let mut probe = probe(&["n", "m"]);
    let (one, two) = (hub_record(1, 60), hub_record(2, 61));
    probe.update("n", &one);
    assert_eq!(probe.sent_to("m"), [Message::Update(one.advertisement().clone())]);
    let delta = change(&one, &two);
    probe.tell("n", delta.clone()).unwrap();
    assert_eq!(probe.held("hub"), Some(&two));
    assert_eq!(probe.sent_to("m"), std::slice::from_ref(&delta), "repeated as what it came as");
    assert_eq!(probe.sent_to("n"), []);
    // A second copy, and one from where it was sent to.
    probe.tell("n", delta.clone()).unwrap();
    probe.tell("m", delta).unwrap();
    let counters = probe.router.counters();
    assert_eq!(
        (counters.deltas_applied, counters.deltas_failed, counters.updates_duplicate),
        (1, 0, 2)
    );
    assert_eq!((counters.updates_accepted, counters.deltas_sent), (2, 1));
    assert_eq!(probe.sent, []);
}

#[test]
fn a_change_from_a_version_that_is_not_held_makes_the_node_ask_for_the_whole_once() {
    let mut probe = probe(&["n", "m"]);
    let records: Vec<Record> = (1..=4).map(|n| hub_record(n, 59 + n)).collect();
    probe.update("n", &records[0]);
    probe.sent.clear();
    probe.tell("n", change(&records[1], &records[2])).unwrap();
    assert_eq!(probe.sent_to("n"), [Message::Want(vec![id("hub")])]);
    // Until it has come, further ones are not tried.
    probe.tell("n", change(&records[2], &records[3])).unwrap();
    assert_eq!(probe.sent, []);
    let counters = probe.router.counters();
    assert_eq!((counters.deltas_applied, counters.deltas_failed, counters.pulls), (0, 2, 1));
    probe.update("n", &records[3]);
    assert_eq!(probe.held("hub"), Some(&records[3]));
    assert_eq!(
        probe.sent_to("m"),
        [change(&records[0], &records[3])],
        "what m was sent before is known"
    );
    probe.wait(5_000);
    assert!(
        !probe.sent.iter().any(|sent| matches!(sent.message, Message::Want(_))),
        "{:?}",
        probe.sent
    );
}

#[test]
fn a_change_of_an_unknown_origin_makes_the_node_ask_and_a_refusal_ends_it() {
    let mut probe = probe(&["n"]);
    probe.tell("n", change(&hub_record(1, 60), &hub_record(2, 61))).unwrap();
    assert_eq!(probe.sent_to("n"), [Message::Want(vec![id("hub")])]);
    probe.tell("n", Message::Nack(vec![id("hub")])).unwrap();
    probe.wait(5_000);
    let asked = |message: &Message| matches!(message, Message::Want(_));
    assert!(!probe.sent_to("n").iter().any(asked));
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_again_and_then_the_next_announcer() {
    let mut probe = probe(&["n", "o"]);
    let two = hub_record(2, 61);
    probe.tell("n", change(&hub_record(1, 60), &two)).unwrap();
    probe.tell("o", Message::Have(vec![entry(&two)])).unwrap();
    assert_eq!(probe.sent_to("n"), [Message::Want(vec![id("hub")])]);
    probe.wait(990);
    assert_eq!(probe.sent_to("o"), []);
    probe.wait(20);
    assert_eq!(probe.sent_to("o"), [Message::Want(vec![id("hub")])]);
}

#[test]
fn a_change_with_another_id_than_what_comes_out_is_not_taken() {
    let (one, two) = (hub_record(1, 60), hub_record(2, 61));
    let good = Delta::between(&one, &two, usize::MAX).unwrap();
    let gone = good.changed[0].peer.clone();
    let forged = [
        Delta { id: hub_record(3, 61).advertisement().id(), ..good.clone() },
        Delta { flags: 128, ..good.clone() },
        Delta { over: Some(3), ..good.clone() },
        Delta { changed: Vec::new(), removed: vec![gone], ..good.clone() },
        Delta { base_check: 1, ..good.clone() },
    ];
    for delta in forged {
        let mut probe = probe(&["n", "m"]);
        probe.update("n", &one);
        probe.sent.clear();
        probe.tell("n", Message::Delta(Arc::new(delta.clone()))).unwrap();
        assert_eq!(probe.held("hub"), Some(&one), "{delta:?}");
        assert_eq!(probe.sent_to("n"), [Message::Want(vec![id("hub")])]);
        assert_eq!(probe.sent, []);
        assert_eq!(probe.router.counters().deltas_failed, 1);
    }
}

#[test]
fn changes_that_no_node_could_have_made_are_refused() {
    let (one, two) = (hub_record(1, 60), hub_record(2, 61));
    let good = Delta::between(&one, &two, usize::MAX).unwrap();
    let links =
        |names: &[&str]| names.iter().map(|name| link(name, LinkClass::Active, 1)).collect();
    let bad = [
        Delta { base_sequence: 2, ..good.clone() },
        Delta { changed: links(&["b", "a"]), ..good.clone() },
        Delta { changed: links(&["a", "a"]), ..good.clone() },
        Delta { removed: vec![id("b"), id("a")], ..good.clone() },
        Delta { changed: links(&["a"]), removed: vec![id("a")], ..good.clone() },
        Delta { changed: links(&["hub"]), ..good.clone() },
        Delta { removed: vec![id("hub")], ..good.clone() },
        Delta { capabilities: Some(vec![0; 5_000].into()), ..good.clone() },
        Delta { place: Some("x".repeat(65)), ..good.clone() },
    ];
    for delta in bad {
        let mut probe = probe(&["n"]);
        probe.update("n", &one);
        let error = probe.tell("n", Message::Delta(Arc::new(delta.clone())));
        assert!(
            matches!(error, Err(PeerError::BadRecord(DecodeError::Rule(_)))),
            "{delta:?}: {error:?}"
        );
        assert_eq!(probe.held("hub"), Some(&one));
    }
    // What comes out is as agreed, and breaks the rules of records all the same.
    let (mut probe, leaving) = (probe(&["n"]), 1);
    probe.update("n", &one);
    let broken = Delta { flags: leaving, ..good };
    let mut bytes = two.advertisement().bytes().to_vec();
    bytes[FLAGS_AT] = leaving;
    let broken = Delta { id: Advertisement::new(bytes.into()).id(), ..broken };
    let error = probe.tell("n", Message::Delta(Arc::new(broken)));
    assert!(matches!(error, Err(PeerError::BadRecord(DecodeError::Rule(_)))), "{error:?}");
}

#[test]
fn a_neighbour_that_is_owed_the_version_before_gets_the_whole() {
    let mut probe = probe(&["m", "n"]);
    let records: Vec<Record> = (1..=4).map(|n| hub_record(n, 59 + n)).collect();
    probe.update("n", &records[0]);
    probe.sent.clear();
    // The first change waits for the stream when the second comes.
    let updates = |probe: &mut Probe, n: usize| {
        let message = change(&records[n - 1], &records[n]);
        probe.router.handle_message(&id("n"), message, probe.now).unwrap();
    };
    updates(&mut probe, 1);
    updates(&mut probe, 2);
    probe.tell("n", Message::Have(vec![])).unwrap();
    assert_eq!(probe.sent_to("m"), [Message::Update(records[2].advertisement().clone())]);
    // What was sent in full is what the next change starts from.
    probe.tell("n", change(&records[2], &records[3])).unwrap();
    assert_eq!(probe.sent_to("m"), [change(&records[2], &records[3])]);
    assert_eq!(probe.router.counters().deltas_applied, 3);
}

#[test]
fn what_is_asked_for_and_what_a_sync_brings_is_whole() {
    let mut probe = probe(&["n"]);
    let (one, two) = (hub_record(1, 60), hub_record(2, 61));
    probe.update("n", &one);
    probe.up("m", NeighbourKind::Full).unwrap();
    probe.sent.clear();
    probe.tell("n", change(&one, &two)).unwrap();
    let whole = Message::Update(two.advertisement().clone());
    assert_eq!(probe.sent_to("m"), std::slice::from_ref(&whole), "not synced yet");
    probe.tell("n", Message::Want(vec![id("hub")])).unwrap();
    assert_eq!(probe.sent_to("n"), [whole]);
}

#[test]
fn changes_apply_to_what_waits_for_its_time() {
    let mut probe = Probe::tuned(|config| config.limits.accept_burst = 1);
    probe.sync("n");
    let records: Vec<Record> = (1..=4).map(|n| hub_record(n, 59 + n)).collect();
    probe.tell("n", Message::Update(records[0].advertisement().clone())).unwrap();
    (1..4).for_each(|n| probe.tell("n", change(&records[n - 1], &records[n])).unwrap());
    assert_eq!(probe.held("hub"), Some(&records[0]));
    probe.wait(2_000);
    assert_eq!(probe.held("hub"), Some(&records[3]));
    let counters = probe.router.counters();
    assert_eq!((counters.deltas_applied, counters.deltas_failed), (3, 0));
}

#[test]
fn small_records_and_large_changes_travel_whole() {
    for (links, fresh, whole) in [(10, 11, true), (60, 61, false), (60, 120, true), (120, 60, true)]
    {
        let mut probe = probe(&["n", "m"]);
        let (one, two) = (hub_record(1, links), hub_record(2, fresh));
        probe.update("n", &one);
        probe.sent.clear();
        probe.update("n", &two);
        let sent = probe.sent_to("m");
        let expected =
            if whole { Message::Update(two.advertisement().clone()) } else { change(&one, &two) };
        assert_eq!(sent, [expected], "{links} links, then {fresh}");
    }
}

#[test]
fn a_record_of_another_process_or_epoch_travels_whole() {
    let one = hub_record(1, 60);
    let version = |version| Draft { version, ..(*hub_record(2, 61)).clone() }.seal().unwrap();
    for other in
        [Version { epoch: 6, ..one.version }, Version { instance: 9, sequence: 2, ..one.version }]
    {
        let other = version(other);
        assert!(other.stamp() > one.stamp());
        assert_eq!(Delta::between(&one, &other, usize::MAX), None);
    }
}

#[test]
fn records_with_what_this_version_does_not_know_travel_whole() {
    let one = hub_record(1, 2);
    let plain = hub_record(2, 3).advertisement().bytes().to_vec();
    let known = |bytes: Vec<u8>| {
        let result = Record::decode(&Advertisement::new(bytes.into())).unwrap();
        let delta = Delta::between(&one, &result, usize::MAX)?;
        assert_eq!(delta.apply(&one).as_ref(), Some(result.advertisement()));
        Some((delta.flags, delta.over, delta.place))
    };
    let followed_by = |fields: &[&[u8]]| {
        let mut bytes = [&plain, fields.concat().as_slice()].concat();
        bytes[0] += fields.len() as u8;
        known(bytes)
    };
    let (number, text) = (b"\x4d".as_slice(), b"\xa4rack".as_slice());
    let place = Some("rack".to_owned());
    assert_eq!(followed_by(&[]), Some((0, None, None)));
    assert_eq!(followed_by(&[number]), Some((0, Some(77), None)));
    assert_eq!(followed_by(&[number, text]), Some((0, Some(77), place.clone())));
    assert_eq!(followed_by(&[b"\xc0", text]), Some((0, None, place)));
    // Not as this version would write it, or one field more.
    for fields in [[b"\xcd\0\x4d".as_slice()].as_slice(), &[b"\xc0"], &[number, text, number]] {
        assert_eq!(followed_by(fields), None, "{fields:02x?}");
    }
    // Flags are repeated as they are; a class of links that is not known cannot be.
    let with = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        known(bytes)
    };
    assert_eq!(with(FLAGS_AT, 4 | 8), Some((12, None, None)));
    assert_eq!(with(FIRST_CLASS_AT, 9), None);
}

#[test]
fn a_hub_in_churn_ends_in_agreement() {
    in_both_modes(|| {
        let (mut applied, mut failed) = (0, 0);
        for seed in 0..6 {
            let _seed = PrintSeed(seed);
            let sim = churn(seed, |config| {
                (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000);
            });
            let counters = || sim.nodes.values().map(|node| node.router.counters());
            applied += counters().map(|counters| counters.deltas_applied).sum::<u64>();
            failed += counters().map(|counters| counters.deltas_failed).sum::<u64>();
        }
        println!("{applied} changes applied, {failed} failed");
        assert!(applied > 5_000 && failed * 100 < applied, "{applied} applied, {failed} failed");
    });
}

#[test]
fn changes_or_whole_records_lead_to_the_same_routes() {
    for seed in 100..103 {
        let _seed = PrintSeed(seed);
        let sims = [
            churn(seed, |config| config.limits.delta_over = usize::MAX),
            churn(seed, |config| {
                (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000)
            }),
        ];
        assert_eq!(sims[0].sent.deltas, 0);
        assert!(sims[1].sent.deltas > 0);
        let links = |sim: &Sim| -> BTreeMap<NodeId, Vec<_>> {
            let records = sim.router("n00").database().filter(|record| !record.links.is_empty());
            records.map(|record| (record.origin.clone(), record.links.clone())).collect()
        };
        assert_eq!(links(&sims[0]), links(&sims[1]));
    }
}

/// Leaves that come and go at a hub that has a second way to some of them.
fn churn(seed: u64, tune: fn(&mut Config)) -> Sim {
    let mut rng = Rng::new(!seed);
    let mut sim = Sim::new(seed);
    sim.tune = tune;
    sim.latency = [(1, 1), (1, 20), (5, 100)][rng.below(3) as usize];
    let count = 15 + rng.below(15) as usize;
    let mut edges = topologies::star(count);
    let names = topologies::names(count);
    edges.extend((2..count).step_by(3).map(|n| (names[1].clone(), names[n].clone())));
    sim.boot_all(names.clone());
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(2));
    for _ in 0..60 {
        sim.run_for(rng.millis(0, 1_500));
        let name = &names[2 + rng.below(count as u64 - 2) as usize];
        let (hub, leaf) = (id("n00"), id(name));
        let stub = id(&format!("s{}", rng.below(6)));
        match rng.below(10) {
            0..3 => {
                sim.cut(&hub, &leaf, if rng.chance(50) { Seen::Now } else { Seen::Within(300) })
            }
            3..6 if !sim.linked(&hub, &leaf) => {
                sim.connect_cost("n00", name, 1, 1 + rng.below(3) as u32);
            }
            6..9 if sim.nodes[&hub].stubs.contains_key(&stub) => sim.detach(&hub, &stub),
            6..9 => sim.attach(&hub, stub, Cost::DEFAULT),
            _ if rng.chance(30) => sim.restart(&leaf, 0, Seen::Within(300)),
            _ => {}
        }
    }
    for name in &names[2..] {
        if !sim.linked(&id("n00"), &id(name)) {
            sim.connect("n00", name);
        }
    }
    sim.settle();
    assert_converged(&sim);
    sim
}

/// Where the flags of [`hub_record`] stand in its bytes, and the class of its first link.
const FLAGS_AT: usize = 8;
const FIRST_CLASS_AT: usize = 32;

/// What nodes were sent since `before`, in bytes, but for those named.
#[derive(Debug)]
struct PerNode {
    most: u64,
    mean: f64,
    of_the_whole_mesh: f64,
}

fn per_node(sim: &Sim, before: &BTreeMap<NodeId, u64>, but: &[&str]) -> PerNode {
    let grown = |name: &NodeId| sim.received[name] - before.get(name).copied().unwrap_or(0);
    let others: Vec<u64> =
        sim.nodes.keys().filter(|name| !but.contains(&name.as_str())).map(grown).collect();
    PerNode {
        most: others.iter().copied().max().unwrap(),
        mean: others.iter().sum::<u64>() as f64 / others.len() as f64,
        of_the_whole_mesh: sim.nodes.keys().map(grown).sum::<u64>() as f64 / sim.nodes.len() as f64,
    }
}

/// A hub with so many leaves, whose records and tables have settled.
fn hub(leaves: usize, mode: FloodMode) -> Sim {
    let mut sim = Sim::flooding(1, mode);
    sim.latency = (1, 10);
    let edges = topologies::star(leaves + 1);
    sim.boot_all(topologies::nodes_of(&edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(20));
    assert_hub_known(&sim, leaves);
    sim
}

/// The naive reference takes too long for a mesh of this size: all nodes hold the hub's newest
/// record, and it lists all.
fn assert_hub_known(sim: &Sim, links: usize) {
    let hub = |name| sim.router(name).database().find(|record| record.origin == id("n00"));
    let newest = hub("n00").unwrap();
    assert_eq!(newest.links.len(), links);
    assert!(sim.nodes.keys().all(|name| hub(name.as_str()) == Some(newest)));
}

/// The hub is not in the probe's graph, and with trees its record would only be offered.
fn probe(synced: &[&str]) -> Probe {
    let mut probe = Probe::tuned(|config| config.flood = FloodMode::Full);
    synced.iter().for_each(|name| probe.sync(name));
    probe.sent.clear();
    probe
}

fn hub_record(sequence: u64, links: u64) -> Record {
    let links = (0..links)
        .map(|n| link(&format!("leaf-of-the-hub-{n:04}"), LinkClass::Active, 1))
        .collect();
    draft("hub", (5, sequence), links).seal().unwrap()
}

fn change(base: &Record, result: &Record) -> Message {
    Message::Delta(Arc::new(Delta::between(base, result, usize::MAX).unwrap()))
}

fn random(rng: &mut Rng, sequence: u64) -> Record {
    let classes = [LinkClass::Active, LinkClass::Stub, LinkClass::Dormant];
    let leaving = rng.chance(10);
    let links = (0..20).filter(|_| !leaving && rng.chance(50)).collect::<Vec<_>>();
    let links = links.iter().map(|n| {
        link(&format!("n{n}"), classes[rng.below(3) as usize], 1 + rng.below(2) as u32 * 40_000)
    });
    let mut draft = draft("hub", (5, sequence), links.collect());
    (draft.transit, draft.leaving) = (rng.chance(50), leaving);
    draft.capabilities = vec![7; rng.below(3) as usize * 200].into();
    draft.seal().unwrap()
}
