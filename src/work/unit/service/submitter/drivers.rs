//! The tasks that hand units over and follow them, one for each executor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::out_unit::OutUnit;
use crate::id::NodeId;
use crate::sync::lock;
use crate::work::unit::machine::submitter::Request;

/// The tasks, by executor. There is one for each executor with units that are not settled.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Drivers {
    table: Mutex<BTreeMap<NodeId, Driver>>,
}

#[derive(Debug)]
struct Driver {
    /// The units that are not settled. The queue has a bounded number of entries for each.
    live: BTreeSet<Uuid>,
    work: mpsc::UnboundedSender<Work>,
}

/// The inputs of a driver.
#[derive(Debug)]
pub(in crate::work::unit::service) enum Work {
    /// A unit is not settled.
    Live(Arc<OutUnit>),
    /// A unit's request is to be sent.
    Request(Arc<OutUnit>, Request),
    /// All units are settled.
    Idle,
}

impl Drivers {
    /// Notes that something is left to ask the unit's executor. Returns the queue of a driver that
    /// is to be started for it.
    #[must_use = "the driver of this queue has to be started"]
    pub(in crate::work::unit::service) fn add(
        &self,
        unit: &Arc<OutUnit>,
    ) -> Option<mpsc::UnboundedReceiver<Work>> {
        let mut started = None;
        let mut table = self.table();
        let driver = table.entry(unit.node.clone()).or_insert_with(|| {
            let (work, queue) = mpsc::unbounded_channel();
            started = Some(queue);
            Driver { live: BTreeSet::new(), work }
        });
        if driver.live.insert(unit.id) {
            // The driver ends only after it was removed from the table.
            let _ = driver.work.send(Work::Live(unit.clone()));
        }
        started
    }

    /// Forgets a unit that is removed.
    pub(in crate::work::unit::service) fn forget(&self, unit: &OutUnit) {
        if let Some(driver) = self.table().get_mut(&unit.node)
            && driver.live.remove(&unit.id)
            && driver.live.is_empty()
        {
            let _ = driver.work.send(Work::Idle);
        }
    }

    /// Has a request sent.
    pub(in crate::work::unit::service) fn request(&self, unit: &Arc<OutUnit>, request: Request) {
        if let Some(driver) = self.table().get(&unit.node) {
            let _ = driver.work.send(Work::Request(unit.clone(), request));
        }
    }

    /// The units of an executor that are not settled.
    pub(in crate::work::unit::service) fn live(&self, node: &NodeId) -> Vec<Uuid> {
        self.table()
            .get(node)
            .map(|driver| driver.live.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Whether all units of an executor are settled.
    pub(in crate::work::unit::service) fn is_idle(&self, node: &NodeId) -> bool {
        self.table().get(node).is_none_or(|driver| driver.live.is_empty())
    }

    /// Removes the driver of an executor if it has nothing to do.
    pub(in crate::work::unit::service) fn retire(&self, node: &NodeId) -> bool {
        let mut table = self.table();
        let idle = table.get(node).is_none_or(|driver| driver.live.is_empty());
        if idle {
            table.remove(node);
        }
        idle
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Driver>> {
        lock(&self.table)
    }
}
