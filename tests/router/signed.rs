//! Signed records: who forges one loses the session, and nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use receptor_quic::id::Version;
use receptor_quic::router::{
    Config, CredentialName, Distrust, Entry, Event, Message, NeighbourKind, PeerError, Proof,
    Record, Stamp,
};

use crate::fuzz::{PrintSeed, history, history_of, provoke};
use crate::notary::Plain;
use crate::probe::{Probe, draft, entry, record};
use crate::reference::assert_converged;
use crate::restart::assert_converged_apart;
use crate::rng::Rng;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

/// Every node signs.
pub(crate) fn signed(config: &mut Config) {
    config.notary = Some(Arc::new(Plain::of(&config.id)));
}

fn signed_and_provoked(config: &mut Config) {
    signed(config);
    provoke(config);
}

#[test]
fn random_histories_of_signed_records_end_in_agreement() {
    in_both_modes(|| {
        for seed in 3_000..3_150 {
            history(seed, signed_and_provoked);
        }
        for seed in 3_200..3_230 {
            let mut sim = Sim::new(seed);
            sim.random_eager = true;
            history_of(sim, seed, signed);
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_with_signatures() {
    let traces = [1, 2].map(|_| history(5, signed).trace());
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], history(5, |_| {}).trace());
}

#[test]
fn the_cache_of_seen_ids_changes_nothing_where_records_are_signed() {
    fn cache(config: &mut Config, ids: usize) {
        signed_and_provoked(config);
        config.limits.seen_ids = ids;
    }
    in_both_modes(|| {
        for seed in 3_500..3_506 {
            let sims = [
                history(seed, |config| cache(config, 0)),
                history(seed, |config| cache(config, 1)),
                history(seed, |config| cache(config, usize::MAX)),
            ];
            let state = |sim: &Sim| -> Vec<Record> {
                sim.nodes
                    .values()
                    .flat_map(|node| node.router.database().cloned().collect::<Vec<_>>())
                    .collect()
            };
            assert!(sims.iter().all(|sim| state(sim) == state(&sims[0])), "seed {seed}");
        }
    });
}

#[test]
fn each_node_pulls_each_credential_once_however_long_the_mesh_lives() {
    in_both_modes(|| {
        let edges = topologies::random_mesh(25, &mut Rng::new(9));
        let mut sim = start(1, &edges, signed);
        let nodes = sim.nodes.len() as u64;
        for origin in sim.living() {
            let now = sim.now;
            sim.nodes.get_mut(&origin).unwrap().capabilities = b"new".to_vec();
            sim.command(&origin, |router| router.set_capabilities(b"new".to_vec().into(), now));
            sim.run_for(Duration::from_secs(2));
        }
        assert_converged(&sim);
        for node in sim.nodes.values() {
            let counters = node.router.counters();
            assert_eq!(counters.credentials_pulled, nodes - 1, "{}", node.router.id());
            assert_eq!(counters.records_verified, counters.updates_accepted);
            assert_eq!((counters.records_forged, counters.records_untrusted), (0, 0));
            assert_eq!((counters.records_unproven, counters.requests_dropped), (0, 0));
        }
    });
}

#[test]
fn a_renewed_credential_is_spoken_with_at_once_and_pulled_once() {
    let edges = topologies::ring(6);
    let mut sim = start(1, &edges, signed);
    let (now, name, before) = (sim.now, id("n02"), sim.router("n02").version());
    sim.command(&name, |router| router.set_notary(Arc::new(Plain::of(&id("n02"))), now));
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.router("n02").version(), before, "the credential is the same");

    let now = sim.now;
    sim.command(&name, |router| router.set_notary(Arc::new(Plain::renewed(&id("n02"), 2)), now));
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.router("n02").version().sequence, before.sequence + 1);
    for node in sim.nodes.values().filter(|node| *node.router.id() != name) {
        assert_eq!(node.router.counters().credentials_pulled, 6, "{}", node.router.id());
    }
    sim.settle();
    assert_converged(&sim);
}

