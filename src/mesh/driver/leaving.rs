//! The end of the driver: withdraws the node's record, and closes what hangs on it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Driver;
use crate::mesh::driver::stubs::stub::Role;
use crate::mesh::report::events::Event;
use crate::mesh::services::ending::Cause;
use crate::mesh::view::View;
use crate::transport::code::CloseCode;

impl Driver {
    /// Ends everything that hangs on the driver: no handle waits for it any more.
    ///
    /// Nothing here needs a task: quinn's may be gone already, together with this one. To close a
    /// connection wakes all who wait on its streams and datagrams.
    pub(super) fn close(&mut self, dropped: bool) {
        let (code, why) = match dropped {
            true => (CloseCode::Dropped, "dropped without a shutdown"),
            false => (CloseCode::Leaving, "leaving"),
        };
        self.view.send_modify(|view| *view = Arc::new(View { closed: true, ..View::default() }));
        self.services.close();
        self.neighbours.links().values().for_each(|link| link.close(code, why));
        self.peers.shut(code, why);
        self.endpoint.close(code, why);
        for peer in self.linked.drain() {
            self.emit(Event::LinkDown { peer, why: Cause::here(code, why).to_string() });
        }
    }

    /// Withdraws the node's record. The frames that say so are on their way when `reply` comes.
    pub(super) fn leave(&mut self, reply: oneshot::Sender<()>, now: Instant) {
        if let Role::Full(router) = &mut self.role {
            router.leave(now);
        }
        self.drain(now);
        self.leaving = true;
        self.changed = true;
        self.neighbours.finish();
        let _ = reply.send(());
    }
}
