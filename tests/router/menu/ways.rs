//! The ways of a world: what stays the same through a whole history.

use std::sync::Arc;
use std::time::Duration;

use receptor_quic::router::{Config, FloodMode};

use crate::notary::Plain;
use crate::rng::Rng;
use crate::sim::{Embedder, Sim};
use crate::topologies::{self, Edges};

/// The ways of a world: what stays the same through a whole history.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) shape: Shape,
    pub(super) nodes: usize,
    pub(super) flood: Flooding,
    pub(super) random_eager: bool,
    pub(super) seen_ids: SeenIds,
    /// Messages per window.
    pub(super) window: usize,
    pub(super) hurry: Hurry,
    /// Records are signed, by the plain notary.
    pub(super) signed: bool,
    pub(super) deltas: Part,
    pub(super) buckets: Part,
    /// Digests under fresh keys every minute.
    pub(super) audits: bool,
    /// Latency and drain, in milliseconds.
    pub(super) latency: (u64, u64),
    pub(super) drain: (u64, u64),
    pub(super) embedder: Embedder,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Random,
    Line,
    Ring,
    Star,
    Full,
    Grid,
    TwoStars,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Flooding {
    Full,
    Tree,
    /// Each process has its own.
    Mixed,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SeenIds {
    Default,
    None,
    One,
    Unlimited,
    /// Each process has its own.
    Mixed,
}

/// Whether something is done that needs larger meshes by default.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Only in large meshes, or for large records.
    Default,
    /// As often as possible.
    Always,
    /// Each process has its own mind.
    Mixed,
}

/// How soon things are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hurry {
    /// As by default.
    Patient,
    /// Soon after a partition.
    Short,
    /// As soon as records have gone round. Nothing is slower than usual then.
    Racing,
}

impl Ways {
    pub(super) fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x5741_5953);
        let large = rng.chance(20);
        let (nodes, shape) = (3 + rng.below(if large { 22 } else { 7 }) as usize, Shape::of(rng));
        Self {
            shape,
            nodes: if matches!(shape, Shape::Full) { nodes.min(10) } else { nodes },
            flood: [Flooding::Full, Flooding::Tree, Flooding::Tree, Flooding::Mixed]
                [rng.below(4) as usize],
            random_eager: rng.chance(20),
            seen_ids: SeenIds::of(rng),
            window: [32, 32, 4, 1][rng.below(4) as usize],
            hurry: [Hurry::Patient, Hurry::Short, Hurry::Short, Hurry::Racing]
                [rng.below(4) as usize],
            signed: rng.chance(40),
            deltas: Part::of(rng),
            buckets: Part::of(rng),
            audits: rng.chance(10),
            latency: [(0, 0), (1, 1), (1, 20), (5, 100), (20, 400)][rng.below(5) as usize],
            drain: [(0, 0), (0, 5), (0, 5), (20, 100)][rng.below(4) as usize],
            embedder: if rng.chance(50) { Embedder::Loses } else { Embedder::Drops },
        }
    }

    pub(super) fn sloppy(seed: u64) -> Self {
        Self { embedder: Embedder::Sloppy, ..Self::of(seed) }
    }

    pub(super) fn edges(&self, rng: &mut Rng) -> Edges {
        match self.shape {
            Shape::Random => topologies::random_mesh(self.nodes, rng),
            Shape::Line => topologies::line(self.nodes),
            Shape::Ring => topologies::ring(self.nodes),
            Shape::Star => topologies::star(self.nodes),
            Shape::Full => topologies::full(self.nodes),
            Shape::Grid => topologies::grid_within(self.nodes),
            Shape::TwoStars => topologies::two_stars(self.nodes),
        }
    }

    /// A world of these ways, without nodes.
    pub(super) fn world(&self, seed: u64) -> Sim {
        let mut sim = Sim::flooding(seed, FloodMode::Tree);
        sim.random_eager = self.random_eager;
        sim.latency = self.latency;
        sim.drain = self.drain;
        sim.embedder = self.embedder;
        let ways = self.clone();
        sim.vary = Some(Box::new(move |config, rng| ways.configure(config, rng)));
        sim
    }

    /// What a record takes around the longest cycle, with a pull at every hop, in milliseconds.
    /// What is deleted sooner can go round for ever.
    fn cycle(&self) -> u64 {
        (self.nodes as u64 + 3) * (3 * (self.latency.1 + self.drain.1) + 150)
    }

    fn configure(&self, config: &mut Config, rng: &mut Rng) {
        let modes = [FloodMode::Full, FloodMode::Tree];
        config.flood = match self.flood {
            Flooding::Full => FloodMode::Full,
            Flooding::Tree => FloodMode::Tree,
            Flooding::Mixed => modes[rng.below(2) as usize],
        };
        let limits = &mut config.limits;
        let sizes = [limits.seen_ids, 0, 1, usize::MAX];
        limits.seen_ids = match self.seen_ids {
            SeenIds::Default => sizes[0],
            SeenIds::None => sizes[1],
            SeenIds::One => sizes[2],
            SeenIds::Unlimited => sizes[3],
            SeenIds::Mixed => sizes[rng.below(4) as usize],
        };
        limits.window_messages = self.window;
        if self.deltas.is_forced(rng) {
            (limits.delta_over, limits.delta_percent) = (0, 10_000);
        }
        if self.buckets.is_forced(rng) {
            limits.whole_summary = 1;
        }
        if self.signed {
            config.notary = Some(Arc::new(Plain::of(&config.id)));
        }
        if self.audits {
            config.timers.audit = Duration::from_secs(60);
        }
        let (withhold, delete, tombstone) = match self.hurry {
            Hurry::Patient => return,
            Hurry::Short => (1_500, 10_000 + self.cycle(), 10_000 + self.cycle()),
            Hurry::Racing => (50, 1_000 + self.cycle(), 1_000 + self.cycle()),
        };
        config.timers.withhold = Duration::from_millis(withhold);
        config.timers.delete = Duration::from_millis(delete);
        config.timers.tombstone = Duration::from_millis(tombstone);
    }
}

impl Shape {
    fn of(rng: &mut Rng) -> Self {
        match rng.below(12) {
            0 => Self::Line,
            1 => Self::Ring,
            2 => Self::Star,
            3 => Self::Full,
            4 => Self::Grid,
            5 => Self::TwoStars,
            _ => Self::Random,
        }
    }
}

impl Part {
    fn of(rng: &mut Rng) -> Self {
        [Self::Default, Self::Always, Self::Mixed][rng.below(3) as usize]
    }

    fn is_forced(self, rng: &mut Rng) -> bool {
        match self {
            Self::Default => false,
            Self::Always => true,
            Self::Mixed => rng.chance(50),
        }
    }
}

impl SeenIds {
    fn of(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0 => Self::None,
            1 => Self::One,
            2 => Self::Unlimited,
            3 => Self::Mixed,
            _ => Self::Default,
        }
    }
}