#[test]
fn a_restarted_node_learns_its_old_version_from_a_signed_record_before_it_speaks() {
    in_both_modes(|| {
        for seed in 0..30 {
            let _seed = PrintSeed(seed);
            let mut sim = start(seed, &topologies::line(5), signed);
            let before = sim.router("n02").version();
            if seed % 2 == 1 {
                // Its certificate was renewed while it was down: its old one is pulled to read its
                // old record.
                sim.tune = |config| config.notary = Some(Arc::new(Plain::renewed(&config.id, 2)));
            }
            sim.restart(&id("n02"), -30_000, Seen::Now);
            while sim.router("n02").counters().originations == 0 {
                sim.run_for(Duration::from_micros(10));
            }
            let first = sim.router("n02").version();
            assert_eq!((first.epoch, first.sequence), (before.epoch, before.sequence + 1));
            sim.settle();
            assert_converged(&sim);
        }
    });
}

/// The neighbours withhold the old record when the node returns: it hears of it from the answer to
/// its own.
#[test]
fn a_node_that_comes_back_late_with_its_clock_off_asks_for_proof_of_its_old_version() {
    for renewed in [false, true] {
        let mut sim = start(1, &topologies::ring(4), signed);
        if renewed {
            let now = sim.now;
            let notary = Arc::new(Plain::renewed(&id("n01"), 7));
            sim.command(&id("n01"), |router| router.set_notary(notary, now));
            sim.run_for(Duration::from_secs(5));
        }
        sim.kill(&id("n01"), Seen::Now);
        sim.run_for(Duration::from_secs(120));
        sim.boot("n01", -86_400_000);
        sim.connect("n00", "n01");
        sim.connect("n01", "n02");
        sim.run_for(Duration::from_secs(3));
        assert_converged_apart(&sim);
        assert_eq!(sim.router("n01").counters().resyncs, 1);
        sim.settle();
        assert_converged(&sim);
    }
}

#[test]
fn the_link_is_advertised_only_when_all_that_came_before_the_end_is_verified() {
    let mut probe = Probe::tuned(signed);
    probe.up("n", NeighbourKind::Full).unwrap();
    open(&mut probe, "n");
    let (a, b) = (sealed("a", 1, &[("n", 1)]), sealed("b", 1, &[("n", 1)]));
    probe.tell("n", update(&a)).unwrap();
    probe.tell("n", update(&b)).unwrap();
    probe.tell("n", Message::SyncEnd).unwrap();
    probe.wait(50);
    assert_eq!(probe.held("me"), None, "it has not spoken");
    assert_eq!(probe.tell("n", Message::SyncEnd), Err(PeerError::SyncEndedTwice));
    probe.tell("n", credential("a", 1)).unwrap();
    probe.wait(50);
    assert!(probe.held("a").is_some() && probe.held("me").is_none());
    probe.tell("n", nothing("b")).unwrap();
    probe.wait(50);
    assert!(probe.held("me").is_some() && probe.held("b").is_none());
    assert_eq!(probe.events.iter().filter(|event| matches!(event, Event::Synced(_))).count(), 1);
}

#[test]
fn a_neighbour_that_withholds_a_credential_delays_the_link_and_no_more() {
    let mut probe = Probe::tuned(signed);
    probe.up("n", NeighbourKind::Full).unwrap();
    open(&mut probe, "n");
    probe.tell("n", update(&sealed("a", 1, &[]))).unwrap();
    probe.tell("n", Message::SyncEnd).unwrap();
    probe.wait(25_000);
    assert!(probe.held("me").is_some() && probe.held("a").is_none());
    assert_eq!(probe.router.counters().records_unproven, 1);
}

