//! A port of the router, mapped to this node's: by PCP (RFC 6887), NAT-PMP (RFC 6886), or UPnP IGD.
//! IPv4 only, since IPv6 needs no mapping.
//!
//! ```text
//!   network ─▶ gateway and own address ─▶ PCP, else NAT-PMP ─▶ UPnP ─┬─▶ mapped: renewed at half its life
//!      ▲                                                            └─▶ failed: retried later
//!      └──────────── another network: at once, from the beginning ────────────┘
//! ```
//!
//! A mapping is removed when the node leaves; one that is left behind by a crash ends by itself
//! within [`LIFETIME`].

mod plan;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GatewayIpVersion, PortMappingProtocol, SearchOptions};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::interfaces::addresses::LocalNetwork;
use crate::mesh::input::Input;
use crate::mesh::report::status::PortMappingStatus;
use crate::mesh::view::View;
use plan::{Place, RetryDelay, renew_after, usable_outside};

/// How long a mapping lasts unless it is renewed.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// How the gateway is asked by PCP and NAT-PMP: four times within 3.75 s.
const ASKING: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: None,
};
/// How long the search for a UPnP gateway may take.
const SEARCH: Duration = Duration::from_secs(3);
/// How long a node that leaves waits for the router: for a request that is under way, and then for
/// the removal of the mapping. Routers answer on the local network within milliseconds, and a
/// mapping that stays ends by itself.
const FAREWELL: Duration = Duration::from_millis(250);
/// What routers show in their lists of mappings. Neither the node's name nor the machine's.
const DESCRIPTION: &str = "receptor-quic";

/// Keeps a port mapped.
pub(crate) struct PortMapper {
    /// The port of the node's UDP socket.
    pub(crate) port: NonZeroU16,
    pub(crate) network: watch::Receiver<Arc<LocalNetwork>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// A mapping that the gateway has granted.
enum Mapping {
    /// By PCP or NAT-PMP.
    Pcp { mapping: Box<PortMapping>, external: SocketAddr },
    /// By UPnP IGD.
    Upnp {
        gateway: Box<Gateway<Tokio>>,
        local: SocketAddr,
        external: SocketAddr,
        lifetime: Duration,
    },
}

impl PortMapper {
    /// Runs until the node leaves, and removes the mapping then.
    pub(crate) async fn run(mut self) {
        let mut mapping = None;
        self.keep_mapped(&mut mapping).await;
        if let Some(mapping) = mapping {
            let _ = tokio::time::timeout(FAREWELL, mapping.remove()).await;
        }
    }

    /// Returns when the node leaves. A request that is under way then is waited for: its mapping is
    /// to be removed.
    async fn keep_mapped(&mut self, mapping: &mut Option<Mapping>) {
        let mut view = self.view.clone();
        // An error means that the driver has gone.
        let leaves = async {
            let _ = view
                .wait_for(|view| view.closed || view.leaving || view.yielded_to.is_some())
                .await;
        };
        let mut leaves = pin!(leaves);
        let mut delay = RetryDelay::default();
        loop {
            let network = self.network.borrow_and_update().clone();
            let Some(mapped) = or_leave(leaves.as_mut(), self.map(&network, mapping)).await else {
                return;
            };
            let wait = match mapped {
                Ok(wait) => {
                    delay = RetryDelay::default();
                    wait
                }
                Err(why) => {
                    debug!(%why, "no port is mapped");
                    *mapping = None;
                    self.tell(PortMappingStatus::Failed { why }).await;
                    delay.next()
                }
            };
            let moved = tokio::select! {
                biased;
                () = leaves.as_mut() => return,
                moved = self.wait(wait, &network) => moved,
            };
            if moved {
                delay = RetryDelay::default();
                // It belongs to the network before, and is not asked for any more there.
                *mapping = None;
            }
        }
    }

