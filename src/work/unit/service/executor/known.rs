//! What the executor knows of a key, and claims on keys that it does not know.

use std::sync::Arc;

use super::in_unit::InUnit;
use crate::work::unit::key::UnitKey;
use crate::work::unit::machine::tombstones::Death;
use crate::work::unit::service::shared::Shared;

/// What there is of a key.
pub(in crate::work::unit::service) enum Known {
    Unit(Arc<InUnit>),
    Dead(Death),
    /// Nothing. The key is claimed while this lives.
    Nothing(ClaimedKey),
}

/// Keeps others from making anything of the same key.
pub(in crate::work::unit::service) struct ClaimedKey {
    shared: Arc<Shared>,
    key: UnitKey,
}

impl Drop for ClaimedKey {
    fn drop(&mut self) {
        let incoming = &self.shared.incoming;
        incoming.table().claimed.remove(&self.key);
        incoming.freed.notify_waiters();
    }
}

impl Shared {
    /// Looks a key up, and claims it if there is nothing.
    pub(in crate::work::unit::service) async fn look_up(self: &Arc<Self>, key: &UnitKey) -> Known {
        let incoming = &self.incoming;
        loop {
            let freed = incoming.freed.notified();
            {
                let mut table = incoming.table();
                if let Some(unit) = table.units.get(key) {
                    return Known::Unit(unit);
                }
                if let Some(death) = self.store.tombstone(key) {
                    return Known::Dead(death);
                }
                if table.claimed.insert(key.clone()) {
                    return Known::Nothing(ClaimedKey { shared: self.clone(), key: key.clone() });
                }
            }
            freed.await;
        }
    }
}