#[test]
fn a_record_waits_for_its_credential_and_is_verified_once() {
    let mut probe = synced(&["n"]);
    let first = sealed("o", 1, &[]);
    probe.tell("n", update(&first)).unwrap();
    assert_eq!(
        probe.sent_to("n"),
        [Message::CredentialWant(vec![(id("o"), Plain::of(&id("o")).name())])]
    );
    assert_eq!(probe.held("o"), None);
    probe.tell("n", credential("o", 1)).unwrap();
    assert_eq!(probe.held("o"), Some(&first));
    // Copies of it are duplicates, whatever their proof.
    let damaged = first.clone().with_proof(vec![7; 40].into());
    probe.tell("n", update(&damaged)).unwrap();
    probe.tell("n", update(&first)).unwrap();
    probe.tell("n", update(&sealed("o", 2, &[]))).unwrap();
    assert!(probe.sent_to("n").is_empty());
    let counters = probe.router.counters();
    assert_eq!(
        (counters.records_verified, counters.updates_duplicate, counters.credentials_pulled),
        (2, 2, 1)
    );
    // It gives what it was given.
    let name = Plain::of(&id("o")).name();
    probe.tell("n", Message::CredentialWant(vec![(id("o"), name), (id("p"), name)])).unwrap();
    let given = Message::Credential { origin: id("o"), name, credential: Some("o#1".into()) };
    let none = Message::Credential { origin: id("p"), name, credential: None };
    assert_eq!(probe.sent_to("n"), [given, none]);
}

#[test]
fn who_sends_a_forged_record_is_guilty_and_the_record_of_the_others_stays() {
    let good = sealed("o", 1, &[("n", 1)]);
    let altered = draft("o", (5, 2), vec![]).seal().unwrap();
    let proof = |record: &Record| record.advertisement().proof().clone();
    let cut = |len: usize| proof(&good).slice(..len);
    let another = Plain::of(&id("mallory")).seal(&altered);
    let cases = [
        ("altered in flight", altered.clone().with_proof(proof(&good)), PeerError::Forged(id("o"))),
        ("another's credential", another, PeerError::Forged(id("o"))),
        ("a truncated proof", altered.clone().with_proof(cut(20)), PeerError::Forged(id("o"))),
        ("no signature", altered.clone().with_proof(cut(16)), PeerError::Forged(id("o"))),
        ("unsigned", altered.clone(), PeerError::Unsigned(id("o"))),
        (
            "too long",
            altered.with_proof(vec![1; 1_025].into()),
            PeerError::ProofTooLong { len: 1_025 },
        ),
    ];
    for (what, forged, error) in cases {
        let mut probe = synced(&["good", "liar"]);
        probe.tell("good", update(&good)).unwrap();
        probe.tell("good", credential("o", 1)).unwrap();
        let mut result = probe.tell("liar", update(&forged));
        if result.is_ok() {
            // Its credential is not known yet: the liar is asked for it, and found out when it
            // comes.
            assert!(
                matches!(&probe.sent_to("liar")[..], [.., Message::CredentialWant(_)]),
                "{what}"
            );
            let (origin, name) = (id("o"), Plain::of(&id("mallory")).name());
            let credential = Some("mallory#1".into());
            probe.tell("liar", Message::Credential { origin, name, credential }).unwrap();
            result = match probe.events.pop() {
                Some(Event::Violation { neighbour, error }) if neighbour == id("liar") => {
                    Err(error)
                }
                other => panic!("{what}: {other:?}"),
            };
        }
        assert_eq!(result, Err(error), "{what}");
        assert_eq!(probe.held("o"), Some(&good), "{what}");
        probe.router.handle_session_down(&id("liar"), probe.now);
        probe.wait(30);
        let sent = probe.sent_to("good");
        assert!(
            !sent.iter().any(|message| *message == update(&forged)),
            "{what}: it was not repeated"
        );
        probe.tell("good", update(&sealed("o", 3, &[("n", 1)]))).unwrap();
        assert_eq!(
            probe.held("o").unwrap().version.sequence,
            3,
            "{what}: the others are served on"
        );
    }
}

#[test]
fn a_replayed_old_record_is_answered_with_the_newer_and_changes_nothing() {
    let mut probe = synced(&["n", "liar"]);
    probe.tell("n", update(&sealed("o", 1, &[]))).unwrap();
    probe.tell("n", credential("o", 1)).unwrap();
    let newer = sealed("o", 2, &[]);
    probe.tell("n", update(&newer)).unwrap();
    probe.wait(50);
    probe.sent.clear();
    let verified = probe.router.counters().records_verified;
    probe.tell("liar", update(&sealed("o", 1, &[]))).unwrap();
    assert_eq!(probe.held("o"), Some(&newer));
    assert_eq!(probe.sent_to("liar"), [Message::Have(vec![entry(&newer)])]);
    assert_eq!(probe.router.counters().records_verified, verified);
}

