//! Shapes of meshes.

use crate::rng::Rng;

pub(crate) type Edges = Vec<(String, String)>;

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n:02}")).collect()
}

/// A ring of six with a chord: where the system that this one succeeds answered 14 to 26 of 30
/// pings.
pub(crate) fn ring_with_chord() -> Edges {
    let mut edges = ring(6);
    edges.push(("n00".into(), "n03".into()));
    edges
}

pub(crate) fn ring(count: usize) -> Edges {
    let names = names(count);
    (0..count).map(|n| (names[n].clone(), names[(n + 1) % count].clone())).collect()
}

pub(crate) fn line(count: usize) -> Edges {
    let names = names(count);
    (1..count).map(|n| (names[n - 1].clone(), names[n].clone())).collect()
}

pub(crate) fn star(count: usize) -> Edges {
    let names = names(count);
    (1..count).map(|n| (names[0].clone(), names[n].clone())).collect()
}

pub(crate) fn full(count: usize) -> Edges {
    let names = names(count);
    (0..count)
        .flat_map(|a| (0..a).map(move |b| (a, b)))
        .map(|(a, b)| (names[a].clone(), names[b].clone()))
        .collect()
}

pub(crate) fn grid(side: usize) -> Edges {
    let names = names(side * side);
    let right = (0..side * side).filter(|n| (n + 1) % side != 0).map(|n| (n, n + 1));
    let down = (0..side * (side - 1)).map(|n| (n, n + side));
    right.chain(down).map(|(a, b)| (names[a].clone(), names[b].clone())).collect()
}

/// As much of a grid as so many nodes fill, row by row.
pub(crate) fn grid_within(count: usize) -> Edges {
    let side = (1..).find(|side| side * side >= count).unwrap_or(1);
    let names = names(count);
    let right = (1..count).filter(|n| n % side != 0).map(|n| (n - 1, n));
    let down = (side..count).map(|n| (n - side, n));
    right.chain(down).map(|(a, b)| (names[a].clone(), names[b].clone())).collect()
}

/// Two hubs, linked, and the others on one of them in turn.
pub(crate) fn two_stars(count: usize) -> Edges {
    let names = names(count);
    (1..count).map(|n| (names[if n == 1 { 0 } else { n % 2 }].clone(), names[n].clone())).collect()
}

/// A controller; node1, node5 and node9 on it; three more below each.
pub(crate) fn tree_of_13() -> Edges {
    let mut edges = Vec::new();
    for relay in [1, 5, 9] {
        edges.push(("controller".into(), format!("node{relay}")));
        edges.extend((1..=3).map(|leaf| (format!("node{relay}"), format!("node{}", relay + leaf))));
    }
    edges
}

/// Thirteen nodes, irregular.
pub(crate) fn irregular_13() -> Edges {
    let lists: [(u32, &[u32]); 11] = [
        (1, &[0]),
        (2, &[1]),
        (3, &[6, 4]),
        (4, &[7, 2]),
        (5, &[8, 12]),
        (6, &[10, 3]),
        (7, &[3, 1]),
        (8, &[1]),
        (9, &[10, 5]),
        (10, &[12, 4]),
        (11, &[1]),
    ];
    let name = |n: u32| if n == 0 { "controller".to_owned() } else { format!("node{n}") };
    let mut edges: Edges =
        lists.iter().flat_map(|(a, bs)| bs.iter().map(|b| (name(*a), name(*b)))).collect();
    edges.extend([(name(12), name(11)), (name(12), name(0))]);
    edges
}

/// A random tree, and about half as many links again.
pub(crate) fn random_mesh(count: usize, rng: &mut Rng) -> Edges {
    let names = names(count);
    let mut edges: Edges = Vec::new();
    for n in 1..count {
        edges.push((names[rng.below(n as u64) as usize].clone(), names[n].clone()));
    }
    for _ in 0..count / 2 {
        let (a, b) = (rng.below(count as u64) as usize, rng.below(count as u64) as usize);
        let edge = (names[a.min(b)].clone(), names[a.max(b)].clone());
        if a != b && !edges.contains(&edge) {
            edges.push(edge);
        }
    }
    edges
}

pub(crate) fn nodes_of(edges: &Edges) -> Vec<String> {
    let mut names: Vec<String> = edges.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    names.sort();
    names.dedup();
    names
}
