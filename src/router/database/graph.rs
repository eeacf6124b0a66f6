//! The two-way edges between the records of the database, kept up to date record by record.

use std::ops::Bound;
use std::sync::OnceLock;

use crate::id::NodeId;
use crate::router::database::by_id::ById;
use crate::router::database::csr::Csr;
use crate::router::database::vertex::{Edge, Vertex};
use crate::router::record::Record;
use crate::router::record::draft::LinkClass;

/// The graph of edges that both ends list as active. Nodes have dense numbers, so that path finding
/// touches no names.
///
/// Numbers depend on history; nothing that leaves the router may depend on them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    vertices: ById<Vertex>,
    edges: usize,
    /// Grows whenever nodes or edges come or go.
    generation: u64,
    /// Made when it is asked for, and thrown away when it is no longer true.
    csr: OnceLock<Csr>,
}

/// What a change of the graph asks for: the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    #[default]
    None,
    /// New routes to stubs, over the same paths.
    Stubs,
    /// New paths.
    Paths,
}

impl Graph {
    /// Puts a record in, in place of an older one of the same origin. Gives the number of the
    /// origin, too.
    pub(crate) fn insert(&mut self, record: Record) -> (u32, Effect) {
        let (number, new) = match self.vertices.number(&record.origin) {
            Some(number) => (number, false),
            None => (self.add(&record), true),
        };
        let vertex = &mut self.vertices[number];
        let transit = record.transit && vertex.permitted;
        if record.links == vertex.record.links && transit == vertex.transit && !new {
            vertex.record = record;
            return (number, Effect::None);
        }
        let edges = self.two_way(&record);
        let vertex = &mut self.vertices[number];
        let differ = edges != vertex.edges;
        let stubs_differ = !vertex.record.stubs().eq(record.stubs());
        let effect = match differ || transit != vertex.transit {
            true => Effect::Paths,
            false if stubs_differ => Effect::Stubs,
            false => Effect::None,
        };
        if vertex.transit != transit {
            self.csr.take();
        }
        vertex.transit = transit;
        vertex.stubs = record.stubs().next().is_some();
        vertex.record = record;
        if differ {
            self.changed();
            self.unlink(number);
            self.link(number, edges);
        }
        (number, effect)
    }

    /// Says whether this node permits transit through an origin.
    pub(crate) fn permit(&mut self, origin: &NodeId, permitted: bool) -> Effect {
        let Some(number) = self.vertices.number(origin) else { return Effect::None };
        let vertex = &mut self.vertices[number];
        vertex.permitted = permitted;
        let transit = vertex.record.transit && permitted;
        if std::mem::replace(&mut vertex.transit, transit) == transit {
            return Effect::None;
        }
        self.csr.take();
        Effect::Paths
    }

    /// Whether this node permits transit through an origin, whatever that says itself. Of an
    /// unknown one it is not known.
    pub(crate) fn is_permitted(&self, origin: &NodeId) -> Option<bool> {
        self.number(origin).map(|number| self.vertex(number).permitted)
    }

    /// Takes a record out. Gives it, and the number that its origin had.
    pub(crate) fn remove(&mut self, origin: &NodeId) -> Option<(u32, Record)> {
        let number = self.vertices.number(origin)?;
        self.changed();
        self.unlink(number);
        self.vertices.remove(origin).map(|vertex| (number, vertex.record))
    }

    /// The record of an origin.
    pub(crate) fn record(&self, origin: &NodeId) -> Option<&Record> {
        self.number(origin).map(|number| &self.vertex(number).record)
    }

    pub(crate) fn number(&self, id: &NodeId) -> Option<u32> {
        self.vertices.number(id)
    }

    pub(crate) fn vertex(&self, number: u32) -> &Vertex {
        &self.vertices[number]
    }

    /// The same id, as it is held here.
    pub(crate) fn held(&self, id: &NodeId) -> Option<&NodeId> {
        self.number(id).map(|number| self.id(number))
    }

    pub(crate) fn id(&self, number: u32) -> &NodeId {
        self.vertices.id(number)
    }