#[test]
fn a_credential_that_is_none_costs_the_session() {
    let mut probe = synced(&["n"]);
    probe.tell("n", update(&sealed("o", 1, &[]))).unwrap();
    let name = Plain::of(&id("o")).name();
    let reply = |bytes: Vec<u8>, name| Message::Credential {
        origin: id("o"),
        name,
        credential: Some(bytes.into()),
    };
    assert_eq!(
        probe.tell("n", reply(b"other".to_vec(), name)),
        Err(PeerError::BadCredential(id("o")))
    );
    let long = vec![1; Proof::MAX_CREDENTIAL + 1];
    let long_name = CredentialName::of(&long);
    assert_eq!(probe.tell("n", reply(long, long_name)), Err(PeerError::BadCredential(id("o"))));
    // One that nobody asked for is left alone.
    let unasked = b"unasked".to_vec();
    let unasked_name = CredentialName::of(&unasked);
    assert_eq!(probe.tell("n", reply(unasked, unasked_name)), Ok(()));
    probe.tell("n", credential("o", 1)).unwrap();
    assert!(probe.held("o").is_some());
}

#[test]
fn an_untrusted_record_is_refused_and_its_sender_is_not_guilty() {
    for (why, reason) in [
        ("expired", Distrust::Expired),
        ("revoked", Distrust::Revoked),
        ("stranger", Distrust::UnknownIssuer),
    ] {
        let mut probe = synced(&["n", "m"]);
        let notary = Plain::untrusted(&id("o"), why);
        let refused = notary.seal(&record("o", (5, 1), &[]));
        for (neighbour, asked) in [("n", 1), ("m", 0)] {
            probe.tell(neighbour, update(&refused)).unwrap();
            let wants = probe
                .sent_to(neighbour)
                .into_iter()
                .filter(|m| matches!(m, Message::CredentialWant(_)));
            assert_eq!(wants.count(), asked, "what was refused is not looked at again");
            let credential = Some(format!("{why}:o#1").into());
            let (origin, name) = (id("o"), notary.name());
            probe.tell(neighbour, Message::Credential { origin, name, credential }).unwrap();
        }
        assert_eq!(probe.held("o"), None);
        let version = refused.version;
        assert_eq!(probe.events, [Event::Untrusted { origin: id("o"), version, reason }]);
        assert_eq!(probe.router.counters().records_untrusted, 2);
        // One that is trusted is taken, even if it says the same.
        let trusted = Plain::of(&id("o")).seal(&record("o", (5, 1), &[]));
        probe.tell("n", update(&trusted)).unwrap();
        probe.tell("n", credential("o", 1)).unwrap();
        assert_eq!(probe.held("o"), Some(&trusted));
    }
}

#[test]
fn whoever_else_sent_the_record_is_asked_for_its_credential() {
    let mut probe = synced(&["a", "b"]);
    let copy = sealed("o", 1, &[]);
    probe.tell("a", update(&copy)).unwrap();
    probe.tell("b", update(&copy)).unwrap();
    assert!(probe.sent_to("b").is_empty());
    probe.tell("a", nothing("o")).unwrap();
    assert_eq!(
        probe.sent_to("b"),
        [Message::CredentialWant(vec![(id("o"), Plain::of(&id("o")).name())])]
    );
    probe.tell("b", credential("o", 1)).unwrap();
    assert_eq!(probe.held("o"), Some(&copy));

    let copy = sealed("p", 1, &[]);
    probe.tell("a", update(&copy)).unwrap();
    probe.tell("b", update(&copy)).unwrap();
    probe.sent.clear();
    probe.router.handle_session_down(&id("a"), probe.now);
    probe.wait(0);
    assert!(matches!(&probe.sent_to("b")[..], [Message::CredentialWant(_)]));
}

