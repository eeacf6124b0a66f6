//! One case: a world, its history, and what must hold at the end.

use std::time::Duration;

use receptor_quic::router::DeadlineReason;

use super::step::Step;
use super::ways::{Hurry, Ways};
use crate::reference::{Reference, assert_converged};
use crate::rng::Rng;
use crate::sim::Sim;
use crate::topologies;

/// A world and its history.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) ways: Ways,
    pub(super) steps: Vec<Step>,
}

impl Case {
    pub(super) fn of(seed: u64, ways: Ways) -> Self {
        let rng = &mut Rng::new(!seed);
        let most = if rng.chance(20) { 56 } else { 20 };
        let count = 5 + rng.below(most);
        let steps = (0..count).map(|_| Step::draw(rng));
        let steps =
            steps.filter(|step| ways.hurry != Hurry::Racing || !step.what.delays()).collect();
        Self { seed, ways, steps }
    }

    pub(super) fn play(&self, journal: bool) -> Sim {
        let mut sim = self.ways.world(self.seed);
        if journal {
            sim.keep_journal();
        }
        let rng = &mut Rng::new(self.seed.wrapping_mul(31));
        sim.boot_all(topologies::names(self.ways.nodes));
        for (a, b) in self.ways.edges(rng) {
            sim.connect_cost(&a, &b, 1 + rng.below(3) as u32, 1 + rng.below(3) as u32);
        }
        let mut healing = Vec::new();
        for step in &self.steps {
            step.play(&mut sim, &self.ways, &mut healing);
        }
        sim.heal(healing);
        sim.settle();
        assert_converged(&sim);
        assert_nothing_is_left_behind(&mut sim);
        sim
    }
}

/// When all is forgotten that is to be forgotten, each router holds what its part of the mesh makes
/// it hold, and no more.
fn assert_nothing_is_left_behind(sim: &mut Sim) {
    let said = |sim: &Sim| (sim.sent.payloads, sim.sent.deltas, sim.sent.ids, sim.sent.wants);
    let before = said(sim);
    sim.run_for(Duration::from_secs(2_000));
    assert_eq!(said(sim), before, "something was said in a quiet mesh");
    let reference = Reference::of(sim);
    for id in sim.living() {
        let router = &sim.nodes[&id].router;
        let sizes = router.sizes();
        let (component, stubs) = (reference.component(&id), sim.nodes[&id].stubs.len());
        let links = reference.links(&id);
        // A node that is alone has spoken only if it synced with somebody before.
        let spoken = router.database().any(|record| record.origin == id);
        assert!(spoken || (component.len() == 1 && stubs == 0), "{id} has said nothing");
        assert_eq!(sizes.records, component.len() - 1 + usize::from(spoken), "records of {id}");
        assert_eq!(sizes.vertices, sizes.records, "vertices of {id}");
        assert_eq!(sizes.sessions, links + stubs, "sessions of {id}");
        let waits = (sizes.owed, sizes.pulls, sizes.parked, sizes.unproven);
        assert_eq!(waits, (0, 0, 0, 0), "{id} waits: {sizes:?}");
        assert!(sizes.credentials <= 2 * (sizes.records + 1), "{id} keeps credentials: {sizes:?}");
        assert_eq!(
            (sizes.flaps, sizes.collisions, sizes.events),
            (0, 0, 0),
            "{id} remembers: {sizes:?}"
        );
        assert!(sizes.trees <= sizes.records + 1, "{id} keeps trees: {sizes:?}");
        let rests = |reason| {
            matches!(
                reason,
                DeadlineReason::Expire | DeadlineReason::Audit | DeadlineReason::Attachment
            )
        };
        let deadline = router.poll_timeout();
        assert!(deadline.is_none_or(|deadline| rests(deadline.reason)), "{id}: {deadline:?}");
    }
}
