//! Claims on the ids of submissions that are under way.

use std::sync::Arc;

use uuid::Uuid;

use super::out_unit::OutUnit;
use crate::work::unit::service::shared::Shared;

/// What there is of an id.
pub(in crate::work::unit::service) enum Claim {
    /// No other submission of it starts while this lives.
    Free(Claimed),
    Taken(Arc<OutUnit>),
    Full,
}

/// Keeps others from submitting the same id.
pub(in crate::work::unit::service) struct Claimed {
    shared: Arc<Shared>,
    id: Uuid,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let outgoing = &self.shared.outgoing;
        outgoing.table().submitting.remove(&self.id);
        outgoing.submitted.notify_waiters();
    }
}

impl Shared {
    /// Claims an id for a submission. Waits for one of the same id that is under way.
    pub(in crate::work::unit::service) async fn claim(self: &Arc<Self>, id: Uuid) -> Claim {
        let outgoing = &self.outgoing;
        loop {
            let submitted = outgoing.submitted.notified();
            {
                let mut table = outgoing.table();
                if let Some(unit) = table.units.get(&id) {
                    return Claim::Taken(unit);
                }
                if table.units.len() + table.submitting.len() >= self.limits().max_submitted {
                    return Claim::Full;
                }
                if table.submitting.insert(id) {
                    return Claim::Free(Claimed { shared: self.clone(), id });
                }
            }
            submitted.await;
        }
    }
}
