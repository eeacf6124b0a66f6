//! Two processes with one id: exactly one yields. And restarts, which never do.
//! `RECEPTOR_SEEDS=10000` runs more of them.

use std::sync::Arc;
use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::router::{
    Config, Digest, Duplicate, Event, LinkClass, Message, NeighbourKind, Override, PeerError,
    Process, Record, SessionError,
};

use crate::fuzz::PrintSeed;
use crate::notary::Plain;
use crate::probe::{Probe, draft, entry, link};
use crate::reference::assert_converged;
use crate::rng::Rng;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

/// The name of the second process in the simulator.
const TWIN: &str = "twin";

#[test]
fn a_newcomer_with_the_id_of_a_live_node_yields_and_both_say_so() {
    in_both_modes(|| {
        let mut most = [0; 2];
        for seed in 0..seeds() {
            let _seed = PrintSeed(seed);
            let Some(mut scene) = newcomer(seed, |_| {}) else { continue };
            let before = scene.originations();
            scene.sim.settle();
            let [own, twin] = scene.originations();
            // The newcomer also speaks of each link that comes up.
            let floods = [own - before[0], (twin - before[1]).saturating_sub(scene.links)];
            assert!(floods[0] <= 3 && floods[1] <= 3, "{floods:?}");
            most = [most[0].max(floods[0]), most[1].max(floods[1])];
            scene.assert_one_yielded(Some(TWIN));
        }
        println!("floods at most: {most:?}");
    });
}

#[test]
fn of_two_that_meet_when_a_partition_heals_the_larger_instance_yields() {
    in_both_modes(|| {
        let mut most = [0; 2];
        for seed in 0..seeds() {
            let _seed = PrintSeed(seed);
            let mut scene = apart(seed, |_| {});
            let before = scene.originations();
            scene.join();
            scene.sim.settle();
            let after = scene.originations();
            let floods = [after[0] - before[0], after[1] - before[1]];
            assert!(floods[0] <= 3 && floods[1] <= 3, "{floods:?}");
            most = [most[0].max(floods[0]), most[1].max(floods[1])];
            let larger = scene.larger();
            scene.assert_one_yielded(Some(&larger));
        }
        println!("floods at most: {most:?}");
    });
}

#[test]
fn one_yields_also_while_links_come_and_go_and_both_speak_of_other_things() {
    in_both_modes(|| {
        for seed in 0..seeds() {
            let _seed = PrintSeed(seed);
            let mut scene = match (seed % 2, newcomer(seed, |_| {})) {
                (0, Some(scene)) => scene,
                _ => apart(seed, |_| {}),
            };
            scene.join();
            let mut healing = Vec::new();
            for _ in 0..scene.rng.below(8) {
                let pause = [1, 30, 300, 3_000][scene.rng.below(4) as usize];
                let pause = scene.rng.millis(0, pause);
                scene.sim.run_for(pause);
                scene.disturb(&mut healing);
            }
            scene.sim.heal(healing);
            scene.join();
            scene.sim.settle();
            scene.assert_one_yielded(None);
        }
    });
}

#[test]
fn restarts_never_yield_however_fast_and_whatever_the_clocks_say() {
    in_both_modes(|| {
        for seed in 0..seeds() {
            let _seed = PrintSeed(seed);
            let mut rng = Rng::new(!seed);
            let mut sim = mesh(seed, &mut rng, |_| {});
            let victim = rng.pick(&sim.living()).cloned().unwrap();
            let mut healing = Vec::new();
            for _ in 0..2 + rng.below(8) {
                let pause = [0, 3, 40, 400, 4_000][rng.below(5) as usize];
                sim.run_for(rng.millis(0, pause));
                let far: Vec<_> = sim.living().into_iter().filter(|_| rng.chance(30)).collect();
                match rng.below(6) {
                    0 => {
                        healing.extend(sim.partition(|node| far.contains(node), Seen::Within(300)))
                    }
                    1 => sim.heal(std::mem::take(&mut healing)),
                    _ => {
                        // Ahead, back, or at the very epoch of the process before.
                        let elapsed = (sim.now - sim.start).as_millis() as i64;
                        let off = rng.below(120_001) as i64 - 60_000;
                        let clock = if rng.chance(30) { -elapsed } else { off };
                        sim.restart(
                            &victim,
                            clock,
                            Seen::Within([0, 300, 5_000][rng.below(3) as usize]),
                        );
                    }
                }
            }
            sim.heal(healing);
            sim.settle();
            assert_converged(&sim);
            assert_nobody_yielded(&sim);
        }
    });
}

