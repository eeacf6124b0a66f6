//! Shapes of meshes: which nodes are linked, and where they are drawn.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Random,
    Line,
    Ring,
    Star,
    Full,
    Grid,
    Tree,
    Pods,
    Barbell,
    ScaleFree,
}

const ALL: [(&str, Shape); 10] = [
    ("random", Shape::Random),
    ("line", Shape::Line),
    ("ring", Shape::Ring),
    ("star", Shape::Star),
    ("full", Shape::Full),
    ("grid", Shape::Grid),
    ("tree", Shape::Tree),
    ("pods", Shape::Pods),
    ("barbell", Shape::Barbell),
    ("scale-free", Shape::ScaleFree),
];

/// Nodes of a pod.
pub(crate) const POD: usize = 32;

/// Links, by the numbers of their nodes, the lower first.
pub(crate) type Links = BTreeSet<(usize, usize)>;

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALL.iter().find(|(name, _)| *name == text).map(|(_, shape)| *shape);
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        found.ok_or_else(|| format!("{text:?} is no shape; allowed: {}", names.join(", ")))
    }
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    /// The links of a connected mesh of this shape.
    pub(crate) fn links(self, nodes: usize, degree: Option<usize>, rng: &mut Rng) -> Links {
        let mut links = Links::new();
        match self {
            Self::Random => random(&mut links, 0..nodes, degree.unwrap_or(8), rng),
            Self::Line => links.extend((1..nodes).map(|n| (n - 1, n))),
            Self::Ring => (0..nodes).for_each(|n| link(&mut links, n, (n + 1) % nodes)),
            Self::Star => links.extend((1..nodes).map(|n| (0, n))),
            Self::Full => full(&mut links, 0..nodes),
            Self::Grid => grid(&mut links, nodes),
            Self::Tree => links.extend((1..nodes).map(|n| ((n - 1) / degree.unwrap_or(2), n))),
            Self::Pods => pods(&mut links, nodes, degree.unwrap_or(8), rng),
            Self::Barbell => {
                full(&mut links, 0..nodes / 2);
                full(&mut links, nodes / 2..nodes);
                if nodes > 1 {
                    link(&mut links, (nodes / 2).saturating_sub(1), nodes / 2);
                }
            }
            Self::ScaleFree => scale_free(&mut links, nodes, degree.unwrap_or(8), rng),
        }
        links
    }

    /// The nodes that one more node, which has this number, links to.
    pub(crate) fn joins(self, newcomer: usize, rng: &mut Rng) -> Vec<usize> {
        let other = rng.below(newcomer);
        match self {
            Self::Star => vec![0],
            Self::Line => vec![newcomer - 1],
            _ if newcomer > 1 => vec![other, (other + 1 + rng.below(newcomer - 1)) % newcomer],
            _ => vec![other],
        }
    }
}

/// Side of the square that holds so many nodes.
pub(crate) fn side(nodes: usize) -> usize {
    (1..).find(|side| side * side >= nodes).unwrap_or(1)
}

fn link(links: &mut Links, a: usize, b: usize) {
    if a != b {
        links.insert((a.min(b), a.max(b)));
    }
}

/// A random tree, and random links until the mean degree is reached or all are linked.
fn random(links: &mut Links, nodes: std::ops::Range<usize>, degree: usize, rng: &mut Rng) {
    let (start, count) = (nodes.start, nodes.len());
    (1..count).for_each(|n| link(links, start + rng.below(n), start + n));
    let before = links.len().saturating_sub(count.saturating_sub(1));
    let wanted = before
        + (count * degree / 2).clamp(count.saturating_sub(1), count * count.saturating_sub(1) / 2);
    while links.len() < wanted {
        link(links, start + rng.below(count), start + rng.below(count));
    }
}

fn full(links: &mut Links, nodes: std::ops::Range<usize>) {
    for a in nodes.clone() {
        links.extend((a + 1..nodes.end).map(|b| (a, b)));
    }
}

fn grid(links: &mut Links, nodes: usize) {
    let side = side(nodes);
    for n in 0..nodes {
        if n % side + 1 < side && n + 1 < nodes {
            link(links, n, n + 1);
        }
        if n + side < nodes {
            link(links, n, n + side);
        }
    }
}

/// Random pods of 32; the first two nodes of each are linked to those of the next, around a ring.
fn pods(links: &mut Links, nodes: usize, degree: usize, rng: &mut Rng) {
    let starts: Vec<usize> = (0..nodes).step_by(POD).collect();
    for &start in &starts {
        random(links, start..(start + POD).min(nodes), degree, rng);
    }
    for (at, &start) in starts.iter().enumerate() {
        let next = starts[(at + 1) % starts.len()];
        link(links, start, next);
        if start + 1 < nodes && next + 1 < nodes && starts.len() > 1 {
            link(links, start + 1, next + 1);
        }
    }
}

/// Preferential attachment: each node links to some that are there, the well-linked ones first of
/// all.
fn scale_free(links: &mut Links, nodes: usize, degree: usize, rng: &mut Rng) {
    let each = (degree / 2).max(1);
    let mut ends: Vec<usize> = vec![0];
    for n in 1..nodes {
        let mut chosen = BTreeSet::new();
        while chosen.len() < each.min(n) {
            // Now and then anyone, so that the choice ends.
            let pick = if rng.below(8) == 0 { rng.below(n) } else { ends[rng.below(ends.len())] };
            chosen.insert(pick);
        }
        for other in chosen {
            link(links, other, n);
            ends.extend([other, n]);
        }
    }
}
