//! The two-way edges between the records of the database, kept up to date record by record.

use std::collections::BTreeMap;

use super::record::{LinkClass, Record};
use crate::id::NodeId;

/// The graph of edges that both ends list as active. Nodes have dense numbers, so that path finding touches no names.
///
/// Numbers depend on history; nothing that leaves the router may depend on them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    numbers: BTreeMap<NodeId, u32>,
    vertices: Vec<Option<Vertex>>,
    free: Vec<u32>,
    edges: usize,
    /// Grows whenever nodes or edges come or go.
    generation: u64,
}

#[derive(Debug)]
pub(crate) struct Vertex {
    pub(crate) record: Record,
    /// Ascending by `to`.
    pub(crate) edges: Vec<Edge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: u32,
    /// The larger of what both ends say.
    pub(crate) cost: u32,
}

impl Graph {
    /// Puts a record in, in place of an older one of the same origin. Says whether paths may have changed.
    pub(crate) fn insert(&mut self, record: Record) -> bool {
        let number = match self.numbers.get(&record.origin) {
            Some(&number) => number,
            None => self.add(&record),
        };
        let edges = self.two_way(&record);
        let vertex = self.vertices[number as usize].as_mut().expect("numbers in the index are in use");
        let stubs_differ = !vertex.record.stubs().eq(record.stubs());
        self.generation += u64::from(edges != vertex.edges);
        let changed = edges != vertex.edges || record.transit != vertex.record.transit || stubs_differ;
        vertex.record = record;
        let before = std::mem::replace(&mut vertex.edges, edges.clone());
        self.unlink(number, &before);
        self.link(number, &edges);
        changed
    }

    /// Takes a record out. Says whether paths may have changed.
    pub(crate) fn remove(&mut self, origin: &NodeId) -> bool {
        let Some(number) = self.numbers.remove(origin) else { return false };
        let vertex = self.vertices[number as usize].take().expect("numbers in the index are in use");
        self.free.push(number);
        self.generation += 1;
        self.unlink(number, &vertex.edges);
        !vertex.edges.is_empty() || vertex.record.stubs().next().is_some()
    }

    pub(crate) fn number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn vertex(&self, number: u32) -> &Vertex {
        self.vertices[number as usize].as_ref().expect("only numbers of this graph are asked for")
    }

    pub(crate) fn id(&self, number: u32) -> &NodeId {
        &self.vertex(number).record.origin
    }

    /// Names and numbers, ascending by name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&NodeId, u32)> {
        self.numbers.iter().map(|(id, &number)| (id, number))
    }

    /// One more than the largest number.
    pub(crate) fn bound(&self) -> usize {
        self.vertices.len()
    }

    pub(crate) fn node_count(&self) -> usize {
        self.numbers.len()
    }

    /// Directed edges: two for each pair.
    pub(crate) fn edge_count(&self) -> usize {
        self.edges
    }

    /// The same as long as the same nodes have the same numbers and edges.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn add(&mut self, record: &Record) -> u32 {
        let vertex = Some(Vertex { record: record.clone(), edges: Vec::new() });
        let number = match self.free.pop() {
            Some(number) => {
                self.vertices[number as usize] = vertex;
                number
            }
            None => {
                self.vertices.push(vertex);
                u32::try_from(self.vertices.len() - 1).expect("the number of origins is bounded")
            }
        };
        self.numbers.insert(record.origin.clone(), number);
        self.generation += 1;
        number
    }

    fn two_way(&self, record: &Record) -> Vec<Edge> {
        let mut edges: Vec<Edge> = record
            .links
            .iter()
            .filter(|link| link.class == LinkClass::Active)
            .filter_map(|link| {
                let to = self.number(&link.peer)?;
                let theirs = self.vertex(to).record.active(&record.origin)?;
                Some(Edge { to, cost: link.cost.max(theirs).get() })
            })
            .collect();
        edges.sort_unstable_by_key(|edge| edge.to);
        edges
    }

    fn link(&mut self, number: u32, edges: &[Edge]) {
        self.edges += 2 * edges.len();
        for edge in edges {
            let back = self.edges_of(edge.to);
            let at = back.partition_point(|other| other.to < number);
            back.insert(at, Edge { to: number, cost: edge.cost });
        }
    }

    fn unlink(&mut self, number: u32, edges: &[Edge]) {
        self.edges -= 2 * edges.len();
        for edge in edges {
            let back = self.edges_of(edge.to);
            if let Ok(at) = back.binary_search_by_key(&number, |other| other.to) {
                back.remove(at);
            }
        }
    }

    fn edges_of(&mut self, number: u32) -> &mut Vec<Edge> {
        &mut self.vertices[number as usize].as_mut().expect("edges end at numbers in use").edges
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Cost, Version};
    use crate::router::record::{Draft, Link};

    #[test]
    fn an_edge_needs_both_ends_and_costs_what_the_dearer_end_says() {
        let mut graph = Graph::default();
        assert!(!graph.insert(record("a", &[("b", 3)])));
        assert_eq!(graph.edge_count(), 0);
        assert!(graph.insert(record("b", &[("a", 5), ("c", 1)])));
        let a = graph.vertex(graph.number(&id("a")).unwrap());
        assert_eq!(a.edges, [Edge { to: graph.number(&id("b")).unwrap(), cost: 5 }]);
        assert!(!graph.insert(record("b", &[("a", 5)])), "a one-way claim changes no path");
        assert!(graph.insert(record("b", &[])));
        assert_eq!(graph.edge_count(), 0);
    }

    #[test]
    fn numbers_of_removed_nodes_are_used_again() {
        let mut graph = Graph::default();
        for round in 0..10 {
            graph.insert(record("a", &[("b", 1)]));
            graph.insert(record(&format!("n{round}"), &[]));
            graph.insert(record("b", &[("a", 1)]));
            assert!(graph.remove(&id("b")));
            assert!(!graph.remove(&id(&format!("n{round}"))));
        }
        assert_eq!((graph.bound(), graph.node_count(), graph.edge_count()), (3, 1, 0));
    }

    /// A record with active links, for the tests of this part.
    pub(crate) fn record(origin: &str, links: &[(&str, u32)]) -> Record {
        let mut links: Vec<Link> = links
            .iter()
            .map(|&(peer, cost)| Link {
                peer: id(peer),
                class: LinkClass::Active,
                cost: Cost::try_from(cost).unwrap(),
            })
            .collect();
        links.sort_by(|a, b| a.peer.cmp(&b.peer));
        let version = Version { epoch: 1, sequence: 1, instance: 1 };
        let (capabilities, origin) = (Bytes::new(), id(origin));
        Draft { links, capabilities, ..Draft::new(origin, version) }.seal().unwrap()
    }

    pub(crate) fn id(text: &str) -> NodeId {
        text.try_into().unwrap()
    }
}
