//! Diagnoses of the network from a node's status.

use std::net::{IpAddr, SocketAddr};

use super::finding::Finding;
use crate::cli::output::text::{millis, span};
use crate::cli::status::{LinkView, StatusView};
use crate::id::NodeId;
use crate::mesh::PeerAddr;
use crate::punch::{NatClass, classify};

/// A clock that is farther off makes certificates expired or not valid yet, in milliseconds.
const CLOCK_OFF: i64 = 60_000;
/// The size of a UDP payload that every path must carry, in bytes (RFC 9000, section 14).
const LEAST_MTU: u16 = 1_200;

fn is_up(link: &LinkView) -> bool {
    matches!(link.state.as_str(), "up" | "held" | "syncing" | "draining")
}

/// Whether a link is up, or it is known why not.
pub(super) fn has_answered(link: &LinkView) -> bool {
    is_up(link) || link.last_error.is_some()
}

/// Some neighbour.
pub(super) fn a_neighbour(status: &StatusView) -> Option<&str> {
    status.links.iter().filter(|link| is_up(link)).find_map(|link| link.peer.as_deref())
}

/// Whether each configured peer can be linked to.
pub(super) fn peers(status: &StatusView, peers: &[PeerAddr]) -> Vec<Finding> {
    let up: Vec<_> = status.links.iter().filter(|link| is_up(link)).collect();
    // A link that is up is listed by its address, not by the name that was dialled; others are
    // listed by name.
    let down = |peer: &PeerAddr| {
        let dialled = peer.host_and_port();
        status.links.iter().find(|link| !is_up(link) && link.address == dialled)
    };
    let mut findings: Vec<_> = up
        .iter()
        .filter(|link| link.direction == "outgoing")
        .map(|link| {
            let rtt =
                link.rtt_ms.map(|rtt| format!(", round trip {}", millis(rtt))).unwrap_or_default();
            let peer = link.peer.as_deref().unwrap_or("a node");
            Finding::ok("peer", format!("{peer} at {} is linked{rtt}", link.address))
        })
        .collect();
    findings.extend(peers.iter().filter_map(|peer| {
        let link = down(peer)?;
        let (text, advice) = match &link.last_error {
            Some(error) if error.contains("timed out") || error.contains("no answer") || error.contains("unreachable") => (
                format!("{peer} does not answer: {error}"),
                format!(
                    "check that it runs and listens there, and that UDP port {} is open there and outbound from here",
                    peer.port
                ),
            ),
            Some(error) => (format!("no link to {peer}: {error}"), "fix the cause".to_owned()),
            None => (
                format!("{peer} has not answered yet"),
                format!("check that UDP port {} is open there and outbound from here", peer.port),
            ),
        };
        // One link is enough to work.
        Some(if up.is_empty() { Finding::fail("peer", text, advice) } else { Finding::warn("peer", text, advice) })
    }));
    findings
}

/// Links that are held back because they flap.
pub(super) fn holds(status: &StatusView) -> Vec<Finding> {
    let look = |link: &LinkView| {
        let (peer, held) = (link.peer.as_deref().unwrap_or("a node"), link.held_ms?);
        let text = format!(
            "the link to {peer} is flapping; it is not used for routed traffic for up to {}",
            span(held)
        );
        Some(Finding::warn(
            "flapping",
            text,
            "check for packet loss and address changes on the path",
        ))
    };
    status.links.iter().filter_map(look).collect()
}

/// The path MTU of each link.
pub(super) fn mtu(status: &StatusView) -> Vec<Finding> {
    let look = |link: &LinkView| {
        let (peer, mtu) = (link.peer.as_deref()?, link.mtu?);
        Some(if mtu > LEAST_MTU {
            Finding::ok("path MTU", format!("UDP payloads of {mtu} bytes reach {peer}"))
        } else {
            let text = format!("only UDP payloads of {mtu} bytes are known to reach {peer}");
            Finding::warn(
                "path MTU",
                text,
                "check for tunnels on the path; larger packets cost less",
            )
        })
    };
    status.links.iter().filter(|link| is_up(link)).filter_map(look).collect()
}

/// The class of the NAT as observed by neighbours. `local_ip` is the source address of packets.
pub(super) fn nat(
    status: &StatusView,
    local_ip: impl Fn(SocketAddr) -> Option<IpAddr>,
) -> Option<Finding> {
    let check = "NAT";
    // IPv4 is what NATs are for; behind IPv6 there are firewalls.
    let seen: Vec<(SocketAddr, SocketAddr)> = status
        .links
        .iter()
        .filter(|link| is_up(link))
        .filter_map(|link| Some((link.observed?, link.address.parse::<SocketAddr>().ok()?)))
        .map(|(observed, remote)| (canonical(observed), canonical(remote)))
        .filter(|(observed, _)| observed.is_ipv4())
        .collect();
    let (first, remote) = *seen.first()?;
    let local = local_ip(remote);
    let addresses: Vec<_> = seen.iter().map(|(observed, _)| *observed).collect();
    Some(match classify(&addresses, |addr| Some(addr.ip()) == local) {
        NatClass::Public => {
            Finding::ok(check, format!("none: observed at {first}, an address of this machine"))
        }
        NatClass::Unknown => Finding::warn(
            check,
            format!("observed at {first}; one neighbour cannot determine the class of the NAT"),
            "link to a second relay at another address",
        ),
        NatClass::EndpointIndependent => Finding::ok(
            check,
            format!("all neighbours observe {first}: direct paths work with most peers"),
        ),
        NatClass::EndpointDependent => Finding::warn(
            check,
            "each neighbour observes another address: the NAT mapping is endpoint-dependent",
            "direct paths work only with peers that are public or let anyone in; map a port, or use IPv6",
        ),
    })
}

