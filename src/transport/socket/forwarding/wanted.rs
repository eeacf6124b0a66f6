//! Destinations of held packets, reported by the switch to the driver.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::id::NodeAddr;
use crate::sync::lock;

/// Maximum number of destinations that wait for the driver. Further ones are reported with their
/// next packet.
const MAX_WAITING: usize = 256;

/// Destinations of packets that are held although nodes list them as stubs: the driver requests
/// their proofs.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    addrs: Mutex<BTreeSet<NodeAddr>>,
    added: Notify,
}

impl Wanted {
    /// Reports a destination.
    pub(in crate::transport) fn add(&self, addr: NodeAddr) {
        let mut addrs = self.lock();
        if addrs.len() < MAX_WAITING && addrs.insert(addr) {
            self.added.notify_one();
        }
    }

    /// Waits until destinations have been reported, and returns them. Cancel safe.
    pub(crate) async fn take(&self) -> BTreeSet<NodeAddr> {
        loop {
            let addrs = std::mem::take(&mut *self.lock());
            if !addrs.is_empty() {
                return addrs;
            }
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeAddr>> {
        lock(&self.addrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_destination_is_reported_once_and_their_number_is_bounded() {
        let wanted = Wanted::default();
        for nth in [7, 7, 8] {
            wanted.add(NodeAddr([nth; 8]));
        }
        assert_eq!(wanted.take().await, [NodeAddr([7; 8]), NodeAddr([8; 8])].into());
        for nth in 0..300_u64 {
            wanted.add(NodeAddr(nth.to_be_bytes()));
        }
        assert_eq!(wanted.take().await.len(), MAX_WAITING);
    }
}
