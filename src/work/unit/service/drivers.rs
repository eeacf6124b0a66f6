//! What hands units over and follows them: one task for each executor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::submitter::{Request, SubmitterInput};
use super::out_unit::OutUnit;
use super::session::{Session, SessionEnd};
use super::shared::Shared;
use crate::id::NodeId;
use crate::sync::lock;

/// The shortest and the longest wait before an executor is asked again.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// How often an executor may say that it has no units before that is believed: it may be starting.
const REFUSALS: u32 = 3;

/// The tasks, by executor. There is one for each executor with units that are not settled.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    table: Mutex<BTreeMap<NodeId, Driver>>,
}

#[derive(Debug)]
struct Driver {
    /// The units that are not settled. The queue has a bounded number of entries for each.
    live: BTreeSet<Uuid>,
    work: mpsc::UnboundedSender<Work>,
}

/// What a driver is told.
#[derive(Debug)]
pub(super) enum Work {
    /// A unit is not settled.
    Live(Arc<OutUnit>),
    /// A unit's request is to be sent.
    Request(Arc<OutUnit>, Request),
    /// All units are settled.
    Idle,
}

impl Drivers {
    /// Notes whether something is left to ask the unit's executor.
    pub(super) fn note(&self, shared: &Arc<Shared>, unit: &Arc<OutUnit>, live: bool) {
        if !live {
            return self.forget(unit);
        }
        let mut table = self.table();
        let driver = table.entry(unit.node.clone()).or_insert_with(|| {
            let (work, queue) = mpsc::unbounded_channel();
            let (driving, node) = (shared.clone(), unit.node.clone());
            shared.spawn(async move { driving.drive(&node, queue).await });
            Driver { live: BTreeSet::new(), work }
        });
        if driver.live.insert(unit.id) {
            // The driver ends only after it was removed from the table.
            let _ = driver.work.send(Work::Live(unit.clone()));
        }
    }

    /// Forgets a unit that is removed.
    pub(super) fn forget(&self, unit: &OutUnit) {
        if let Some(driver) = self.table().get_mut(&unit.node)
            && driver.live.remove(&unit.id)
            && driver.live.is_empty()
        {
            let _ = driver.work.send(Work::Idle);
        }
    }

    /// Has a request sent.
    pub(super) fn request(&self, unit: &Arc<OutUnit>, request: Request) {
        if let Some(driver) = self.table().get(&unit.node) {
            let _ = driver.work.send(Work::Request(unit.clone(), request));
        }
    }

    /// The units of an executor that are not settled.
    pub(super) fn live(&self, node: &NodeId) -> Vec<Uuid> {
        self.table()
            .get(node)
            .map(|driver| driver.live.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Whether all units of an executor are settled.
    pub(super) fn is_idle(&self, node: &NodeId) -> bool {
        self.table().get(node).is_none_or(|driver| driver.live.is_empty())
    }

    /// Removes the driver of an executor if it has nothing to do.
    fn retire(&self, node: &NodeId) -> bool {
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

impl Shared {
    /// Hands units over to an executor whenever it can be reached, until all are settled.
    async fn drive(self: &Arc<Self>, node: &NodeId, mut queue: mpsc::UnboundedReceiver<Work>) {
        let mut retry = RETRY;
        let mut refusals = 0;
        while !self.drivers.retire(node) {
            let Ok(mesh) = self.mesh() else { return };
            tokio::select! {
                biased;
                routable = mesh.routable(node) => if routable.is_err() { return },
                () = self.idle(node, &mut queue) => continue,
            }
            let end = match Session::open(self, &mesh, node).await {
                Ok(session) => {
                    (retry, refusals) = (RETRY, 0);
                    // What was queued meanwhile is asked for by the units again.
                    while queue.try_recv().is_ok() {}
                    session.run(&mut queue).await
                }
                Err(end) => end,
            };
            drop(mesh);
            self.all_down(node).await;
            match end {
                SessionEnd::Idle => continue,
                SessionEnd::NoUnits if refusals + 1 >= REFUSALS => {
                    refusals = 0;
                    self.all_refused(node).await;
                }
                SessionEnd::NoUnits => refusals += 1,
                SessionEnd::Lost(why) => {
                    tracing::debug!(executor = %node, why, "lost the executor of units")
                }
            }
            // A unit that is submitted meanwhile does not cut this short: the executor is the same.
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(MAX_RETRY);
        }
    }

    /// Waits until nothing is left to ask an executor. What is queued is asked for again later.
    async fn idle(&self, node: &NodeId, queue: &mut mpsc::UnboundedReceiver<Work>) {
        while !self.drivers.is_idle(node) {
            if queue.recv().await.is_none() {
                return;
            }
        }
    }

    /// Tells all units of an executor that it cannot be asked.
    async fn all_down(self: &Arc<Self>, node: &NodeId) {
        for id in self.drivers.live(node) {
            let Some(unit) = self.outgoing.get(id) else { continue };
            let _ = self.feed_out(&unit, SubmitterInput::Down).await;
        }
    }

    /// Tells all units of an executor that it takes none.
    async fn all_refused(self: &Arc<Self>, node: &NodeId) {
        for id in self.drivers.live(node) {
            let Some(unit) = self.outgoing.get(id) else { continue };
            let _ = self.feed_out(&unit, SubmitterInput::NoUnits).await;
        }
    }
}
