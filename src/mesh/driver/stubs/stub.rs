//! What a node is to the mesh: a full node, or a stub with a default route.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::attaching::Attaching;
use super::stub_waiting::StubWaiting;
use crate::id::NodeId;
use crate::router::Router;

/// The maximum number of a stub's queries that wait for an answer.
const MAX_QUERIES: usize = 1_024;

/// What a node is to the mesh.
pub(in crate::mesh) enum Role {
    /// A node with a record and a database.
    Full(Box<Router>),
    /// An entry in its neighbours' records, with a default route.
    Stub(Stub),
}

/// Where the cost and hops of a route go, if there is one.
pub(in crate::mesh::driver) type Asker = oneshot::Sender<Option<(u64, u32)>>;

/// What a stub knows: nothing but whom to ask.
pub(in crate::mesh) struct Stub {
    pub(in crate::mesh) attached: bool,
    pub(in crate::mesh) attaching: Attaching,
    /// How many nodes the neighbour knew when it attached this one.
    pub(in crate::mesh) nodes: u64,
    pub(in crate::mesh) waiting: StubWaiting,
    queries: BTreeMap<NodeId, Vec<Asker>>,
}

impl Stub {
    pub(in crate::mesh) fn new(attaching: Attaching) -> Self {
        Self {
            attached: false,
            attaching,
            nodes: 0,
            waiting: StubWaiting::default(),
            queries: BTreeMap::new(),
        }
    }

    /// Keeps the asker of a question that was put to the neighbour. Returns whether the question is
    /// to be sent: not if [`MAX_QUERIES`] wait already.
    pub(in crate::mesh::driver) fn ask(&mut self, node: &NodeId, asker: Asker) -> bool {
        let room = self.queries.values().map(Vec::len).sum::<usize>() < MAX_QUERIES;
        if room {
            self.queries.entry(node.clone()).or_default().push(asker);
        }
        room
    }

    /// Answers everyone who has asked for the route to `node`.
    pub(in crate::mesh::driver) fn answer(&mut self, node: &NodeId, route: Option<(u64, u32)>) {
        for asker in self.queries.remove(node).unwrap_or_default() {
            let _ = asker.send(route);
        }
    }

    /// Drops all askers: no neighbour is left to answer them.
    pub(in crate::mesh::driver) fn drop_askers(&mut self) {
        self.queries.clear();
    }

    /// Forgets askers that have given up, which makes room for others.
    pub(in crate::mesh::driver) fn forget_gone_askers(&mut self) {
        self.queries.retain(|_, askers| {
            askers.retain(|asker| !asker.is_closed());
            !askers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    fn stub() -> Stub {
        let identity = crate::transport::Authority::new("test", 1)
            .and_then(|ca| ca.issue("edge", 1))
            .expect("a valid identity");
        let notary = crate::mesh::CertificateNotary::new(&identity, crate::mesh::clock::system);
        Stub::new(Attaching::new("edge".parse().expect("a valid id"), Arc::new(notary), 1, 1))
    }

    #[test]
    fn everyone_who_asked_for_a_node_gets_the_answer() {
        let (mut stub, node) = (stub(), "far".parse().unwrap());
        let (first, mut one) = oneshot::channel();
        let (second, mut two) = oneshot::channel();
        assert!(stub.ask(&node, first) && stub.ask(&node, second));
        stub.answer(&node, Some((3, 2)));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Some((3, 2))), Ok(Some((3, 2)))));
    }

    #[test]
    fn questions_beyond_the_bound_are_refused_until_askers_leave() {
        let (mut stub, node) = (stub(), "far".parse().unwrap());
        let kept: Vec<_> = (0..MAX_QUERIES)
            .map(|_| {
                let (asker, answer) = oneshot::channel();
                assert!(stub.ask(&node, asker));
                answer
            })
            .collect();
        assert!(!stub.ask(&node, oneshot::channel().0));
        drop(kept);
        stub.forget_gone_askers();
        assert!(stub.ask(&node, oneshot::channel().0));
    }
}
