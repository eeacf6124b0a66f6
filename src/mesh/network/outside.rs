//! What a node does outside its mesh: the tasks that announce it on the local network and map a
//! port, and take that back at the end.

use std::sync::Mutex;

use tokio::task::JoinHandle;

use crate::sync::lock;

/// The tasks. Each ends by itself when the node leaves, or is dropped.
#[derive(Debug, Default)]
pub(crate) struct Outside(Mutex<Vec<JoinHandle<()>>>);

impl Outside {
    /// Announces the node on the local network, and dials whom it finds there.
    #[cfg(feature = "mdns")]
    pub(crate) fn find_on_lan(
        &self,
        me: &crate::id::NodeId,
        listens: bool,
        dialler: &crate::mesh::links::dialling::dialler::Dialler,
        interfaces: &super::interfaces::Interfaces,
    ) {
        let lan = super::lan::Lan {
            me: me.clone(),
            listen: if listens { dialler.endpoint.socket().bound_addrs() } else { Vec::new() },
            dialler: dialler.clone(),
            network: interfaces.watch(),
            view: dialler.view.clone(),
        };
        self.spawn(lan.run());
    }

    /// Has a port of the router mapped to the node's.
    #[cfg(feature = "portmap")]
    pub(crate) fn map_port(
        &self,
        dialler: &crate::mesh::links::dialling::dialler::Dialler,
        interfaces: &super::interfaces::Interfaces,
    ) {
        let reached = |addr: &&std::net::SocketAddr| {
            let ip = addr.ip();
            !ip.is_loopback() && (ip.is_ipv4() || ip.is_unspecified())
        };
        let bound = dialler.endpoint.socket().bound_addrs();
        let Some(port) =
            bound.iter().find(reached).and_then(|addr| std::num::NonZeroU16::new(addr.port()))
        else {
            return tracing::warn!(
                "no port is mapped: the node listens on no IPv4 address but loopback"
            );
        };
        let mapper = super::portmap::PortMapper {
            port,
            network: interfaces.watch(),
            view: dialler.view.clone(),
            inputs: dialler.inputs.clone(),
        };
        self.spawn(mapper.run());
    }

    #[cfg(any(feature = "mdns", feature = "portmap"))]
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        use tracing::Instrument;
        let task = tokio::spawn(task.instrument(tracing::Span::current()));
        lock(&self.0).push(task);
    }

    /// Waits until they have ended.
    pub(crate) async fn ended(&self) {
        let tasks = std::mem::take(&mut *lock(&self.0));
        for task in tasks {
            // One that has panicked has ended as well.
            let _ = task.await;
        }
    }
}
