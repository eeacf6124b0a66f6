//! Peers on the local network, by multicast DNS (RFC 6762, RFC 6763): announced, found, and dialled
//! by node id.
//!
//! What is found is a hint and nothing more: a link to a found peer is authenticated as any other,
//! and its certificate must carry the id that was announced. So a liar on the local network can
//! have a node dial a few addresses there, and that is all.
//!
//! An announcement has the node's id, port and addresses on the segment. Names in it are made of
//! the node's address, a hash of the id: neither the machine's name nor anything else of it is
//! told.

mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{Instrument, Span, debug, info, warn};

use super::interfaces::addresses::LocalNetwork;
use crate::id::NodeId;
use crate::mesh::links::dialling::dialler::{Dialled, Dialler};
use crate::mesh::report::log::LogKind;
use crate::mesh::view::View;
pub(crate) use found::MAX_FOUND;
pub(crate) use found::on_segment;
use found::{SERVICE, host_name, instance_name};

/// The key of the announcement's one property: the node's id.
const ID: &str = "id";
/// How long the node with the larger id waits for the other to dial, so that they do not both do
/// it.
const OTHER_DIALS_WITHIN: Duration = Duration::from_secs(2);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Announces this node and dials those that it finds.
pub(crate) struct Lan {
    pub(crate) me: NodeId,
    /// Where this node accepts links; `None` if it only dials.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) dialler: Dialler,
    pub(crate) network: watch::Receiver<Arc<LocalNetwork>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
}

/// Peers that are dialled, with their addresses as last heard of.
struct Found {
    addresses: watch::Sender<Vec<SocketAddr>>,
    task: AbortHandle,
}

impl Drop for Found {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lan {
    /// Runs until the node leaves, and says so on the network then.
    pub(crate) async fn run(self) {
        // Its thread ends with the last handle to it, or when it is shut down below.
        let daemon = match ServiceDaemon::new() {
            Ok(daemon) => daemon,
            Err(error) => return warn!(%error, "no peers are found on the local network"),
        };
        if let Err(error) = self.find(&daemon).await {
            warn!(%error, "no more peers are found on the local network");
        }
        if let Ok(done) = daemon.unregister(&format!("{}.{SERVICE}", instance_name(&self.me))) {
            let _ = tokio::time::timeout(FAREWELL, done.recv_async()).await;
        }
        if let Ok(done) = daemon.shutdown() {
            let _ = tokio::time::timeout(FAREWELL, done.recv_async()).await;
        }
    }

    async fn find(&self, daemon: &ServiceDaemon) -> mdns_sd::Result<()> {
        if let Some(announcement) = self.announcement()? {
            daemon.register(announcement)?;
        }
        let events = daemon.browse(SERVICE)?;
        let mut found = BTreeMap::new();
        let mut view = self.view.clone();
        loop {
            tokio::select! {
                biased;
                _ = view.wait_for(|view| view.closed || view.leaving || view.yielded_to.is_some()) => return Ok(()),
                event = events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => self.resolved(&mut found, &service),
                    Ok(ServiceEvent::ServiceRemoved(_, name)) => {
                        found.retain(|id, _| !name.eq_ignore_ascii_case(&full_name(id)));
                    }
                    Ok(_) => {}
                    Err(_) => return Err(mdns_sd::Error::Msg("the responder has ended".to_owned())),
                },
            }
        }
    }

    /// What to announce: the first address that others can reach, and all that go with it.
    fn announcement(&self) -> mdns_sd::Result<Option<ServiceInfo>> {
        let Some(listen) = self.listen.iter().find(|addr| !addr.ip().is_loopback()) else {
            return Ok(None);
        };
        let addresses: Vec<IpAddr> =
            if listen.ip().is_unspecified() { Vec::new() } else { vec![listen.ip()] };
        let properties = [(ID, self.me.as_str())];
        let (name, host) = (instance_name(&self.me), host_name(&self.me));
        let mut info = ServiceInfo::new(
            SERVICE,
            &name,
            &host,
            addresses.as_slice(),
            listen.port(),
            &properties[..],
        )?;
        if listen.ip().is_unspecified() {
            info = info.enable_addr_auto();
            if listen.is_ipv4() {
                info.set_interfaces(vec![IfKind::IPv4]);
            }
        }
        Ok(Some(info))
    }

    fn resolved(&self, found: &mut BTreeMap<NodeId, Found>, service: &ResolvedService) {
        let Some(Ok(id)) =
            service.txt_properties.get_property_val_str(ID).map(str::parse::<NodeId>)
        else {
            return;
        };
        // The name is derived from the id, so that no node is announced twice.
        if id == self.me || !service.fullname.eq_ignore_ascii_case(&full_name(&id)) {
            return;
        }
        // Their order is that of a hash; it is gone when they are sorted.
        let mut said = BTreeSet::new();
        for ip in service.get_addresses() {
            said.insert(SocketAddr::new(ip.to_ip_addr(), service.port));
        }
        let addresses = on_segment(said.into_iter(), &self.network.borrow().addresses);
        if addresses.is_empty() {
            return debug!(peer = %id, "announced without an address on this network");
        }
        if let Some(known) = found.get(&id) {
            known.addresses.send_replace(addresses);
            return;
        }
        if found.len() >= MAX_FOUND {
            return debug!(peer = %id, "found on the local network, and not dialled: too many are");
        }
        if self.dialler.logs.admit(LogKind::Found, &id) {
            info!(peer = %id, ?addresses, "found on the local network");
        }
        let peer = self.dial(&id, addresses);
        found.insert(id, peer);
    }

    fn dial(&self, id: &NodeId, addresses: Vec<SocketAddr>) -> Found {
        let (addresses, heard) = watch::channel(addresses);
        let patience =
            if self.listens() && self.me > *id { OTHER_DIALS_WITHIN } else { Duration::ZERO };
        let (dialler, dialled) = (self.dialler.clone(), Dialled::found(id.clone(), heard));
        let task = async move {
            tokio::time::sleep(patience).await;
            dialler.keep_linked(dialled).await;
        };
        Found { addresses, task: tokio::spawn(task.instrument(Span::current())).abort_handle() }
    }

    fn listens(&self) -> bool {
        self.listen.iter().any(|addr| !addr.ip().is_loopback())
    }
}

fn full_name(id: &NodeId) -> String {
    format!("{}.{SERVICE}", instance_name(id))
}