#[test]
fn a_liars_copy_does_not_stand_in_the_way_of_the_true_one() {
    let mut probe = synced(&["liar", "n"]);
    // The liar foresees the very bytes, or claims to have newer ones; its credential never comes.
    let bogus =
        Proof { credential: CredentialName([9; 16]), signature: vec![1; 16].into() }.encode();
    probe.tell("liar", update(&record("o", (5, 1), &[]).with_proof(bogus.clone()))).unwrap();
    probe.tell("liar", update(&record("o", (99, 99), &[]).with_proof(bogus))).unwrap();
    probe.tell("n", update(&sealed("o", 1, &[]))).unwrap();
    probe.tell("n", credential("o", 1)).unwrap();
    assert!(probe.held("o").is_some());
}

#[test]
fn a_forged_record_that_comes_too_fast_does_not_push_out_the_true_one() {
    let mut probe = synced(&["n", "liar"]);
    probe.tell("n", update(&sealed("o", 1, &[]))).unwrap();
    probe.tell("n", credential("o", 1)).unwrap();
    for sequence in 2..30 {
        probe.tell("n", update(&sealed("o", sequence, &[]))).unwrap();
    }
    assert_eq!(probe.held("o").unwrap().version.sequence, 20);
    let forged =
        record("o", (6, 1), &[]).with_proof(sealed("o", 1, &[]).advertisement().proof().clone());
    probe.tell("liar", update(&forged)).unwrap();
    let before = probe.router.counters();
    probe.wait(600);
    assert_eq!(probe.held("o").unwrap().version.sequence, 29, "of the flood the newest is taken");
    let error = PeerError::Forged(id("o"));
    assert!(probe.events.contains(&Event::Violation { neighbour: id("liar"), error }));
    let after = probe.router.counters();
    assert_eq!(
        after.records_verified - before.records_verified,
        1,
        "one signature is looked at, not each"
    );
}

#[test]
fn a_stamp_of_a_version_that_does_not_exist_is_asked_for_a_few_times_and_moves_nobody() {
    let mut probe = synced(&["liar"]);
    let own = probe.held("me").unwrap().clone();
    let version = Version { epoch: own.version.epoch + 1_000_000, sequence: 7, instance: 1 };
    let entry = |name: &str| Entry { origin: id(name), stamp: Stamp { version, check: 0 } };
    probe.tell("liar", Message::Have(vec![entry("me"), entry("o")])).unwrap();
    probe.wait(600_000);
    let wants: Vec<_> =
        probe.sent_to("liar").into_iter().filter(|m| matches!(m, Message::Want(_))).collect();
    assert!(wants.len() <= 16, "{}", wants.len());
    assert_eq!(probe.held("me"), Some(&own), "it says nothing new");
    assert_eq!(probe.router.version(), own.version);
    probe.tell("liar", Message::Have(vec![entry("me")])).unwrap();
    probe.wait(1);
    assert!(matches!(&probe.sent_to("liar")[..], [Message::Want(_)]));
    probe.tell("liar", Message::Nack(vec![id("me")])).unwrap();
    probe.wait(600_000);
    assert!(probe.sent_to("liar").is_empty(), "a refusal ends it");
}

#[test]
fn a_forged_record_of_ones_own_costs_the_session_and_a_true_one_is_overtaken() {
    let mut probe = synced(&["n", "liar"]);
    let own = probe.held("me").unwrap().clone();
    let next = draft("me", (own.version.epoch, own.version.sequence + 50), vec![]).seal().unwrap();
    let forged = next.clone().with_proof(own.advertisement().proof().clone());
    assert_eq!(probe.tell("liar", update(&forged)), Err(PeerError::Forged(id("me"))));
    assert_eq!(probe.router.version(), own.version);
    // Of a process before this one, even if its certificate is good no more.
    let notary = Plain::untrusted(&id("me"), "expired");
    probe.tell("n", update(&notary.seal(&next))).unwrap();
    let credential = Some("expired:me#1".into());
    probe
        .tell("n", Message::Credential { origin: id("me"), name: notary.name(), credential })
        .unwrap();
    probe.wait(20);
    assert_eq!(probe.router.version().sequence, own.version.sequence + 51);
    // A stranger's word about this node counts for nothing.
    let notary = Plain::untrusted(&id("me"), "stranger");
    let last = draft("me", (own.version.epoch + 9, 1), vec![]).seal().unwrap();
    probe.tell("n", update(&notary.seal(&last))).unwrap();
    let credential = Some("stranger:me#1".into());
    probe
        .tell("n", Message::Credential { origin: id("me"), name: notary.name(), credential })
        .unwrap();
    probe.wait(20);
    assert_eq!(probe.router.version().sequence, own.version.sequence + 51);
}

