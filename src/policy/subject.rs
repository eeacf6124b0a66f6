//! Who wants to do something.

use std::collections::BTreeSet;

use crate::id::NodeId;

/// Who wants to do something: a node as its certificate describes it.
///
/// The id is the one that the node uses, which its certificate contains. An ephemeral `NAME~SUFFIX`
/// is judged as NAME, since that is what its certificate says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subject {
    id: NodeId,
    roles: BTreeSet<String>,
}

impl Subject {
    /// A node without roles.
    #[must_use]
    pub fn new(id: &NodeId) -> Self {
        Self { id: id.base(), roles: BTreeSet::new() }
    }

    /// Adds the roles in its certificate (SAN URI `receptor-role:NAME`).
    #[must_use]
    pub fn with_roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// The id, without a suffix.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The roles.
    #[must_use]
    pub fn roles(&self) -> &BTreeSet<String> {
        &self.roles
    }
}
