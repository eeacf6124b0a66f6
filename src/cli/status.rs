//! `receptor status`: what a node knows and does.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use super::args::{MaxStubs, StatusArgs};
use super::place::Place;
use crate::cli::output::json::Document;
use crate::cli::output::text::{Cell, Colour, Paint, Table, escape, millis, span};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::mesh::{Convergence, StatusOptions};

/// Prints the status: for people, or as JSON with every detail.
pub(super) async fn run(args: StatusArgs, env: &Env) -> Result<(), Failure> {
    let options = options(&args);
    let look = async |place: &Place| {
        let waited =
            if args.wait_converged { Some(place.converged(args.timeout).await?) } else { None };
        let text = if args.json {
            place.status::<Document>(options).await?.pretty() + "\n"
        } else {
            place.status::<StatusView>(options).await?.render(Paint::for_stdout())
        };
        Ok((waited, text))
    };
    let (waited, text) = Place::with(args.place, env, look).await?;
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))?;
    match waited {
        Some(Convergence::Partial { count, expected }) => Err(Failure::unreachable(format!(
            "not converged within {:?}: {count} of {expected} nodes are known to have the route to this one",
            args.timeout
        ))),
        _ => Ok(()),
    }
}

/// Scripts get every stub. For a person, the number of stubs of a hub is enough.
fn options(args: &StatusArgs) -> StatusOptions {
    let max_stubs = match args.stubs {
        Some(MaxStubs::All) => None,
        Some(MaxStubs::AtMost(max)) => Some(max),
        None => (!args.json).then_some(MAX_STUBS),
    };
    StatusOptions { max_stubs }
}

/// The displayed part of a status. The node may be of another version: missing fields are omitted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StatusView {
    node_id: String,
    version: String,
    uptime_ms: u64,
    transit: bool,
    relays: Option<Vec<String>>,
    policy: PolicyView,
    ephemeral: bool,
    listen: Vec<String>,
    listen_tcp: Vec<String>,
    carriers: CarriersView,
    duplicate: Option<DuplicateView>,
    stubs: StubsView,
    certificate: CertificateView,
    pub(super) network: NetworkView,
    pub(super) links: Vec<LinkView>,
    pub(super) routes: Vec<RouteView>,
    pub(super) edges: Vec<EdgeView>,
    peers: Vec<PeerView>,
    left: Vec<LeftView>,
    switch: SwitchView,
    services: Vec<String>,
    running_calls: usize,
    handshakes: HandshakesView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StubsView {
    reachable: usize,
    links: usize,
    attached: BTreeMap<String, usize>,
    max_listed: Option<usize>,
}

impl StubsView {
    /// Maximum number of stubs in a list. `None` if no list leaves any out.
    fn cut(&self) -> Option<usize> {
        let longest = self.reachable.max(self.links).max(self.attached.values().sum());
        self.max_listed.filter(|max| *max < longest)
    }

    /// One line for display. `None` if all stubs are listed.
    fn line(&self) -> Option<String> {
        self.cut().map(|max| {
            let reachable = self.reachable;
            let shown = match max {
                0 => "no stubs are listed".to_owned(),
                max => format!("the lists show at most {max}"),
            };
            format!("{reachable} reachable; {shown} (--stubs all shows every stub)")
        })
    }
}

/// Who may do what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PolicyView {
    rules: Option<usize>,
    allows_by_default: bool,
    denied: u64,
    revoked: u64,
    rejected: Option<String>,
}

impl PolicyView {
    fn line(&self, paint: Paint) -> String {
        let mut line = match self.rules {
            None => "none: everybody may do everything".to_owned(),
            Some(1) => "1 rule".to_owned(),
            Some(rules) => format!("{rules} rules"),
        };
        if self.rules.is_some() && self.allows_by_default {
            line += "; what no rule allows is allowed";
        }
        if self.denied + self.revoked > 0 {
            line += &format!("; {} denied, {} ended", self.denied, self.revoked);
        }
        if let Some(why) = &self.rejected {
            let why = format!("; the last reload was refused: {}", escape(why));
            line += &paint.paint(Colour::Red, &why);
        }
        line
    }
}

/// Handshakes that others have begun, by kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HandshakesView {
    carriers: HandshakeView,
    links: HandshakeView,
    greeting: HandshakeView,
    peers: HandshakeView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HandshakeView {
    half_open: usize,
    retried: u64,
    displaced: u64,
    silent: u64,
}