#[test]
fn credentials_go_with_their_records() {
    let mut probe = Probe::tuned(|config| {
        signed(config);
        config.timers.delete = Duration::from_secs(5);
    });
    sync(&mut probe, "n");
    probe.tell("n", update(&sealed("o", 1, &[]))).unwrap();
    probe.tell("n", credential("o", 1)).unwrap();
    probe.wait(20_000);
    assert_eq!(probe.held("o"), None);
    probe.sent.clear();
    let (name, own) = (Plain::of(&id("o")).name(), Plain::of(&id("me")).name());
    probe.tell("n", Message::CredentialWant(vec![(id("me"), own), (id("o"), name)])).unwrap();
    let given =
        Message::Credential { origin: id("me"), name: own, credential: Some("me#1".into()) };
    let none = Message::Credential { origin: id("o"), name, credential: None };
    assert_eq!(probe.sent_to("n"), [given, none]);
}

#[test]
fn a_neighbour_that_brings_many_that_are_not_trusted_waits_and_nobody_else_does() {
    let mut probe = synced(&["n", "other"]);
    let stranger = |nth: u32| Plain::untrusted(&id(&format!("s{nth}")), "stranger");
    let bring = |probe: &mut Probe, nth: u32| {
        let (origin, notary) = (format!("s{nth}"), stranger(nth));
        probe.tell("n", update(&notary.seal(&record(&origin, (5, 1), &[])))).unwrap();
        let credential = Some(format!("stranger:{origin}#1").into());
        probe
            .tell("n", Message::Credential { origin: id(&origin), name: notary.name(), credential })
            .unwrap();
    };
    (0..500).for_each(|nth| bring(&mut probe, nth));
    assert_eq!(probe.router.counters().records_untrusted, 256);
    for (from, origin) in [("n", "a"), ("other", "b")] {
        probe.tell(from, update(&sealed(origin, 1, &[]))).unwrap();
        probe.tell(from, credential(origin, 1)).unwrap();
    }
    assert!(probe.held("a").is_none() && probe.held("b").is_some());
    // What was not looked at is asked for again.
    probe.sent.clear();
    probe.wait(150);
    let asked = |messages: Vec<Message>| {
        messages.iter().any(|m| matches!(m, Message::Want(origins) if origins.contains(&id("a"))))
    };
    assert!(asked(probe.sent_to("n")));
    probe.tell("n", update(&sealed("a", 1, &[]))).unwrap();
    probe.tell("n", credential("a", 1)).unwrap();
    assert!(probe.held("a").is_some());
    assert_eq!(probe.router.counters().records_forged, 0);
}

#[test]
fn a_reconnect_does_not_renew_the_budget_for_distrust() {
    let mut probe = synced(&["n"]);
    let bring = |probe: &mut Probe, nths: std::ops::Range<u32>| {
        // All records first, then all credentials: what waits is bounded by the same budget.
        let stranger = |nth: u32| Plain::untrusted(&id(&format!("s{nth}")), "stranger");
        for nth in nths.clone() {
            probe
                .tell("n", update(&stranger(nth).seal(&record(&format!("s{nth}"), (5, 1), &[]))))
                .unwrap();
        }
        for nth in nths {
            let credential = Some(format!("stranger:s{nth}#1").into());
            let (origin, name) = (id(&format!("s{nth}")), stranger(nth).name());
            probe.tell("n", Message::Credential { origin, name, credential }).unwrap();
        }
        probe.router.counters().records_untrusted
    };
    assert_eq!(bring(&mut probe, 0..400), 256);
    for round in 1..=5 {
        probe.down("n");
        sync(&mut probe, "n");
        let before = round * 1_000;
        assert!(bring(&mut probe, before..before + 400) <= 256 + 20, "round {round}");
    }
}

