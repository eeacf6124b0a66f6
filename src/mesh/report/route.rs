//! The serialised form of what routing knows of a node: sentences for people and the state for
//! programs, beside the explanation itself.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::NodeId;
use crate::router::Explanation;

#[derive(Serialize, Deserialize)]
struct RouteView<'a> {
    /// `myself`, `reachable`, `stub`, `one-way`, `no-transit`, `left`, `unreachable`, `dormant`,
    /// `never-heard-of` or `no-database`.
    state: Cow<'a, str>,
    /// The same as a sentence, for people.
    reason: String,
    /// The path, both ends included.
    way: Cow<'a, [NodeId]>,
    cost: Option<u64>,
    hops: Option<u32>,
    /// All of it: what deserialisation reads.
    detail: Cow<'a, Explanation>,
}

pub(super) fn serialize<S: Serializer>(
    explanation: &Explanation,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (route, way): (_, &[NodeId]) = match explanation {
        Explanation::Reachable { route, path, .. } => (Some(route), path),
        Explanation::Stub { route, .. } => (route.as_ref(), &[]),
        _ => (None, &[]),
    };
    let (state, reason) = route_reason(explanation);
    RouteView {
        state: state.into(),
        reason,
        way: way.into(),
        cost: route.map(|route| route.cost),
        hops: route.map(|route| route.hops),
        detail: Cow::Borrowed(explanation),
    }
    .serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Explanation, D::Error> {
    RouteView::deserialize(deserializer).map(|view| view.detail.into_owned())
}

fn route_reason(explanation: &Explanation) -> (&'static str, String) {
    match explanation {
        Explanation::Myself => ("myself", "it is this node".to_owned()),
        Explanation::Reachable { .. } => {
            ("reachable", "links that both of their ends list lead to it".to_owned())
        }
        Explanation::Stub { of, route: Some(_) } => {
            ("stub", format!("it is an ephemeral node, attached to {}", list(of)))
        }
        Explanation::Stub { of, route: None } => (
            "stub",
            format!("it is an ephemeral node, attached to {}, and there is no route", list(of)),
        ),
        Explanation::OneWay { claimed_by } => (
            "one-way",
            format!("{} list a link to it, and it does not list them", list(claimed_by)),
        ),
        Explanation::NoTransit { neighbours, not_permitted, .. } => {
            let rules = match not_permitted.is_empty() {
                true => String::new(),
                false => {
                    format!(", or that this node does not permit to ({})", list(not_permitted))
                }
            };
            let next = list(neighbours);
            (
                "no-transit",
                format!(
                    "every way leads through nodes that carry no others' packets{rules}; it is next to {next}"
                ),
            )
        }
        Explanation::KnownUnreachable { left: true, .. } => {
            ("left", "it has shut down and left the mesh".to_owned())
        }
        Explanation::KnownUnreachable { neighbours, .. } => (
            "unreachable",
            format!(
                "no link leads to it that both ends list; its neighbours were {}",
                list(neighbours)
            ),
        ),
        Explanation::Dormant { known_by } => {
            ("dormant", format!("nobody is connected to it; {} knew it once", list(known_by)))
        }
        Explanation::NeverHeardOf => ("never-heard-of", "no record names it".to_owned()),
        Explanation::NoDatabase => (
            "no-database",
            "this node is ephemeral and leaves routing to its neighbours".to_owned(),
        ),
    }
}

fn list(nodes: &[NodeId]) -> String {
    match nodes {
        [] => "nobody".to_owned(),
        nodes => nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", "),
    }
}
