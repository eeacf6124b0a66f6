//! Shows links and routes to the switch and to the handles.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Driver;
use crate::mesh::driver::forwarding::{Sources, forwarding_table};
use crate::mesh::driver::stubs::stub::Role;
use crate::mesh::view::View;
use crate::router;
use crate::router::{NeighbourState, Table};
use crate::switch::{ForwardingTable, Routes};
use crate::transport::frame::Frame;

/// Minimum interval between two publications of links and routes while inputs keep coming.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
/// Publishing is O(links), so the minimum interval grows by 1 ms per 50 links, up to
/// [`MAX_PUBLISH_PAUSE`].
const PUBLISHED_IN_A_MILLISECOND: usize = 50;
/// With thousands of links publishing takes a few milliseconds. They come and go in storms, in
/// which this leaves the driver nine tenths of its time.
const MAX_PUBLISH_PAUSE: Duration = Duration::from_millis(40);

impl Driver {
    /// Publishes what has changed: at once if nothing else waits and links are few, and not more
    /// often than needed in a storm.
    pub(in crate::mesh) fn publish_changes(&mut self, idle: bool, now: Instant) {
        let pause = self.publish_pause();
        let pause = if idle { pause } else { pause.max(PUBLISH_EVERY) };
        if now >= self.published + pause {
            self.publish_now(now);
        }
    }

    /// Publishes what has changed, before something goes out that relies on it.
    pub(in crate::mesh) fn publish_now(&mut self, now: Instant) {
        if self.changed {
            self.changed = false;
            self.published = now;
            self.publish();
            self.attach();
            self.answer_queries(now);
        }
    }

    /// Tells stubs that they are attached, once their packets are let in.
    fn attach(&mut self) {
        let Role::Full(router) = &self.role else { return };
        let nodes = router.table().len() as u64 + 1;
        for link in self.attaching.drain(..).filter_map(|id| self.neighbours.link(id)) {
            link.send(&Frame::Attached(nodes));
        }
    }

    pub(in crate::mesh) fn publish_pause(&self) -> Duration {
        let millis = self.neighbours.links().len() / PUBLISHED_IN_A_MILLISECOND;
        MAX_PUBLISH_PAUSE.min(Duration::from_millis(millis as u64))
    }

    /// Shows links and routes to the switch and to those who open streams.
    fn publish(&mut self) {
        let (table, linked) = match &self.role {
            Role::Full(router) => {
                let synced = |n: router::NeighbourView| n.state != NeighbourState::Syncing;
                (router.table(), router.neighbours().any(synced))
            }
            Role::Stub(stub) => (Arc::new(Table::default()), stub.attached),
        };
        let routes = self.routes.of(&table);
        let forwarding = Some(self.publish_forwarding(routes));
        let stub = matches!(self.role, Role::Stub(_));
        let links =
            self.neighbours.active().iter().filter_map(|(peer, id)| {
                Some((peer.clone(), self.neighbours.link(*id)?.view.clone()))
            });
        let view = View {
            links: links.collect(),
            table,
            forwarding,
            stub,
            linked,
            leaving: self.leaving,
            yielded_to: self.yielded_to(),
            closed: false,
        };
        self.view.send_replace(Arc::new(view));
    }

    /// Shows links and these routes to the switch.
    pub(in crate::mesh) fn publish_forwarding(&self, routes: Arc<Routes>) -> Arc<ForwardingTable> {
        let forwarding = Arc::new(forwarding_table(&Sources {
            me: self.id.addr(),
            transit: self.transit,
            stub: matches!(self.role, Role::Stub(_)),
            links: self.neighbours.links(),
            active: self.neighbours.active(),
            routes,
            paths: &self.paths,
            router: match &self.role {
                Role::Full(router) => Some(router),
                Role::Stub(_) => None,
            },
            detours: &self.detours,
        }));
        self.endpoint.socket().publish(Arc::clone(&forwarding));
        forwarding
    }
}