fn start(seed: u64, edges: &topologies::Edges, tune: fn(&mut Config)) -> Sim {
    let mut sim = Sim::new(seed);
    sim.tune = tune;
    sim.boot_all(topologies::nodes_of(edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(20));
    assert_converged(&sim);
    sim
}

/// A router that signs, synced with these neighbours, whose own records nobody has seen.
#[test]
fn a_record_is_dropped_when_its_credential_expires() {
    let remaining = Arc::new(AtomicU64::new(10));
    let mut probe = Probe::tuned(|config| {
        config.notary = Some(Arc::new(Plain::expiring(&config.id, remaining.clone())));
    });
    sync(&mut probe, "n");
    for (name, links) in [("n", &[("me", 1), ("o", 1)][..]), ("o", &[("n", 1)])] {
        probe.tell("n", update(&sealed(name, 1, links))).unwrap();
        probe.tell("n", credential(name, 1)).unwrap();
    }
    probe.wait(1_000);
    assert!(probe.router.table().route(&id("o")).is_some());
    // The clock was set back meanwhile: there is more time left than expected.
    remaining.store(20, Ordering::Relaxed);
    probe.wait(15_000);
    assert!(probe.held("o").is_some());
    remaining.store(0, Ordering::Relaxed);
    probe.events.clear();
    probe.wait(20_000);
    assert_eq!((probe.held("o"), probe.held("n")), (None, None));
    assert!(probe.router.table().route(&id("o")).is_none());
    let expired =
        |event: &&Event| matches!(event, Event::Untrusted { reason: Distrust::Expired, .. });
    assert_eq!(probe.events.iter().filter(expired).count(), 2);
    assert_eq!(probe.router.counters().records_expired, 2);
    assert!(probe.held("me").is_some(), "the node's own record is its own affair");
    // The renewed certificate brings the node back.
    remaining.store(u64::MAX, Ordering::Relaxed);
    for (name, links) in [("n", &[("me", 1), ("o", 1)][..]), ("o", &[("n", 1)])] {
        probe.tell("n", update(&sealed(name, 2, links))).unwrap();
        probe.tell("n", credential(name, 1)).unwrap();
    }
    probe.wait(1_000);
    assert!(probe.router.table().route(&id("o")).is_some());
}

fn synced(names: &[&str]) -> Probe {
    let mut probe = Probe::tuned(signed);
    names.iter().for_each(|name| sync(&mut probe, name));
    probe.wait(50);
    probe.sent.clear();
    probe.events.clear();
    probe
}

fn sync(probe: &mut Probe, name: &str) {
    probe.sync(name);
}

/// Up to the end of what the neighbour has to say.
fn open(probe: &mut Probe, name: &str) {
    let digest = Message::Digest { digest: receptor_quic::router::Digest(1), count: 0 };
    probe.tell(name, digest).unwrap();
    probe
        .tell(name, Message::Summary { after: None, entries: vec![], last: true, buckets: None })
        .unwrap();
}

fn sealed(origin: &str, sequence: u64, links: &[(&str, u32)]) -> Record {
    Plain::of(&id(origin)).seal(&record(origin, (5, sequence), links))
}

fn update(record: &Record) -> Message {
    Message::Update(record.advertisement().clone())
}

fn credential(origin: &str, serial: u32) -> Message {
    let credential = format!("{origin}#{serial}");
    let name = CredentialName::of(credential.as_bytes());
    Message::Credential { origin: id(origin), name, credential: Some(credential.into()) }
}

/// The neighbour does not have it.
fn nothing(origin: &str) -> Message {
    Message::Credential {
        origin: id(origin),
        name: Plain::of(&id(origin)).name(),
        credential: None,
    }
}
