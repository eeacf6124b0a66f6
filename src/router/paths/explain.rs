//! Why a node is, or is not, reachable.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, Version};
use crate::router::Router;
use crate::router::paths::spf::Paths;
use crate::router::paths::table::Route;
use crate::router::proof::claims::ClaimState;
use crate::router::record::Record;
use crate::router::record::draft::LinkClass;

/// What a router knows about a node, and why traffic for it goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Explanation {
    /// The node asked.
    Myself,
    /// It is reachable.
    Reachable {
        /// How.
        route: Route,
        /// The version of its record.
        version: Version,
        /// The way as this node's database has it, from this node to that one.
        path: Vec<NodeId>,
    },
    /// It has no record of its own in reach, and is listed as a stub.
    Stub {
        /// The nodes that list it, ascending, except those whose claims were rejected, see
        /// [`Router::claims`].
        of: Vec<NodeId>,
        /// How it is reached. `None` if those nodes are not reachable themselves, if none has
        /// proven the attachment here yet, or if its address is that of another node.
        route: Option<Route>,
    },
    /// Reachable nodes list a link to it, and it does not list them: a link that is coming up or
    /// going down, or a false claim.
    OneWay {
        /// Those nodes, ascending.
        claimed_by: Vec<NodeId>,
    },
    /// It is connected, and every way to it leads through nodes that refuse transit, or that this
    /// node does not permit to grant it.
    NoTransit {
        /// The version of its record.
        version: Version,
        /// Nodes next to it, ascending.
        neighbours: Vec<NodeId>,
        /// Nodes that grant transit without the permission of this one, ascending.
        not_permitted: Vec<NodeId>,
    },
    /// Its record is known, and no two-way link leads to it.
    KnownUnreachable {
        /// The version of its last record.
        version: Version,
        /// For how long, up to the last input of the router.
        since: Duration,
        /// Whether it said that it leaves.
        left: bool,
        /// Its neighbours by its last record.
        neighbours: Vec<NodeId>,
    },
    /// Nodes know it from their connection manifests, and none is connected to it.
    Dormant {
        /// Those nodes, ascending.
        known_by: Vec<NodeId>,
    },
    /// No record names it.
    NeverHeardOf,
    /// The node asked is a stub itself: it keeps no records, and leaves routing to its neighbours.
    NoDatabase,
}

impl Router {
    /// Whether the node has a record here, reachable or not. A stub has none.
    #[must_use]
    pub fn has_record(&self, id: &NodeId) -> bool {
        self.database.get(id).is_some()
    }

    /// The version of the record that is held of the node; `None` if there is none.
    #[must_use]
    pub fn record_version(&self, id: &NodeId) -> Option<Version> {
        self.database.get(id).map(|record| record.version)
    }

    /// Why the node is, or is not, reachable. Looks through the whole database; not for the path of
    /// packets.
    #[must_use]
    pub fn explain(&self, id: &NodeId) -> Explanation {
        if id == self.id() {
            return Explanation::Myself;
        }
        let record = self.database.get(id);
        if let Some(record) = record.filter(|record| record.leaving) {
            // Its neighbours' records, and the table, may not say so yet.
            return self.explain_left(record);
        }
        let route = self.table.route(id).cloned();
        if let (Some(route), Some(record)) = (route.clone().filter(|route| !route.stub), record) {
            return Explanation::Reachable {
                route,
                version: record.version,
                path: self.path(id).unwrap_or_default(),
            };
        }
        let mut of = self.listed_by(id, LinkClass::Stub);
        of.retain(|by| !self.is_rejected(id, by));
        if !of.is_empty() {
            return Explanation::Stub { of, route };
        }
        let claimed_by = self.claimed_by(id);
        if !claimed_by.is_empty() {
            return Explanation::OneWay { claimed_by };
        }
        if let Some(record) = record {
            return self.explain_unrouted(record);
        }
        let known_by = self.listed_by(id, LinkClass::Dormant);
        if known_by.is_empty() {
            Explanation::NeverHeardOf
        } else {
            Explanation::Dormant { known_by }
        }
    }

    /// The way from this node to another, both included: at each step the hop that the node there
    /// would choose, as this node's database has it. None: not reachable. Takes as long as
    /// computing all paths.
    #[must_use]
    pub fn path(&self, id: &NodeId) -> Option<Vec<NodeId>> {
        let route = self.table.route(id)?;
        if !route.stub {
            return self.walk_to(id);
        }
        let mut path = match self.attached_at(route) {
            owner if owner == *self.id() => vec![owner],
            owner => self.walk_to(&owner)?,
        };
        path.push(id.clone());
        Some(path)
    }

