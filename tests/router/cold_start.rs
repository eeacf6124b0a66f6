//! All nodes start at once, and everybody reaches everybody.

use std::time::Duration;

use receptor_quic::router::DeadlineReason;

use crate::reference::assert_converged;
use crate::sim::{Sent, Sim, in_both_modes};
use crate::topologies::{self, Edges};

#[test]
fn an_irregular_mesh_a_line_and_a_ring_start_cold() {
    in_both_modes(|| {
        for edges in [topologies::irregular_13(), topologies::line(12), topologies::ring(9)] {
            (0..10).for_each(|seed| assert_converged(&cold(seed, &edges)));
        }
    });
}

#[test]
fn an_hour_without_events_sends_one_audit_a_link_and_end() {
    in_both_modes(|| {
        let mut sim = cold(7, &topologies::irregular_13());
        let links = sim.connections.values().filter(|connection| !connection.broken).count() as u64;
        let sent = sim.sent;
        let before = sim.messages;
        sim.run_for(Duration::from_secs(3600));
        assert_eq!(sim.messages - before, 2 * links);
        assert_eq!(
            Sent { bytes: 0, ..sim.sent },
            Sent { bytes: 0, ..sent },
            "no update, id or pull"
        );
        assert_converged(&sim);
        for node in sim.nodes.values() {
            let counters = node.router.counters();
            assert_eq!((counters.audit_mismatches, counters.records_corrupted), (0, 0));
            let reason = node.router.poll_timeout().map(|deadline| deadline.reason);
            assert_eq!(reason, Some(DeadlineReason::Audit), "nothing is left to be forgotten");
        }
    });
}

/// A mesh that has started, with a second of virtual time to do so.
pub(crate) fn cold(seed: u64, edges: &Edges) -> Sim {
    let _seed = crate::fuzz::PrintSeed(seed);
    let mut sim = Sim::new(seed);
    sim.boot_all(topologies::nodes_of(edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(2));
    for node in sim.nodes.values() {
        assert_eq!(
            node.router.table().len(),
            sim.nodes.len() - 1,
            "{} after two seconds",
            node.router.id()
        );
    }
    sim.run_for(Duration::from_secs(20));
    sim
}