/// The state of the requested port mapping.
pub(super) fn port_mapping(status: &StatusView) -> Option<Finding> {
    let mapping = status.network.port_mapping.as_ref()?;
    Some(if mapping.state == "failed" {
        let advice = "enable PCP, NAT-PMP or UPnP on the router, or forward a port manually and configure it with --external";
        Finding::warn("port mapping", mapping.line(), advice)
    } else {
        Finding::ok("port mapping", mapping.line())
    })
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The offset between this machine's clock and a neighbour's.
pub(super) fn clock(neighbour: &NodeId, neighbour_ahead_ms: i64) -> Finding {
    let check = "clock";
    let off = millis(neighbour_ahead_ms.unsigned_abs() as f64);
    if neighbour_ahead_ms.abs() <= CLOCK_OFF {
        return Finding::ok(check, format!("within {off} of that of {neighbour}"));
    }
    let (this, other) =
        if neighbour_ahead_ms > 0 { ("behind", "ahead") } else { ("ahead of", "behind") };
    let text = format!("this clock is {off} {this} that of {neighbour}");
    Finding::warn(
        check,
        text,
        format!(
            "synchronise it by NTP, here or there (theirs may be {other}): certificates depend on it"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::finding::Verdict;

    fn status(links: serde_json::Value) -> StatusView {
        StatusView::deserialize(json!({ "links": links })).unwrap()
    }

    fn up(peer: &str, address: &str, observed: &str) -> serde_json::Value {
        json!({ "peer": peer, "state": "up", "direction": "outgoing", "address": address, "observed": observed, "mtu": 1_452 })
    }

    #[test]
    fn a_peer_that_does_not_answer_is_a_failure_only_if_no_other_does() {
        let down = json!({ "state": "backoff", "direction": "outgoing", "address": "relay.example:4433", "last_error": "timed out" });
        let configured = ["r@relay.example:4433".parse().unwrap()];
        let alone = peers(&status(json!([down])), &configured);
        assert_eq!(alone[0].verdict, Verdict::Fail);
        assert!(alone[0].advice.as_ref().unwrap().contains("UDP port 4433"));
        let with_another =
            peers(&status(json!([down, up("s", "192.0.2.2:1", "198.51.100.1:7")])), &configured);
        assert_eq!(
            with_another.iter().map(|f| f.verdict).collect::<Vec<_>>(),
            [Verdict::Ok, Verdict::Warn]
        );
    }

    #[test]
    fn the_kind_of_nat_is_told_by_what_two_neighbours_see() {
        let kind = |a: &str, b: &str, local: &str| {
            let status = status(json!([up("a", "192.0.2.1:1", a), up("b", "192.0.2.2:1", b)]));
            nat(&status, |_| Some(local.parse().unwrap())).unwrap()
        };
        assert!(
            kind("198.51.100.1:7", "198.51.100.1:7", "10.0.0.1").text.contains("direct paths work")
        );
        assert!(
            kind("198.51.100.1:7", "198.51.100.1:8", "10.0.0.1").text.contains("another address")
        );
        assert!(kind("198.51.100.1:7", "198.51.100.1:7", "198.51.100.1").text.starts_with("none"));
        let one = status(json!([up("a", "192.0.2.1:1", "198.51.100.1:7")]));
        assert!(nat(&one, |_| None).unwrap().advice.unwrap().contains("second relay"));
    }

    #[test]
    fn a_port_that_the_router_does_not_map_is_worth_a_word_if_it_was_asked_for() {
        let with = |mapping| {
            let status = json!({ "links": [], "network": { "port_mapping": mapping } });
            port_mapping(&StatusView::deserialize(status).unwrap())
        };
        assert_eq!(with(json!(null)), None);
        assert_eq!(
            with(json!({ "state": "failed", "why": "upnp: no answer" })).unwrap().verdict,
            Verdict::Warn
        );
        let mapped = json!({ "state": "mapped", "external": "203.0.113.1:7", "protocol": "pcp" });
        assert!(with(mapped).unwrap().text.contains("203.0.113.1:7"));
    }

    #[test]
    fn a_clock_is_off_by_more_than_a_minute_or_not_worth_a_word() {
        let peer = "relay-1".parse().unwrap();
        assert_eq!(clock(&peer, 59_000).verdict, Verdict::Ok);
        assert_eq!(clock(&peer, 61_000).verdict, Verdict::Warn);
        assert!(clock(&peer, -3_600_000).text.contains("ahead of"));
    }

    #[test]
    fn a_link_that_is_held_back_is_reported_with_its_remaining_time() {
        let mut held = up("a", "192.0.2.1:1", "198.51.100.1:7");
        (held["state"], held["held_ms"]) = (json!("held"), json!(8_000));
        let found = holds(&status(json!([up("b", "192.0.2.1:1", "198.51.100.1:7"), held])));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].verdict, Verdict::Warn);
        assert!(
            found[0].text.contains("link to a") && found[0].text.contains("8 s"),
            "{}",
            found[0].text
        );
    }

    #[test]
    fn a_path_that_carries_the_least_only_is_worth_a_look() {
        let mut narrow = up("a", "192.0.2.1:1", "198.51.100.1:7");
        narrow["mtu"] = json!(1_200);
        let found = mtu(&status(json!([up("b", "192.0.2.1:1", "198.51.100.1:7"), narrow])));
        assert_eq!(
            found.iter().map(|f| f.verdict).collect::<Vec<_>>(),
            [Verdict::Ok, Verdict::Warn]
        );
    }
}
