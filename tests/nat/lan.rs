//! Nodes on one LAN that know nothing of each other, and find each other by multicast.

use crate::clock::until;
use crate::lab::{Family, Host, Internet, Nat, skipped};
use crate::mesh::{Edge, Mesh, list};

/// Takes links from others, and tells the LAN so.
const ANNOUNCES: [&str; 3] = ["--listen", "[::]:4433", "--lan"];

/// The nodes that this one has links to.
fn linked_to(mesh: &Mesh, edge: &Edge) -> Vec<String> {
    let status = mesh.status(&edge.id);
    let up = list(&status["links"]).iter().filter(|link| link["state"] == "up");
    let mut peers: Vec<_> = up.map(|link| link["peer"].as_str().unwrap().to_owned()).collect();
    peers.sort();
    peers.dedup();
    peers
}

/// Waits until each of them has a link to each other.
fn all_linked(mesh: &Mesh, edges: &[&Edge]) {
    for edge in edges {
        let others = edges.iter().filter(|other| other.id != edge.id);
        let others: Vec<_> = others.map(|other| other.id.clone()).collect();
        until("it has links to all others", || (linked_to(mesh, edge) == others).then_some(()));
    }
}

/// Counts the packets that a host sends to the multicast DNS port.
fn count_announcements(host: &Host) {
    host.namespace.nft(
        "table inet announcements {
           counter sent { }
           chain output {
             type filter hook output priority filter
             udp dport 5353 counter name sent
           }
         }",
    );
}

fn announced(edge: &Edge) -> bool {
    edge.host.namespace.bytes("inet announcements", "sent") > 0
}

#[test]
fn nodes_of_one_lan_find_each_other_and_link() {
    if skipped("nodes_of_one_lan_find_each_other_and_link") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let gateway = internet.gateway("gw", Nat::PortRestricted);
    let mesh = Mesh::without_relays();
    let a = mesh.edge("a", gateway.host("a"), &ANNOUNCES);
    let b = mesh.edge("b", gateway.host("b"), &ANNOUNCES);
    // One that takes no links has nothing to announce, and dials.
    let c = mesh.edge("c", gateway.host("c"), &["--lan"]);
    all_linked(&mesh, &[&a, &b, &c]);
    for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
        mesh.ping(from, to);
    }
}

#[test]
fn a_stranger_on_the_lan_gets_no_link() {
    if skipped("a_stranger_on_the_lan_gets_no_link") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let gateway = internet.gateway("gw", Nat::PortRestricted);
    // Its certificate is another authority's.
    let elsewhere = Mesh::without_relays();
    let stranger = elsewhere.edge("stranger", gateway.host("s"), &ANNOUNCES);
    let mesh = Mesh::without_relays();
    let a = mesh.edge("a", gateway.host("a"), &ANNOUNCES);
    let b = mesh.edge("b", gateway.host("b"), &ANNOUNCES);
    let was_dialled = |from: &Edge, to: &Edge| {
        let log = from.log();
        log.lines().any(|line| line.contains("no link") && line.contains(&to.id)).then_some(())
    };
    until("the stranger was dialled", || was_dialled(&a, &stranger));
    until("the stranger has dialled", || was_dialled(&stranger, &a));
    all_linked(&mesh, &[&a, &b]);
    assert_eq!(linked_to(&elsewhere, &stranger), [] as [String; 0]);
}

#[test]
fn a_relay_does_not_announce_itself_unless_it_is_told_to() {
    if skipped("a_relay_does_not_announce_itself_unless_it_is_told_to") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let gateway = internet.gateway("gw", Nat::PortRestricted);
    let mesh = Mesh::without_relays();
    let start = |id: &str, more: &[&str]| {
        let host = gateway.host(id);
        count_announcements(&host);
        mesh.edge(id, host, more)
    };
    let silent = start("silent", &["--listen", "[::]:4433", "--transit"]);
    let told = start("told", &["--listen", "[::]:4433", "--transit", "--lan"]);
    let finder = start("finder", &["--lan"]);
    // By then everybody has been asked, and who has something to say has said it.
    all_linked(&mesh, &[&finder, &told]);
    assert!(announced(&told) && !announced(&silent));
    assert_eq!(linked_to(&mesh, &silent), [] as [String; 0]);
}
