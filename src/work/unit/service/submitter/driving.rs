//! Handing units over to one executor, and following them there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::drivers::Work;
use super::out_unit::OutUnit;
use super::session::{Session, SessionEnd};
use crate::id::NodeId;
use crate::work::unit::machine::submitter::SubmitterInput;
use crate::work::unit::outcome::UnitRefusal;
use crate::work::unit::service::shared::Shared;

/// The shortest and the longest wait before an executor is asked again.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// How often an executor may say that it has no units before that is believed: it may be starting.
const REFUSALS: u32 = 3;

impl Shared {
    /// Notes whether something is left to ask the unit's executor.
    pub(in crate::work::unit::service) fn note_live(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        live: bool,
    ) {
        if !live {
            return self.drivers.forget(unit);
        }
        if let Some(queue) = self.drivers.add(unit) {
            let (shared, node) = (self.clone(), unit.node.clone());
            self.spawn(async move { shared.drive(&node, queue).await });
        }
    }

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
                    self.all_refused(node, UnitRefusal::NoUnits).await;
                }
                SessionEnd::NoUnits => refusals += 1,
                SessionEnd::NotAllowed => self.all_refused(node, UnitRefusal::NotAllowed).await,
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
    async fn all_refused(self: &Arc<Self>, node: &NodeId, why: UnitRefusal) {
        for id in self.drivers.live(node) {
            let Some(unit) = self.outgoing.get(id) else { continue };
            let _ = self.feed_out(&unit, SubmitterInput::NotServed(why)).await;
        }
    }
}