#[test]
fn a_process_that_starts_while_its_predecessor_leaves_does_not_yield() {
    in_both_modes(|| {
        for seed in 0..50 {
            let _seed = PrintSeed(seed);
            let Some(mut scene) = newcomer(seed, |_| {}) else { continue };
            let now = scene.sim.now;
            scene.sim.command(&id("n00"), |router| router.leave(now));
            scene.sim.run_for(Duration::from_secs(2));
            scene.sim.kill(&id("n00"), Seen::Now);
            scene.sim.settle();
            assert_nobody_yielded(&scene.sim);
            scene.sim.rename(&id(TWIN));
            assert_converged(&scene.sim);
        }
    });
}

#[test]
fn a_stamp_alone_proves_nothing_and_is_not_overtaken_but_pulled() {
    let mut probe = Probe::new();
    probe.sync("n");
    let before = probe.held("me").unwrap().version;
    let twin = of_twin(before.sequence + 10, None);
    probe.tell("n", Message::Have(vec![entry(&twin)])).unwrap();
    probe.wait(50);
    assert_eq!(probe.held("me").unwrap().version, before);
    probe.wait(100);
    assert!(probe.sent_to("n").contains(&Message::Want(vec![id("me")])));
    probe.update("n", &twin);
    probe.wait(100);
    let own = probe.held("me").unwrap();
    assert_eq!(own.version.sequence, twin.version.sequence + 1);
    assert_eq!(own.over, Some(Override { instance: 1, late: false, place: String::new() }));
    assert!(probe.router.duplicate().is_none(), "it may be dead");
}

#[test]
fn a_proof_counts_once_however_it_comes_and_however_old_it_is() {
    for older in [false, true] {
        let mut probe = Probe::new();
        probe.sync("n");
        probe.router.set_place("192.0.2.1:1");
        let own = probe.held("me").unwrap().version;
        let over = Override { instance: own.instance, late: true, place: "192.0.2.2:2".to_owned() };
        let twin = of_twin(if older { 0 } else { own.sequence + 10 }, Some(over));
        let twin = if older { with_epoch(&twin, 1) } else { twin };
        for _ in 0..3 {
            probe.update("n", &twin);
            probe.wait(2_000);
        }
        let duplicate = Duplicate {
            own: Process { instance: own.instance, place: "192.0.2.1:1".to_owned() },
            other: Process { instance: 1, place: "192.0.2.2:2".to_owned() },
            yields: false,
        };
        assert_eq!(reports(&probe), [&duplicate]);
        assert_eq!(probe.router.duplicate(), Some(&duplicate));
        let now = probe.held("me").unwrap();
        assert!(now.version > twin.version);
        let over = Override { instance: 1, late: false, place: "192.0.2.1:1".to_owned() };
        assert_eq!(now.over, Some(over));
        assert_eq!(probe.router.counters().originations, 2, "one to say it, and one before");
    }
}

#[test]
fn one_that_yields_tells_the_other_and_is_silent_ever_after() {
    let mut probe = Probe::new();
    probe.sync("n");
    let own = probe.held("me").unwrap().version;
    // Instance 1 is the smaller one, and neither is late.
    let over = Override { instance: own.instance, late: false, place: String::new() };
    probe.update("n", &of_twin(own.sequence + 10, Some(over)));
    probe.wait(20);
    assert!(reports(&probe)[0].yields);
    let last = probe.held("me").unwrap().clone();
    assert_eq!(last.over.as_ref().map(|over| over.instance), Some(1));
    probe.router.set_capabilities(vec![1].into(), probe.now);
    probe.router.leave(probe.now);
    probe.update("n", &of_twin(own.sequence + 20, None));
    probe.wait(5_000);
    assert_eq!(probe.held("me"), Some(&last));
    assert_eq!(probe.up("m", NeighbourKind::Full), Err(SessionError::Leaving));
}

