//! The edges of the graph in one piece, for searches that visit all of them.

use crate::router::database::vertex::{Edge, Vertex};

/// A compressed sparse row copy of the edges that lead on: vertices that refuse transit have none.
///
/// It takes four bytes a vertex and eight a directed edge. In the graph itself each vertex and its
/// edges lie somewhere else in memory, and to fetch them is most of what a search of a large graph
/// does.
#[derive(Debug)]
pub(crate) struct Csr {
    /// Where the edges of a vertex stop; they begin where those of the one before stop.
    stops: Vec<u32>,
    edges: Vec<Edge>,
    /// The vertices that refuse transit.
    ends_only: Vec<u32>,
}

impl Csr {
    /// Of what there is by number, and room for that many edges.
    pub(crate) fn new<'a>(
        vertices: impl Iterator<Item = Option<&'a Vertex>>,
        edges: usize,
    ) -> Self {
        let mut csr =
            Self { stops: Vec::new(), edges: Vec::with_capacity(edges), ends_only: Vec::new() };
        for (number, vertex) in (0..).zip(vertices) {
            match vertex {
                Some(vertex) if vertex.transit => csr.edges.extend_from_slice(&vertex.edges),
                Some(_) => csr.ends_only.push(number),
                None => {}
            }
            csr.stops.push(
                u32::try_from(csr.edges.len()).expect("so many edges do not fit into memory"),
            );
        }
        csr
    }

    /// The vertices that refuse transit, ascending.
    pub(crate) fn ends_only(&self) -> &[u32] {
        &self.ends_only
    }

    /// The edges of a vertex, ascending; empty if it refuses transit.
    pub(crate) fn edges(&self, number: u32) -> &[Edge] {
        let at = number as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.stops[before]);
        &self.edges[begin as usize..self.stops[at] as usize]
    }
}