impl HandshakesView {
    /// One line for display. `None` if no neighbour exceeded its share and nothing was dropped.
    fn line(&self) -> Option<String> {
        let all = [&self.carriers, &self.links, &self.greeting, &self.peers];
        let sum = |count: fn(&HandshakeView) -> u64| {
            all.into_iter().map(count).fold(0, u64::saturating_add)
        };
        let (retried, displaced, silent) =
            (sum(|v| v.retried), sum(|v| v.displaced), sum(|v| v.silent));
        let under_way = sum(|v| v.half_open as u64);
        (retried > 0 || displaced > 0 || silent > 0).then(|| {
            format!("{under_way} under way; {retried} had to prove their address, {displaced} displaced, {silent} fell silent")
        })
    }
}

/// Maximum number of displayed stubs in each list, unless another one is given.
const MAX_STUBS: usize = 16;
/// Maximum number of displayed nodes that have left.
const MAX_LEFT: usize = 16;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LeftView {
    node: String,
    ago_s: f64,
    ephemeral: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DuplicateView {
    address: Option<String>,
    yielded: bool,
    refused: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkView {
    pub(super) port_mapping: Option<PortMappingView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PortMappingView {
    pub(super) state: String,
    external: Option<String>,
    protocol: Option<String>,
    why: Option<String>,
}

impl PortMappingView {
    pub(super) fn line(&self) -> String {
        match (&self.external, &self.protocol, &self.why) {
            (Some(external), Some(protocol), _) => {
                format!("{} by {}", escape(external), escape(protocol))
            }
            (_, _, Some(why)) => format!("no ({})", escape(why)),
            _ if self.state == "not-needed" => {
                "not needed: the machine has a public address".to_owned()
            }
            _ => escape(&self.state).into_owned(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CertificateView {
    days_left: Option<i64>,
    valid_in_s: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LinkView {
    pub(super) peer: Option<String>,
    pub(super) state: String,
    pub(super) direction: String,
    carrier: String,
    pub(super) address: String,
    pub(super) rtt_ms: Option<f64>,
    cost: Option<u32>,
    up_ms: Option<u64>,
    pub(super) held_ms: Option<u64>,
    pub(super) mtu: Option<u16>,
    pub(super) observed: Option<std::net::SocketAddr>,
    pub(super) last_error: Option<String>,
}

impl LinkView {
    /// The address, with what the packets travel in if that is not UDP.
    fn place(&self) -> String {
        match self.carrier.as_str() {
            "" | "udp" => self.address.clone(),
            carrier => format!("{carrier}://{}", self.address),
        }
    }
}

/// TCP connections that carry links.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CarriersView {
    open: usize,
    tls_failed: u64,
    not_found: u64,
    without_link: u64,
    bad_frames: u64,
    idle: u64,
    queue_full: u64,
}

impl CarriersView {
    /// One line for display. `None` if there never was one.
    fn line(&self) -> Option<String> {
        let counts = [
            (self.tls_failed, "without TLS"),
            (self.not_found, "for another protocol"),
            (self.without_link, "without a link"),
            (self.bad_frames, "with bad frames"),
            (self.idle, "idle for too long"),
            (self.queue_full, "packets dropped from full queues"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        match (self.open, counts.is_empty()) {
            (0, true) => None,
            (open, true) => Some(format!("{open} open")),
            (open, false) => Some(format!("{open} open; {}", counts.join(", "))),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RouteView {
    pub(super) node: String,
    pub(super) next_hop: String,
    alternates: Vec<String>,
    cost: u64,
    hops: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EdgeView {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cost: u32,
    pub(super) class: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PeerView {
    node: String,
    path: String,
    via: Option<String>,
    address: Option<String>,
    since_s: Option<f64>,
    rtt_ms: f64,
    streams: usize,
    opening: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SwitchView {
    forwarded: u64,
    delivered: u64,
    direct: u64,
    relayed: u64,
    dropped: BTreeMap<String, u64>,
}

/// A certificate with fewer days left is shown in yellow; with none, in red.
const FEW_DAYS: i64 = 30;

impl StatusView {
    /// The node's id, if it says so.
    pub(super) fn name(&self) -> Option<&str> {
        Some(self.node_id.as_str()).filter(|id| !id.is_empty())
    }

    fn render(&self, paint: Paint) -> String {
        let mut text = self.head(paint);
        let mut section = |name: &str, table: &Table<'_>| {
            if !table.is_empty() {
                text += &format!("\n{}\n{}", paint.paint(Colour::Bold, name), table.render(paint));
            }
        };
        section("Links", &self.links());
        section("Routes", &self.routes());
        section("Peers", &self.peers());
        section("Stubs", &self.stubs());
        section("Left within the last hour", &self.left());
        section("Edges of the mesh", &self.edges());
        text + &self.switch(paint)
    }

    /// Where it takes links.
    fn listens_on(&self) -> String {
        let tls = self.listen_tcp.iter().map(|addr| format!("tls://{addr}"));
        let listen: Vec<String> = self.listen.iter().cloned().chain(tls).collect();
        match listen.as_slice() {
            [] => "nothing, it only dials out".to_owned(),
            addrs => escape(&addrs.join(", ")).into_owned(),
        }
    }

    fn head(&self, paint: Paint) -> String {
        let kind = match (self.ephemeral, self.transit) {
            (true, _) => "ephemeral",
            (_, true) => "transit: yes",
            (_, false) => "transit: no",
        };
        let mut text = format!(
            "{}  {kind}, up {}, version {}\n",
            paint.paint(Colour::Bold, &escape(&self.node_id)),
            span(self.uptime_ms),
            escape(&self.version)
        );
        if self.ephemeral && self.routes.is_empty() {
            text += "  routes       none; an ephemeral node leaves routing to its neighbours: see the status of one\n";
        }
        let listen = self.listens_on();
        text += &format!("  listens on   {listen}\n");
        if let Some(line) = self.carriers.line() {
            text += &format!("  carriers     {line}\n");
        }
        if !self.ephemeral {
            let relays = match &self.relays {
                None => "every member is accepted as a relay".to_owned(),
                Some(rules) => format!("only {}", escape(&rules.join(", "))),
            };
            text += &format!("  relays       {relays}\n");
        }
        if let Some(DuplicateView { address, yielded, refused }) = &self.duplicate {
            let place = escape(address.as_deref().unwrap_or("an unknown address"));
            text += &if *yielded {
                format!(
                    "  duplicate    {} at {place}; this node is silent until it is started again\n",
                    paint.paint(Colour::Red, "has yielded its id to another live process")
                )
            } else if *refused {
                format!(
                    "  duplicate    {} at {place}; it tries again until that one is gone\n",
                    paint.paint(Colour::Red, "is refused because another live process has this id")
                )
            } else {
                format!(
                    "  duplicate    another live process with this id at {place} has yielded or was refused\n"
                )
            };
        }
        if let Some(days) = self.certificate.days_left {
            let left = match days {
                _ if self.certificate.valid_in_s.is_some() => {
                    let wait =
                        span(self.certificate.valid_in_s.unwrap_or_default().saturating_mul(1_000));
                    paint.paint(Colour::Red, &format!("not valid yet, but in {wait}"))
                }
                days if days < 0 => paint.paint(Colour::Red, "expired"),
                days if days < FEW_DAYS => {
                    paint.paint(Colour::Yellow, &format!("{days} days left"))
                }
                days => format!("{days} days left"),
            };
            text += &format!("  certificate  {left}\n");
        }
        if let Some(line) = self.stubs.line() {
            text += &format!("  stubs        {line}\n");
        }
        if let Some(mapping) = &self.network.port_mapping {
            text += &format!("  port mapped  {}\n", mapping.line());
        }
        if !self.services.is_empty() {
            text += &format!("  services     {}\n", escape(&self.services.join(", ")));
        }
        text += &format!("  policy       {}\n", self.policy.line(paint));
        if self.running_calls > 0 {
            text += &format!("  calls        {} running\n", self.running_calls);
        }
        if let Some(line) = self.handshakes.line() {
            text += &format!("  handshakes   {line}\n");
        }
        text
    }

    fn links(&self) -> Table<'_> {
        let mut table =
            Table::new(["PEER", "STATE", "DIRECTION", "ADDRESS", "ROUND TRIP", "COST", "UP", ""]);
        for link in &self.links {
            let colour = match link.state.as_str() {
                "up" => Colour::Green,
                "backoff" => Colour::Red,
                _ => Colour::Yellow,
            };
            let held = link.held_ms.map(|held| format!("flapping; held for up to {}", span(held)));
            let trouble =
                held.as_deref().or(link.last_error.as_deref()).filter(|_| link.state != "up");
            table.row([
                Cell::plain(or_dash(link.peer.clone())),
                Cell::plain(&link.state).coloured(colour),
                Cell::plain(&link.direction),
                Cell::plain(link.place()),
                Cell::plain(or_dash(link.rtt_ms.map(millis))),
                Cell::plain(or_dash(link.cost.map(|cost| cost.to_string()))),
                Cell::plain(or_dash(link.up_ms.map(span))),
                Cell::plain(trouble.unwrap_or_default().to_owned()),
            ]);
        }
        table
    }

    fn routes(&self) -> Table<'_> {
        let mut table = Table::new(["NODE", "NEXT HOP", "COST", "HOPS", "ALTERNATES"]);
        for route in &self.routes {
            table.row([
                Cell::plain(&route.node),
                Cell::plain(&route.next_hop),
                Cell::plain(route.cost.to_string()),
                Cell::plain(route.hops.to_string()),
                Cell::plain(if route.alternates.is_empty() {
                    "-".to_owned()
                } else {
                    route.alternates.join(" ")
                }),
            ]);
        }
        table
    }

    fn peers(&self) -> Table<'_> {
        let mut table = Table::new(["NODE", "PATH", "VIA", "FOR", "ROUND TRIP", "STREAMS"]);
        for peer in &self.peers {
            table.row([
                Cell::plain(&peer.node),
                Cell::plain(&peer.path),
                Cell::plain(or_dash(peer.address.clone().or_else(|| peer.via.clone()))),
                Cell::plain(or_dash(peer.since_s.map(|since| span((since * 1_000.0) as u64)))),
                Cell::plain(millis(peer.rtt_ms)),
                Cell::plain(match peer.opening {
                    0 => peer.streams.to_string(),
                    opening => format!("{} (+{opening} waiting)", peer.streams),
                }),
            ]);
        }
        table
    }

    /// The stubs of each node, if the other lists leave some out.
    fn stubs(&self) -> Table<'_> {
        let mut table = Table::new(["ATTACHED TO", "STUBS"]);
        if self.stubs.cut().is_some() {
            for (node, stubs) in &self.stubs.attached {
                table.row([Cell::plain(node), Cell::plain(stubs.to_string())]);
            }
        }
        table
    }

    fn left(&self) -> Table<'_> {
        let mut table = Table::new(["NODE", "LEFT", ""]);
        for left in self.left.iter().take(MAX_LEFT) {
            table.row([
                Cell::plain(&left.node),
                Cell::plain(format!("{} ago", span((left.ago_s * 1_000.0) as u64))),
                Cell::plain(if left.ephemeral { "ephemeral" } else { "" }),
            ]);
        }
        table
    }

    fn edges(&self) -> Table<'_> {
        let mut table = Table::new(["FROM", "TO", "COST", "CLASS"]);
        for edge in &self.edges {
            table.row([
                Cell::plain(&edge.from),
                Cell::plain(&edge.to),
                Cell::plain(edge.cost.to_string()),
                Cell::plain(&edge.class),
            ]);
        }
        table
    }

    fn switch(&self, paint: Paint) -> String {
        let SwitchView { forwarded, delivered, direct, relayed, dropped } = &self.switch;
        let dropped: Vec<_> = dropped.iter().filter(|(_, count)| **count > 0).collect();
        let reasons: Vec<_> =
            dropped.iter().map(|(why, count)| format!("{count} {}", escape(why))).collect();
        let total: u64 = dropped.iter().map(|(_, count)| **count).sum();
        let reasons = if total == 0 { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let head = paint.paint(Colour::Bold, "Switched packets");
        let own = match (direct, relayed) {
            (0, 0) => String::new(),
            _ => format!("  its own: {direct} sent directly, {relayed} by relays\n"),
        };
        format!(
            "\n{head}\n  {forwarded} forwarded, {delivered} delivered, {total} dropped{reasons}\n{own}"
        )
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(status: serde_json::Value) -> String {
        StatusView::deserialize(&status).unwrap().render(Paint::off())
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_has_no_days_left() {
        let text = render(json!({ "certificate": { "days_left": 429, "valid_in_s": 3_600 } }));
        assert!(text.contains("certificate  not valid yet, but in 1 h"), "{text}");
        assert!(!text.contains("429"), "{text}");
    }

    #[test]
    fn a_status_is_shown_in_aligned_sections() {
        let text = render(json!({
            "node_id": "edge-1", "version": "0.1.0", "uptime_ms": 61_000, "listen": ["127.0.0.1:4433"],
            "certificate": { "days_left": 90 },
            "links": [{ "peer": "relay-1", "state": "up", "direction": "outgoing", "address": "127.0.0.1:1",
                        "rtt_ms": 0.25, "cost": 1, "up_ms": 60_000, "last_error": "old" }],
            "routes": [{ "node": "controller", "next_hop": "relay-1", "cost": 2, "hops": 2, "alternates": ["relay-2", "b"] }],
            "peers": [{ "node": "controller", "path": "direct", "address": "192.0.2.7:4433", "via": "relay-1", "since_s": 61.2,
                        "rtt_ms": 12.5, "streams": 2 }],
            "switch": { "forwarded": 0, "delivered": 7, "dropped": { "no_route": 2, "hop_limit": 0 } },
        }));
        let expected = "\
edge-1  transit: no, up 1 min 1 s, version 0.1.0
  listens on   127.0.0.1:4433
  relays       every member is accepted as a relay
  certificate  90 days left
  policy       none: everybody may do everything

Links
  PEER     STATE  DIRECTION  ADDRESS      ROUND TRIP  COST  UP
  relay-1  up     outgoing   127.0.0.1:1  0.25 ms     1     1 min 0 s

Routes
  NODE        NEXT HOP  COST  HOPS  ALTERNATES
  controller  relay-1   2     2     relay-2 b

Peers
  NODE        PATH    VIA             FOR        ROUND TRIP  STREAMS
  controller  direct  192.0.2.7:4433  1 min 1 s  12.5 ms     2

Switched packets
  0 forwarded, 7 delivered, 2 dropped (2 no_route)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn stubs_that_no_list_has_are_counted() {
        let stubs = json!({ "reachable": 3, "links": 2, "attached": { "hub": 3, "relay": 1 }, "max_listed": 2 });
        let text = render(json!({ "node_id": "hub", "stubs": stubs }));
        let line =
            "  stubs        3 reachable; the lists show at most 2 (--stubs all shows every stub)\n";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("\nStubs\n  ATTACHED TO  STUBS\n  hub          3\n  relay        1\n"),
            "{text}"
        );
        let stubs = json!({ "reachable": 3, "attached": { "hub": 3 }, "max_listed": 0 });
        let text = render(json!({ "stubs": stubs }));
        let line = "3 reachable; no stubs are listed (--stubs all shows every stub)\n";
        assert!(text.contains(line), "{text}");
        for max in [json!(4), json!(null)] {
            let stubs = json!({ "reachable": 3, "attached": { "hub": 4 }, "max_listed": max });
            assert!(!render(json!({ "stubs": stubs })).contains("tubs"));
        }
    }

    #[test]
    fn a_node_that_has_yielded_its_id_says_so_and_so_does_the_one_that_keeps_it() {
        let with = |yielded| {
            render(
                json!({ "node_id": "a", "duplicate": { "instance": "1", "address": "192.0.2.1:1", "yielded": yielded } }),
            )
        };
        let yielded = "has yielded its id to another live process at 192.0.2.1:1; this node is silent until it is started again";
        assert!(with(true).contains(&format!("  duplicate    {yielded}\n")), "{}", with(true));
        let keeps = "another live process with this id at 192.0.2.1:1 has yielded or was refused";
        assert!(with(false).contains(&format!("  duplicate    {keeps}\n")), "{}", with(false));
        let refused = render(json!({ "duplicate": { "address": "192.0.2.1:1", "refused": true } }));
        let text =
            "is refused because another live process has this id at 192.0.2.1:1; it tries again";
        assert!(refused.contains(text), "{refused}");
    }

    #[test]
    fn how_it_goes_with_the_routers_port_is_shown_where_it_was_asked_for() {
        let render =
            |mapping| render(json!({ "node_id": "a", "network": { "port_mapping": mapping } }));
        let mapped =
            json!({ "state": "mapped", "external": "203.0.113.7:4433", "protocol": "pcp" });
        assert!(render(mapped).contains("  port mapped  203.0.113.7:4433 by pcp\n"));
        let failed = json!({ "state": "failed", "why": "UPnP: no answer" });
        assert!(render(failed).contains("  port mapped  no (UPnP: no answer)\n"));
        assert!(render(json!({ "state": "not-needed" })).contains("  port mapped  not needed"));
        assert!(!render(json!(null)).contains("port mapped"));
    }

    #[test]
    fn a_status_of_another_version_is_shown_as_far_as_it_goes() {
        assert!(render(json!({ "node_id": "old", "new_field": 1 })).starts_with("old  "));
    }

    #[test]
    fn what_a_neighbour_says_cannot_steer_the_terminal() {
        let links = json!([{ "state": "backoff", "last_error": "\u{1b}[2Jgone" }]);
        assert!(render(json!({ "links": links })).contains("\\u{1b}[2Jgone"));
    }
}