#[test]
fn a_yielded_node_takes_no_sessions() {
    let mut probe = Probe::new();
    probe.sync("n");
    let own = probe.held("me").unwrap().version;
    let over = Override { instance: own.instance, late: false, place: String::new() };
    probe.update("n", &of_twin(own.sequence + 10, Some(over)));
    probe.wait(20);
    assert_eq!(probe.up("m", NeighbourKind::Full), Err(SessionError::Yielded));
}

#[test]
fn of_two_that_sign_one_yields_whoever_issued_their_credentials() {
    in_both_modes(|| {
        for seed in 0..SIGNED_SEEDS {
            let _seed = PrintSeed(seed);
            let Some(mut scene) = newcomer(seed, signed_by_process) else { continue };
            scene.sim.settle();
            scene.assert_nobody_is_guilty();
            scene.assert_one_yielded(Some(TWIN));
        }
        for seed in 0..SIGNED_SEEDS {
            let _seed = PrintSeed(seed);
            let mut scene = apart(seed, signed_by_process);
            scene.join();
            scene.sim.settle();
            scene.assert_nobody_is_guilty();
            let larger = scene.larger();
            scene.assert_one_yielded(Some(&larger));
        }
    });
}

#[test]
fn a_proof_that_another_node_made_up_makes_nobody_yield() {
    for (credential, guilty) in [("liar#1", true), ("stranger:me#1", false)] {
        let mut probe =
            Probe::tuned(|config| config.notary = Some(Arc::new(Plain::of(&config.id))));
        probe.sync("n");
        probe.sync("liar");
        let own = probe.held("me").unwrap().clone();
        let over = Override {
            instance: own.version.instance,
            late: false,
            place: "192.0.2.2:2".to_owned(),
        };
        let notary = match guilty {
            true => Plain::of(&id("liar")),
            false => Plain::untrusted(&id("me"), "stranger"),
        };
        let forged = notary.seal(&of_twin(own.version.sequence + 10, Some(over)));
        probe.tell("liar", Message::Update(forged.advertisement().clone())).unwrap();
        let asked = Message::CredentialWant(vec![(id("me"), notary.name())]);
        assert!(probe.sent_to("liar").contains(&asked), "{credential}");
        let (origin, name) = (id("me"), notary.name());
        let given = Message::Credential { origin, name, credential: Some(credential.into()) };
        probe.tell("liar", given).unwrap();
        let violation =
            Event::Violation { neighbour: id("liar"), error: PeerError::Forged(id("me")) };
        assert_eq!(probe.events.contains(&violation), guilty, "{credential}");
        // Its stamp alone, too, is nothing that this node believes or overtakes.
        probe.tell("n", Message::Have(vec![entry(&forged)])).unwrap();
        probe.wait(600_000);
        assert_eq!(reports(&probe), [] as [&Duplicate; 0], "{credential}");
        assert_eq!(
            (probe.router.duplicate(), probe.held("me")),
            (None, Some(&own)),
            "{credential}"
        );
    }
}

#[test]
fn records_name_the_process_before_for_a_minute() {
    let mut probe = Probe::new();
    probe.up("n", NeighbourKind::Full).unwrap();
    probe.tell("n", Message::Digest { digest: Digest(1), count: 0 }).unwrap();
    let before = with_epoch(&of_twin(3, None), 5);
    let entries = vec![entry(&before)];
    probe.tell("n", Message::Summary { after: None, entries, last: true, buckets: None }).unwrap();
    probe.tell("n", Message::SyncEnd).unwrap();
    probe.wait(20);
    let over = Override { instance: 1, late: true, place: String::new() };
    assert_eq!(probe.held("me").unwrap().over, Some(over), "although its version is older");
    probe.wait(61_000);
    assert_eq!(probe.router.counters().originations, 1, "no record is made to say it no more");
    probe.router.set_capabilities(vec![1].into(), probe.now);
    assert_eq!(probe.held("me").unwrap().over, None);
}

/// No process that was proven to have a twin in this history.
pub(crate) fn assert_nobody_yielded(sim: &Sim) {
    let proofs: Vec<_> =
        sim.events.iter().filter(|(_, event)| matches!(event, Event::DuplicateId(_))).collect();
    assert!(proofs.is_empty(), "{proofs:?}");
}

