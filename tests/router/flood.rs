//! How many payloads and ids an update takes, and that it does not matter who gets which.

use std::collections::BTreeMap;
use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::router::{Draft, FloodMode, Route};

use crate::cold_start::cold;
use crate::fuzz::{PrintSeed, history_of, provoke};
use crate::rng::Rng;
use crate::sim::{Sent, Sim};
use crate::topologies::{self, Edges};

/// Shapes of a quiet mesh, by name.
pub(crate) fn shapes() -> Vec<(&'static str, Edges)> {
    vec![
        ("two", topologies::line(2)),
        ("line of 12", topologies::line(12)),
        ("ring of 9", topologies::ring(9)),
        ("ring with a chord", topologies::ring_with_chord()),
        ("star of 30", topologies::star(30)),
        ("full mesh of 12", topologies::full(12)),
        ("grid of 7 x 7", topologies::grid(7)),
        ("tree of 13", topologies::tree_of_13()),
        ("irregular 13", topologies::irregular_13()),
        ("random 60", topologies::random_mesh(60, &mut Rng::new(60))),
    ]
}

#[test]
fn an_update_in_a_quiet_mesh_takes_one_payload_per_node_and_an_id_on_other_links() {
    for (name, edges) in shapes() {
        let mut sim = cold(1, &edges);
        // Announced before it comes by a slow way, a record would be pulled: here nothing is that
        // slow.
        sim.latency = (1, 10);
        let (nodes, links) = (sim.nodes.len() as u64, edges.len() as u64);
        for origin in sim.living() {
            let sent = update(&mut sim, &origin);
            assert_eq!((sent.payloads, sent.wants), (nodes - 1, 0), "{name}, {origin}");
            assert!(sent.ids <= 2 * (links + 1 - nodes), "{name}, {origin}: {sent:?}");
        }
    }
}

#[test]
fn full_flooding_takes_a_payload_on_every_link_both_ways_but_where_it_came_from() {
    let edges = topologies::grid(5);
    let mut sim = Sim::flooding(1, FloodMode::Full);
    start(&mut sim, &edges);
    let (nodes, links) = (25, edges.len() as u64);
    for origin in sim.living() {
        let sent = update(&mut sim, &origin);
        assert!(sent.payloads > nodes && sent.payloads < 2 * links + 2 - nodes, "{sent:?}");
        assert_eq!((sent.ids, sent.wants), (0, 0));
    }
}

/// Both ends tell, so twice as much as for one update.
#[test]
fn a_lost_link_takes_hardly_more_than_two_updates() {
    let mut total = Sent::default();
    let mut least = 0;
    for seed in 0..20 {
        let _seed = PrintSeed(seed);
        let edges = topologies::grid(6);
        let mut sim = cold(seed, &edges);
        sim.latency = (1, 10);
        let (a, b) = &edges[seed as usize % edges.len()];
        let before = sim.sent;
        sim.cut(&crate::sim::id(a), &crate::sim::id(b), crate::sim::Seen::Now);
        sim.run_for(Duration::from_secs(5));
        total = sum(total, difference(sim.sent, before));
        least += 2 * (sim.nodes.len() as u64 - 1);
    }
    println!("{total:?}, at least {least} payloads");
    assert!(total.payloads * 100 <= least * 105, "{total:?}, at least {least}");
}

#[test]
fn a_cold_start_takes_hardly_more_than_one_payload_per_record_and_node() {
    let edges = topologies::random_mesh(60, &mut Rng::new(60));
    let sent = [FloodMode::Full, FloodMode::Tree].map(|mode| {
        let mut sim = Sim::flooding(1, mode);
        start(&mut sim, &edges);
        sim.sent
    });
    println!("full {:?}, tree {:?}", sent[0], sent[1]);
    assert!(sent[0].payloads <= 2 * 60 * 60 && sent[1].payloads * 10 <= 60 * 60 * 12, "{sent:?}");
}

#[test]
fn a_full_mesh_starts_cold_with_one_payload_per_record_and_node() {
    for seed in 0..3 {
        let mut sim = Sim::flooding(seed, FloodMode::Tree);
        start(&mut sim, &topologies::full(40));
        println!("seed {seed}: {:?}", sim.sent);
        assert!(sim.sent.payloads * 10 <= 40 * 40 * 12, "seed {seed}: {:?}", sim.sent);
    }
}

#[test]
fn both_modes_end_in_the_same_state() {
    for seed in 0..75 {
        let sims = [FloodMode::Full, FloodMode::Tree]
            .map(|mode| history_of(Sim::flooding(seed, mode), seed, provoke));
        assert_eq!(state(&sims[0]), state(&sims[1]), "seed {seed}");
    }
}

#[test]
fn random_choices_of_who_gets_payloads_end_in_agreement() {
    for seed in 2_000..2_300 {
        let mut sim = Sim::new(seed);
        sim.random_eager = true;
        history_of(sim, seed, provoke);
    }
}

/// One update, and what it took; the comparison of digests is not counted.
pub(crate) fn update(sim: &mut Sim, origin: &NodeId) -> Sent {
    let (now, before) = (sim.now, sim.sent);
    let text = now.duration_since(sim.start).as_nanos().to_be_bytes().to_vec();
    sim.nodes.get_mut(origin).unwrap().capabilities = text.clone();
    sim.command(origin, |router| router.set_capabilities(text.into(), now));
    sim.run_for(Duration::from_secs(5));
    difference(sim.sent, before)
}

pub(crate) fn start(sim: &mut Sim, edges: &Edges) {
    sim.boot_all(topologies::nodes_of(edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(20));
    crate::reference::assert_converged(sim);
}

pub(crate) fn difference(after: Sent, before: Sent) -> Sent {
    Sent {
        payloads: after.payloads - before.payloads,
        deltas: after.deltas - before.deltas,
        ids: after.ids - before.ids,
        wants: after.wants - before.wants,
        echoes: after.echoes - before.echoes,
        bytes: after.bytes - before.bytes,
    }
}

fn sum(a: Sent, b: Sent) -> Sent {
    Sent {
        payloads: a.payloads + b.payloads,
        deltas: a.deltas + b.deltas,
        ids: a.ids + b.ids,
        wants: a.wants + b.wants,
        echoes: a.echoes + b.echoes,
        bytes: a.bytes + b.bytes,
    }
}

/// What living nodes route, and what their own records say but for the version. Whether a node that
/// is alone has spoken before depends on how fast it synced.
fn state(sim: &Sim) -> BTreeMap<NodeId, (Vec<Route>, Option<Draft>)> {
    let of = |name: &NodeId| {
        let router = &sim.nodes[name].router;
        let own =
            router.database().find(|record| record.origin == *name && !record.links.is_empty());
        let own = own.map(|record| Draft {
            version: Default::default(),
            over: None,
            ..(**record).clone()
        });
        (router.table().iter().cloned().collect(), own)
    };
    sim.living().into_iter().map(|name| (name.clone(), of(&name))).collect()
}