    /// Makes or renews the mapping. Returns its lifetime, or why it failed.
    async fn map(
        &self,
        network: &LocalNetwork,
        mapping: &mut Option<Mapping>,
    ) -> Result<Duration, String> {
        let granted = match mapping {
            // It stays in place meanwhile, so that it can be removed if this is cancelled.
            Some(known) => known.renew().await.map(|()| known),
            None => match Place::of(network) {
                Place::Public => {
                    self.tell(PortMappingStatus::NotNeeded).await;
                    return Ok(LIFETIME);
                }
                Place::Nowhere => Err("this machine has no IPv4 address on the way out".to_owned()),
                Place::Behind { local, gateway } => {
                    self.tell(PortMappingStatus::Asking).await;
                    self.ask(local, gateway).await.map(|granted| &mut *mapping.insert(granted))
                }
            },
        }?;
        let external = granted.external();
        let wait = renew_after(granted.lifetime());
        let protocol = granted.protocol();
        if let Err(why) = usable_outside(external.ip()) {
            self.tell(PortMappingStatus::Failed { why }).await;
            return Ok(wait);
        }
        info!(%external, protocol, "a port of the router is mapped to this node");
        self.tell(PortMappingStatus::Mapped { external, protocol: protocol.into() }).await;
        Ok(wait)
    }

    /// Tries one protocol after the other.
    async fn ask(&self, local: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Result<Mapping, String> {
        let by_pcp = match gateway {
            Some(gateway) => pcp(local, gateway, self.port).await,
            None => Err("the router's address is not known".to_owned()),
        };
        match by_pcp {
            Ok(mapping) => Ok(mapping),
            Err(no_pcp) => {
                upnp(local, self.port).await.map_err(|no_upnp| format!("{no_pcp}; {no_upnp}"))
            }
        }
    }

    /// Waits; whether the network has changed meanwhile.
    async fn wait(&mut self, wait: Duration, before: &LocalNetwork) -> bool {
        let moved = async {
            if self.network.wait_for(|now| now.moved_since(before)).await.is_err() {
                // The network is not observed.
                std::future::pending::<()>().await;
            }
        };
        tokio::time::timeout(wait, moved).await.is_ok()
    }

    async fn tell(&self, status: PortMappingStatus) {
        // The driver has gone if this fails, and the node with it.
        let _ = self.inputs.send(Input::PortMapping(status)).await;
    }
}

impl Mapping {
    fn external(&self) -> SocketAddr {
        match self {
            Self::Pcp { external, .. } | Self::Upnp { external, .. } => *external,
        }
    }

    fn lifetime(&self) -> Duration {
        match self {
            Self::Pcp { mapping, .. } => Duration::from_secs(mapping.lifetime().into()),
            Self::Upnp { lifetime, .. } => *lifetime,
        }
    }

    fn protocol(&self) -> &'static str {
        match self {
            Self::Pcp { mapping, .. }
                if matches!(mapping.mapping_type(), PortMappingType::NatPmp) =>
            {
                "nat-pmp"
            }
            Self::Pcp { .. } => "pcp",
            Self::Upnp { .. } => "upnp",
        }
    }

    async fn renew(&mut self) -> Result<(), String> {
        match self {
            Self::Pcp { mapping, external } => {
                mapping.renew().await.map_err(|error| error.to_string())?;
                *external = external_of(mapping).await?;
            }
            Self::Upnp { gateway, local, external, lifetime } => {
                external
                    .set_port(upnp_map(gateway, *local, Some(external.port()), *lifetime).await?);
                external.set_ip(upnp_external(gateway).await?);
            }
        }
        Ok(())
    }