/// Histories of twins that sign: what is told by signed records is the same, only later.
const SIGNED_SEEDS: u64 = 40;

/// Every process signs; two of one id have one credential, or each its own.
fn signed_by_process(config: &mut Config) {
    config.notary = Some(Arc::new(Plain::renewed(&config.id, 1 + (config.instance % 2) as u32)));
}

fn seeds() -> u64 {
    std::env::var("RECEPTOR_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

/// A mesh in which `n00` has a twin.
struct Scene {
    sim: Sim,
    rng: Rng,
    /// The twin's links when it starts.
    links: u64,
    /// What joins the parts of the mesh.
    bridges: Vec<(String, String)>,
}

/// A mesh that has come up.
fn mesh(seed: u64, rng: &mut Rng, tune: fn(&mut Config)) -> Sim {
    let mut sim = Sim::new(seed);
    sim.tune = tune;
    sim.latency = [(1, 1), (1, 20), (5, 100)][rng.below(3) as usize];
    grow(&mut sim, rng, "n");
    sim.run_for(Duration::from_secs(20));
    sim
}

fn grow(sim: &mut Sim, rng: &mut Rng, prefix: &str) {
    let count = 3 + rng.below(8) as usize;
    let name = |name: &str| format!("{prefix}{}", &name[1..]);
    sim.boot_all(topologies::names(count).iter().map(|n| name(n)));
    for (a, b) in topologies::random_mesh(count, rng) {
        sim.connect(&name(&a), &name(&b));
    }
}

/// A mesh that a second `n00` joins, at one or two nodes that are not linked to the first. None:
/// all are.
fn newcomer(seed: u64, tune: fn(&mut Config)) -> Option<Scene> {
    let mut rng = Rng::new(!seed);
    let mut sim = mesh(seed, &mut rng, tune);
    let own = id("n00");
    let free: Vec<_> =
        sim.living().into_iter().filter(|node| *node != own && !sim.linked(node, &own)).collect();
    let clock = rng.below(120_001) as i64 - 60_000;
    sim.boot_as(TWIN, "n00", clock);
    let mut links: Vec<NodeId> =
        (0..1 + rng.below(2)).filter_map(|_| rng.pick(&free).cloned()).collect();
    links.dedup();
    for node in &links {
        sim.connect(TWIN, node.as_str());
    }
    let count = links.len() as u64;
    (count > 0).then_some(Scene { sim, rng, links: count, bridges: Vec::new() })
}

/// Two meshes that have never met, with an `n00` in each, and bridges between them that are not up
/// yet.
fn apart(seed: u64, tune: fn(&mut Config)) -> Scene {
    let mut rng = Rng::new(!seed);
    let mut sim = mesh(seed, &mut rng, tune);
    grow(&mut sim, &mut rng, "m");
    let clock = rng.below(120_001) as i64 - 60_000;
    sim.boot_as(TWIN, "n00", clock);
    sim.connect(TWIN, "m00");
    if rng.chance(50) {
        sim.connect(TWIN, "m01");
    }
    let quiet = rng.millis(1_000, 100_000);
    sim.run_for(quiet);
    let side = |prefix: &str| -> Vec<NodeId> {
        let of_side = |node: &NodeId| node.as_str().starts_with(prefix) && *node != id("n00");
        sim.living().into_iter().filter(of_side).collect()
    };
    let (near, far) = (side("n"), side("m"));
    let bridge = |rng: &mut Rng| {
        let ends = [&near, &far].map(|side| rng.pick(side).unwrap().to_string());
        (ends[0].clone(), ends[1].clone())
    };
    let bridges = (0..1 + rng.below(3)).map(|_| bridge(&mut rng)).collect();
    Scene { sim, rng, links: 0, bridges }
}

impl Scene {
    /// Brings up the bridges that are not up.
    fn join(&mut self) {
        for (a, b) in &self.bridges {
            if !self.sim.linked(&id(a), &id(b)) {
                self.sim.connect(a, b);
            }
        }
    }

    /// What both processes have originated.
    fn originations(&self) -> [u64; 2] {
        ["n00", TWIN].map(|name| self.sim.router(name).counters().originations)
    }

    fn larger(&self) -> String {
        let instance = |name| self.sim.router(name).version().instance;
        if instance("n00") > instance(TWIN) { "n00" } else { TWIN }.to_owned()
    }

    /// All records were verified, and none was found to be forged.
    fn assert_nobody_is_guilty(&self) {
        for node in self.sim.nodes.values() {
            let counters = node.router.counters();
            assert!(counters.records_verified > 0);
            assert_eq!((counters.records_forged, counters.records_untrusted), (0, 0));
        }
    }

    /// Something else happens.
    fn disturb(&mut self, healing: &mut Vec<([NodeId; 2], [u32; 2])>) {
        let (sim, rng) = (&mut self.sim, &mut self.rng);
        let now = sim.now;
        match rng.below(4) {
            0 => {
                let far: Vec<_> = sim.living().into_iter().filter(|_| rng.chance(40)).collect();
                healing.extend(sim.partition(|node| far.contains(node), Seen::Within(300)));
            }
            1 => sim.heal(std::mem::take(healing)),
            2 => {
                let speaker = id(if rng.chance(50) { "n00" } else { TWIN });
                let text = rng.next().to_be_bytes().to_vec();
                sim.nodes.get_mut(&speaker).unwrap().capabilities = text.clone();
                sim.command(&speaker, |router| router.set_capabilities(text.into(), now));
            }
            _ => {
                let ends: Vec<_> = sim
                    .connections
                    .values()
                    .filter(|c| !c.broken)
                    .map(|c| c.ends.clone())
                    .collect();
                if let Some([a, b]) = rng.pick(&ends).cloned() {
                    sim.cut(&a, &b, Seen::Within(300));
                    healing.push(([a, b], [1, 1]));
                }
            }
        }
    }

    /// Exactly one yielded, and the mesh agrees on the record of the other. If `expected` names the
    /// one, nothing else disturbed the mesh, and the other one reported it as well.
    fn assert_one_yielded(mut self, expected: Option<&str>) {
        let reports: Vec<(&NodeId, &Duplicate)> = self
            .sim
            .events
            .iter()
            .filter_map(|(node, event)| match event {
                Event::DuplicateId(duplicate) => Some((node, duplicate)),
                _ => None,
            })
            .collect();
        let yielded: Vec<_> = reports.iter().filter(|(_, duplicate)| duplicate.yields).collect();
        assert_eq!(yielded.len(), 1, "{reports:?}");
        let loser = yielded[0].0.clone();
        let [own, twin] = ["n00", TWIN].map(|name| self.sim.router(name).version().instance);
        for (node, duplicate) in &reports {
            let (mine, other) = if node.as_str() == TWIN { (twin, own) } else { (own, twin) };
            let other_name = if node.as_str() == TWIN { "n00" } else { TWIN };
            assert_eq!(
                (duplicate.own.instance, duplicate.own.place.as_str()),
                (mine, node.as_str())
            );
            assert_eq!(
                (duplicate.other.instance, duplicate.other.place.as_str()),
                (other, other_name)
            );
            assert_eq!(duplicate.yields, **node == loser);
        }
        assert!(reports.len() <= 2, "each reports once: {reports:?}");
        if let Some(expected) = expected {
            assert_eq!(loser, id(expected));
            assert_eq!(reports.len(), 2, "both report: {reports:?}");
        }
        if loser == id("n00") {
            self.sim.rename(&id(TWIN));
        }
        assert_converged(&self.sim);
    }
}

/// A record of the probe's id by process 1.
fn of_twin(sequence: u64, over: Option<Override>) -> Record {
    let mut draft = draft("me", (1_000, sequence), vec![link("n", LinkClass::Active, 1)]);
    draft.over = over;
    draft.seal().unwrap()
}

fn with_epoch(record: &Record, epoch: u64) -> Record {
    let mut draft = (**record).clone();
    draft.version.epoch = epoch;
    draft.seal().unwrap()
}

fn reports(probe: &Probe) -> Vec<&Duplicate> {
    let mut duplicates = Vec::new();
    for event in &probe.events {
        if let Event::DuplicateId(duplicate) = event {
            duplicates.push(duplicate);
        }
    }
    duplicates
}