    fn explain_unrouted(&self, record: &Record) -> Explanation {
        let version = record.version;
        let links = record.links.iter().filter(|link| link.class == LinkClass::Active);
        let neighbours = links.map(|link| link.peer.clone()).collect();
        match self.database.unreachable_since(&record.origin) {
            Some(begin) => {
                let since = self.last_now.saturating_duration_since(begin);
                Explanation::KnownUnreachable { version, since, left: record.leaving, neighbours }
            }
            None => {
                Explanation::NoTransit { version, neighbours, not_permitted: self.not_permitted() }
            }
        }
    }

    /// The nodes that grant transit without this node's permission, ascending by id.
    fn not_permitted(&self) -> Vec<NodeId> {
        let graph = self.database.graph();
        let refused =
            |record: &&Record| record.transit && graph.is_permitted(&record.origin) == Some(false);
        self.database.iter().filter(refused).map(|record| record.origin.clone()).collect()
    }

    fn explain_left(&self, record: &Record) -> Explanation {
        let begin = self.database.unreachable_since(&record.origin).unwrap_or(self.last_now);
        Explanation::KnownUnreachable {
            version: record.version,
            since: self.last_now.saturating_duration_since(begin),
            left: true,
            neighbours: Vec::new(),
        }
    }

    /// The reachable nodes that a stub is attached to, as far as this node believes them, nearest
    /// first. Searches the whole database.
    #[must_use]
    pub fn attachments(&self, stub: &NodeId) -> Vec<NodeId> {
        let mut nodes = self.listed_by(stub, LinkClass::Stub);
        nodes.retain(|node| {
            let reached = self.table.route(node).is_some_and(|route| !route.stub);
            node == self.id() || reached && self.is_believed(stub, node)
        });
        nodes.sort_by_key(|node| self.table.route(node).map_or(0, |route| route.cost));
        nodes
    }

    /// The node through which the table reaches a stub.
    pub(in crate::router) fn attached_at(&self, stub: &Route) -> NodeId {
        let owners = self.database.iter().filter(|record| record.origin != *self.id());
        let owner = owners.filter_map(|record| {
            let link = record.link(&stub.id).filter(|link| link.class == LinkClass::Stub)?;
            if !self.is_believed(&stub.id, &record.origin) {
                return None;
            }
            let owner = self.table.route(&record.origin).filter(|route| !route.stub)?;
            (owner.cost + u64::from(link.cost.get()) == stub.cost && stub.hops > 1)
                .then(|| owner.id.clone())
        });
        owner.min().unwrap_or_else(|| self.id().clone())
    }

    fn walk_to(&self, target: &NodeId) -> Option<Vec<NodeId>> {
        let graph = self.database.graph();
        let (me, target) = (graph.number(self.id())?, graph.number(target)?);
        let usable = |from: u32, to: u32| {
            (from != me || self.uses_link(graph.id(to)))
                && (to != me || self.uses_link(graph.id(from)))
        };
        let paths = Paths::find(graph, target, usable);
        let (mut at, mut path) = (me, vec![self.id().clone()]);
        while at != target {
            let steps = graph.vertex(at).edges.iter().filter(|edge| {
                usable(at, edge.to)
                    && (edge.to == target || graph.vertex(edge.to).transit)
                    && paths.cost(edge.to).checked_add(edge.cost.into()) == Some(paths.cost(at))
            });
            at = steps.map(|edge| edge.to).min_by_key(|&to| graph.id(to))?;
            path.push(graph.id(at).clone());
        }
        Some(path)
    }

    fn listed_by(&self, id: &NodeId, class: LinkClass) -> Vec<NodeId> {
        let lists = self
            .database
            .iter()
            .filter(|record| record.link(id).is_some_and(|link| link.class == class));
        let mut names: Vec<NodeId> = lists.map(|record| record.origin.clone()).collect();
        if class == LinkClass::Stub
            && self.neighbours.stubs().any(|(stub, _)| stub == id)
            && !names.contains(self.id())
        {
            names.push(self.id().clone());
            names.sort();
        }
        names
    }

    /// Whether it is known that a node lists a stub that is not attached to it.
    fn is_rejected(&self, stub: &NodeId, by: &NodeId) -> bool {
        let state = || self.claims.state(stub, by, self.own_version(stub));
        by != self.id() && matches!(state(), ClaimState::Rejected(_))
    }

    /// The reachable nodes that list an active link to the node, which the node does not list.
    fn claimed_by(&self, id: &NodeId) -> Vec<NodeId> {
        let theirs = self.database.get(id);
        let reachable = |node: &NodeId| {
            node == self.id() || self.table.route(node).is_some_and(|route| !route.stub)
        };
        let claims = self.database.iter().filter(|record| {
            record.active(id).is_some()
                && reachable(&record.origin)
                && theirs.is_none_or(|theirs| theirs.active(&record.origin).is_none())
        });
        claims.map(|record| record.origin.clone()).collect()
    }
}