    /// Names and numbers, ascending by name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&NodeId, u32)> {
        self.vertices.numbers()
    }

    /// Numbers from `start` on, ascending by name.
    pub(crate) fn numbers_from(&self, start: Bound<&NodeId>) -> impl Iterator<Item = u32> {
        self.vertices.numbers_from(start)
    }

    /// One more than the largest number.
    pub(crate) fn bound(&self) -> usize {
        self.vertices.bound()
    }

    pub(crate) fn node_count(&self) -> usize {
        self.vertices.len()
    }

    /// Directed edges: two for each pair.
    pub(crate) fn edge_count(&self) -> usize {
        self.edges
    }

    /// The same as long as the same nodes have the same numbers and edges.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The edges that lead on, for a search of all of them.
    pub(crate) fn csr(&self) -> &Csr {
        self.csr.get_or_init(|| Csr::new(self.vertices.slots(), self.edges))
    }

    fn changed(&mut self) {
        self.generation += 1;
        self.csr.take();
    }

    fn add(&mut self, record: &Record) -> u32 {
        self.changed();
        let (transit, stubs) = (record.transit, record.stubs().next().is_some());
        let addr = record.addr();
        let vertex = Vertex {
            record: record.clone(),
            transit,
            permitted: true,
            stubs,
            addr,
            edges: Vec::new(),
        };
        self.vertices.insert(record.origin.clone(), vertex)
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

    fn link(&mut self, number: u32, edges: Vec<Edge>) {
        self.edges += 2 * edges.len();
        for edge in &edges {
            let back = &mut self.vertices[edge.to].edges;
            let at = back.partition_point(|other| other.to < number);
            back.insert(at, Edge { to: number, cost: edge.cost });
        }
        self.vertices[number].edges = edges;
    }

    fn unlink(&mut self, number: u32) {
        let edges = std::mem::take(&mut self.vertices[number].edges);
        self.edges -= 2 * edges.len();
        for edge in &edges {
            let back = &mut self.vertices[edge.to].edges;
            if let Ok(at) = back.binary_search_by_key(&number, |other| other.to) {
                back.remove(at);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Cost, Version};
    use crate::router::record::draft::{Draft, Link};

    #[test]
    fn an_edge_needs_both_ends_and_costs_what_the_dearer_end_says() {
        let mut graph = Graph::default();
        assert_eq!(graph.insert(record("a", &[("b", 3)])).1, Effect::None);
        assert_eq!(graph.edge_count(), 0);
        assert_eq!(graph.insert(record("b", &[("a", 5), ("c", 1)])).1, Effect::Paths);
        let a = graph.vertex(graph.number(&id("a")).unwrap());
        assert_eq!(a.edges, [Edge { to: graph.number(&id("b")).unwrap(), cost: 5 }]);
        let (_, effect) = graph.insert(record("b", &[("a", 5)]));
        assert_eq!(effect, Effect::None, "a one-way claim changes no path");
        assert_eq!(graph.insert(record("b", &[])).1, Effect::Paths);
        assert_eq!(graph.edge_count(), 0);
    }

    #[test]
    fn numbers_of_removed_nodes_are_used_again() {
        let mut graph = Graph::default();
        for round in 0..10 {
            graph.insert(record("a", &[("b", 1)]));
            graph.insert(record(&format!("n{round}"), &[]));
            graph.insert(record("b", &[("a", 1)]));
            assert!(graph.remove(&id("b")).is_some());
            assert!(graph.remove(&id(&format!("n{round}"))).is_some());
        }
        assert_eq!((graph.bound(), graph.node_count(), graph.edge_count()), (3, 1, 0));
    }

    #[test]
    fn the_copy_of_the_edges_follows_every_change() {
        let mut graph = Graph::default();
        let check = |graph: &Graph| {
            for (_, number) in graph.nodes() {
                let vertex = graph.vertex(number);
                let expected = if vertex.transit { &vertex.edges[..] } else { &[] };
                assert_eq!(graph.csr().edges(number), expected);
                assert_eq!(graph.csr().ends_only().contains(&number), !vertex.transit);
            }
        };
        for name in ["a", "b", "c"] {
            let others = ["a", "b", "c"].map(|other| (other, 2));
            let others: Vec<_> = others.into_iter().filter(|(other, _)| *other != name).collect();
            graph.insert(record(name, &others));
            check(&graph);
        }
        let refuses = Draft { transit: false, ..Draft::clone(&graph.vertex(1).record) };
        graph.insert(refuses.seal().unwrap());
        check(&graph);
        graph.insert(record("c", &[("a", 3), ("b", 3)]));
        check(&graph);
        graph.remove(&id("a"));
        check(&graph);
        graph.insert(record("d", &[]));
        check(&graph);
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

    pub(crate) fn graph(records: Vec<Record>) -> Graph {
        let mut graph = Graph::default();
        for record in records {
            graph.insert(record);
        }
        graph
    }

    pub(crate) fn id(text: &str) -> NodeId {
        text.try_into().unwrap()
    }
}
