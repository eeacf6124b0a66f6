//! The policy that a node runs with, as commands show it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::file::PolicyFile;
use crate::id::NodeId;
use crate::sync::lock;

/// The policy that a node runs with. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct RunningPolicy(Arc<Mutex<Option<(PathBuf, String)>>>);

/// What a node says about its policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ShownPolicy {
    pub(in crate::cli) node: NodeId,
    /// The file and its text. `None` if the node has no policy.
    pub(in crate::cli) file: Option<(PathBuf, String)>,
    /// Why the last reload was refused, if none has succeeded since.
    pub(in crate::cli) rejected: Option<String>,
}

impl RunningPolicy {
    /// Notes the policy that the node runs with from now on.
    pub(in crate::cli) fn set(&self, policy: Option<&PolicyFile>) {
        let file = policy.map(|policy| (policy.path.clone(), policy.text.clone()));
        *lock(&self.0) = file;
    }

    pub(in crate::cli) fn file(&self) -> Option<(PathBuf, String)> {
        lock(&self.0).clone()
    }
}
