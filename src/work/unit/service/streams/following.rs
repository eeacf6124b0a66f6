//! Reporting changes to a submitter.

use std::sync::Arc;

use super::followers::Follower;
use super::serving::write;
use crate::id::NodeId;
use crate::mesh::SendHalf;
use crate::work::frame::FrameReader;
use crate::work::unit::key::UnitKey;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::wire::{MAX_REQUEST_FRAME, Reply, Subscription};

/// A follower of a submitter. Dropped, it is forgotten.
struct Entered<'a> {
    shared: &'a Shared,
    submitter: &'a NodeId,
    follower: Arc<Follower>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.shared.incoming.followers.remove(self.submitter, &self.follower);
    }
}

impl Shared {
    /// Reports the units that the submitter names, now and whenever they change.
    pub(in crate::work::unit::service) async fn serve_follow(
        self: &Arc<Self>,
        submitter: &NodeId,
        mut reader: FrameReader,
        send: &mut SendHalf,
    ) {
        let follower = self.incoming.followers.add(submitter);
        let entered = Entered { shared: self, submitter, follower: follower.clone() };
        if write(send, &Reply::Following { store: self.store_id() }).await.is_err() {
            return;
        }
        loop {
            // What is due is reported before the next subscription is read, so that a submitter
            // that does not read cannot make this node remember ids without end.
            let id = tokio::select! {
                biased;
                id = follower.next() => id,
                frame = reader.next(MAX_REQUEST_FRAME) => {
                    let subscription = frame.ok().flatten().map(|frame| Subscription::decode(&frame));
                    let Some(Ok(Subscription { id })) = subscription else { break };
                    follower.want(id);
                    continue;
                }
            };
            let key = UnitKey::new(submitter, id);
            let store = self.store_id();
            let reply = match self.incoming.get(&key) {
                Some(unit) => self.status_reply(&unit),
                None if self.store.tombstone(&key).is_some() => Reply::Released { store, id },
                None => Reply::Unknown { store, id },
            };
            let over = match &reply {
                Reply::Status { status, .. } => {
                    matches!(status.state, crate::work::unit::outcome::ReportState::Final(_))
                }
                _ => true,
            };
            if over {
                follower.forget(id);
            }
            if write(send, &reply).await.is_err() {
                break;
            }
        }
        drop(entered);
        send.finish();
    }
}
