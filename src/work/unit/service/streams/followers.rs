//! The submitters that want to know of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::id::NodeId;
use crate::sync::lock;
use crate::work::unit::key::UnitKey;

/// The submitters that want to know of changes: one stream each, or a few while one replaces
/// another.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Followers {
    by_submitter: Mutex<BTreeMap<NodeId, Vec<Arc<Follower>>>>,
}

/// What one stream reports.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Follower {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    units: BTreeSet<Uuid>,
    /// Those of them that have to be reported.
    due: BTreeSet<Uuid>,
}

impl Followers {
    pub(in crate::work::unit::service) fn add(&self, submitter: &NodeId) -> Arc<Follower> {
        let follower = Arc::new(Follower::default());
        self.table().entry(submitter.clone()).or_default().push(follower.clone());
        follower
    }

    pub(in crate::work::unit::service) fn remove(
        &self,
        submitter: &NodeId,
        follower: &Arc<Follower>,
    ) {
        let mut table = self.table();
        let Some(followers) = table.get_mut(submitter) else { return };
        followers.retain(|other| !Arc::ptr_eq(other, follower));
        if followers.is_empty() {
            table.remove(submitter);
        }
    }

    /// A unit has changed.
    pub(in crate::work::unit::service) fn changed(&self, key: &UnitKey) {
        for follower in self.table().get(&key.submitter).into_iter().flatten() {
            follower.note(key.id);
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Arc<Follower>>>> {
        lock(&self.by_submitter)
    }
}

impl Follower {
    /// Reports a unit now, and whenever it changes.
    pub(in crate::work::unit::service) fn want(&self, id: Uuid) {
        let mut wanted = self.wanted();
        wanted.units.insert(id);
        wanted.due.insert(id);
        self.changed.notify_one();
    }

    /// Reports a unit no longer.
    pub(in crate::work::unit::service) fn forget(&self, id: Uuid) {
        let mut wanted = self.wanted();
        wanted.units.remove(&id);
        wanted.due.remove(&id);
    }

    /// The next unit that has to be reported. Changes that follow each other are reported once.
    /// Cancel safe.
    pub(in crate::work::unit::service) async fn next(&self) -> Uuid {
        loop {
            if let Some(id) = self.wanted().due.pop_first() {
                return id;
            }
            self.changed.notified().await;
        }
    }

    fn note(&self, id: Uuid) {
        let mut wanted = self.wanted();
        if wanted.units.contains(&id) && wanted.due.insert(id) {
            self.changed.notify_one();
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        lock(&self.wanted)
    }
}