    async fn remove(self) {
        let removed = match self {
            Self::Pcp { mapping, .. } => {
                mapping.try_drop().await.map_err(|(error, _)| error.to_string())
            }
            Self::Upnp { gateway, external, .. } => {
                let removed = gateway.remove_port(PortMappingProtocol::UDP, external.port()).await;
                removed.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = removed {
            debug!(error, "the router may keep the mapping until it ends");
        }
    }
}

/// What `work` comes to; `None` if the node leaves. `work` has [`FAREWELL`] then to end what it has
/// begun.
async fn or_leave<T>(
    mut leaves: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        () = leaves.as_mut() => {
            let _ = tokio::time::timeout(FAREWELL, work).await;
            None
        }
        done = work.as_mut() => Some(done),
    }
}

/// By PCP; by NAT-PMP, if the gateway says that it speaks that.
async fn pcp(local: Ipv4Addr, gateway: Ipv4Addr, port: NonZeroU16) -> Result<Mapping, String> {
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)),
        timeout_config: Some(ASKING),
    };
    let mapping =
        PortMapping::new(gateway.into(), local.into(), InternetProtocol::Udp, port, options).await;
    let mapping = Box::new(mapping.map_err(|error| format!("{gateway}: {error}"))?);
    let external = external_of(&mapping).await?;
    Ok(Mapping::Pcp { mapping, external })
}

async fn external_of(mapping: &PortMapping) -> Result<SocketAddr, String> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            let ip = natpmp::external_address(mapping.gateway(), Some(ASKING)).await;
            ip.map_err(|error| format!("NAT-PMP: {error}"))?.into()
        }
    };
    Ok(SocketAddr::new(ip.to_canonical(), mapping.external_port().get()))
}

async fn upnp(local: Ipv4Addr, port: NonZeroU16) -> Result<Mapping, String> {
    let mut options = SearchOptions::default();
    // On the way out, and not on whatever else the machine is linked to.
    options.bind_addr = SocketAddr::new(local.into(), 0);
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    options.gateway_ip_version = GatewayIpVersion::V4;
    let gateway =
        Box::new(search_gateway(options).await.map_err(|error| format!("UPnP: {error}"))?);
    let local = SocketAddr::new(local.into(), port.get());
    let ip = upnp_external(&gateway).await?;
    let external = upnp_map(&gateway, local, None, LIFETIME).await?;
    Ok(Mapping::Upnp {
        gateway,
        local,
        external: SocketAddr::new(ip, external),
        lifetime: LIFETIME,
    })
}

async fn upnp_external(gateway: &Gateway<Tokio>) -> Result<IpAddr, String> {
    gateway.get_external_ip().await.map_err(|error| format!("UPnP: {error}"))
}

/// Maps `port`, or the one that the node has itself, or any other if that one is taken.
async fn upnp_map(
    gateway: &Gateway<Tokio>,
    local: SocketAddr,
    port: Option<u16>,
    lifetime: Duration,
) -> Result<u16, String> {
    let port = port.unwrap_or_else(|| local.port());
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let udp = PortMappingProtocol::UDP;
    match gateway.add_port(udp, port, local, seconds, DESCRIPTION).await {
        Ok(()) => Ok(port),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            let mapped = gateway.add_port(udp, port, local, 0, DESCRIPTION).await;
            mapped.map(|()| port).map_err(|error| format!("UPnP: {error}"))
        }
        Err(AddPortError::PortInUse) => {
            let mapped = gateway.add_any_port(udp, local, seconds, DESCRIPTION).await;
            mapped.map_err(|error| format!("UPnP: {error}"))
        }
        Err(error) => Err(format!("UPnP: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_waited_for_when_the_node_leaves() {
        let mut granted = None;
        let request = async {
            tokio::time::sleep(FAREWELL / 2).await;
            granted = Some("a mapping");
        };
        let leaves = tokio::time::sleep(FAREWELL / 4);
        assert_eq!(or_leave(pin!(leaves), request).await, None);
        assert_eq!(granted, Some("a mapping"), "it is there to be removed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_does_not_answer_does_not_hold_a_node_that_leaves() {
        let start = tokio::time::Instant::now();
        assert_eq!(or_leave(pin!(ready(())), pending::<()>()).await, None);
        assert_eq!(start.elapsed(), FAREWELL);
        assert_eq!(or_leave(pin!(pending()), ready(7)).await, Some(7));
    }
}
