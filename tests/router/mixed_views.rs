//! Nodes that permit transit through different relays: each routes by a graph of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use receptor_quic::NodeId;
use receptor_quic::id::NodeAddr;
use receptor_quic::router::{
    Attachment as StubProof, AttachmentVerdict, Explanation, Notary, Proof, Verdict,
};
use receptor_quic::switch::{
    Attachment, Cookie, Decision, DropReason, ForwardingTable, Header, Ingress, NextHop, Routes,
};

use crate::fuzz::PrintSeed;
use crate::notary::Plain;
use crate::rng::Rng;
use crate::sim::{Sim, id};
use crate::topologies;

/// The hop limit beyond twice the length of a path.
const SPARE_HOPS: u32 = 8;

/// A notary of a node that does not permit transit through some relays.
#[derive(Debug)]
struct Picky {
    plain: Plain,
    refuses: BTreeSet<NodeId>,
}

impl Notary for Picky {
    fn credential(&self) -> Bytes {
        self.plain.credential()
    }

    fn sign(&self, record: &[u8]) -> Option<Bytes> {
        self.plain.sign(record)
    }

    fn verify(
        &self,
        origin: &NodeId,
        record: &[u8],
        proof: &Proof,
        credential: Option<&[u8]>,
    ) -> Verdict {
        self.plain.verify(origin, record, proof, credential)
    }

    fn permits_transit(&self, origin: &NodeId, _: Option<&[u8]>) -> bool {
        !self.refuses.contains(origin)
    }

    fn verify_attachment(&self, attachment: &StubProof) -> AttachmentVerdict {
        self.plain.verify_attachment(attachment)
    }
}

/// Up to nine nodes, connected; each permits most of the others. Their views differ, or do not.
struct Mixed {
    sim: Sim,
    links: BTreeSet<(NodeId, NodeId)>,
    refuses: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Mixed {
    fn new(seed: u64, alike: bool) -> Self {
        let mut rng = Rng::new(seed);
        let names = topologies::names(4 + rng.below(6) as usize);
        let ids: Vec<NodeId> = names.iter().map(|name| id(name)).collect();
        let mut draw = || ids.iter().filter(|_| rng.chance(25)).cloned().collect::<BTreeSet<_>>();
        let common = draw();
        let refuses: BTreeMap<_, _> = ids
            .iter()
            .map(|id| (id.clone(), if alike { common.clone() } else { draw() }))
            .collect();
        let mut sim = Sim::new(seed);
        let of = refuses.clone();
        sim.vary = Some(Box::new(move |config, _| {
            let (plain, refuses) = (Plain::of(&config.id), of[&config.id].clone());
            config.notary = Some(Arc::new(Picky { plain, refuses }));
        }));
        sim.boot_all(names.iter().cloned());
        let mut edges: BTreeSet<_> =
            (1..ids.len()).map(|n| (rng.below(n as u64) as usize, n)).collect();
        for _ in 0..ids.len() {
            let (a, b) =
                (rng.below(ids.len() as u64) as usize, rng.below(ids.len() as u64) as usize);
            if a < b {
                edges.insert((a, b));
            }
        }
        let mut links = BTreeSet::new();
        for (a, b) in edges {
            let cost = 1 + rng.below(3) as u32;
            sim.connect_cost(&names[a], &names[b], cost, cost);
            links.insert((ids[a].clone(), ids[b].clone()));
            links.insert((ids[b].clone(), ids[a].clone()));
        }
        sim.run_for(Duration::from_secs(30));
        Self { sim, links, refuses }
    }

    /// The nodes that `from` reaches by relays that it permits: the naive way.
    fn within_reach(&self, from: &NodeId) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::from([from.clone()]);
        loop {
            let relays = |by: &NodeId| by == from || !self.refuses[from].contains(by);
            let next = self.links.iter().filter(|(by, _)| reached.contains(by) && relays(by));
            let more: BTreeSet<_> =
                next.map(|(_, to)| to.clone()).chain(reached.iter().cloned()).collect();
            if more == reached {
                return reached;
            }
            reached = more;
        }
    }

    /// The switch of each node, as its router's table and its links make it.
    fn switches(&self) -> BTreeMap<NodeAddr, ForwardingTable> {
        self.refuses.keys().map(|id| (id.addr(), self.switch(id))).collect()
    }

    fn switch(&self, of: &NodeId) -> ForwardingTable {
        let router = &self.sim.nodes[of].router;
        let mut routes = Routes::default();
        for route in router.table().iter() {
            let next_hops: Vec<_> =
                route.next_hops.iter().map(|hop| routes.place(hop.addr())).collect();
            let alternates: Vec<_> =
                route.alternates.iter().map(|hop| routes.place(hop.addr())).collect();
            let limit = u8::try_from(2 * route.hops + SPARE_HOPS).unwrap();
            routes.insert(route.addr, next_hops, alternates, limit);
        }
        let mut switch = ForwardingTable::new(of.addr(), true, routes.into());
        for (_, neighbour) in self.links.iter().filter(|(from, _)| from == of) {
            let transit = router.permits_transit(neighbour);
            let ingress = Ingress { neighbour: neighbour.addr(), transit };
            switch.admit(cookie(neighbour.addr(), of.addr()), ingress);
            switch.link(NextHop {
                neighbour: neighbour.addr(),
                to: "192.0.2.1:9".parse().unwrap(),
                from: None,
                local_port: None,
                cookie: cookie(of.addr(), neighbour.addr()),
            });
        }
        switch
    }
}

/// Admits packets of `from` at `to`.
fn cookie(from: NodeAddr, to: NodeAddr) -> Cookie {
    let mut cookie = from.0;
    cookie
        .iter_mut()
        .zip(to.0)
        .for_each(|(byte, other)| *byte = byte.wrapping_mul(3).wrapping_add(other));
    Cookie(cookie)
}

/// Where a packet ends, and after how many hops.
fn send(
    switches: &BTreeMap<NodeAddr, ForwardingTable>,
    from: NodeAddr,
    to: NodeAddr,
) -> (Decision, u32) {
    let Some((mut hop, limit)) = switches[&from].originate(to) else {
        return (Decision::Drop(DropReason::NoRoute), 0);
    };
    let header = Header {
        hop_limit: limit,
        cookie: hop.cookie,
        destination: to,
        source: from,
        attachment: Attachment::None,
    };
    let mut packet = [&*header.encode(), b"payload"].concat();
    for hops in 1.. {
        let header = Header::decode(&packet).unwrap();
        match switches[&hop.neighbour].decide(&header) {
            Decision::Forward(next) => {
                assert!(hops <= u32::from(limit), "a packet outlives its hop limit of {limit}");
                Header::rewrite(&mut packet, next.cookie);
                hop = next;
            }
            end => return (end, hops),
        }
    }
    unreachable!("a packet has an end")
}

#[test]
fn nodes_that_permit_the_same_relays_reach_what_they_say() {
    for seed in 0..60 {
        let _seed = PrintSeed(seed);
        let mixed = Mixed::new(seed, true);
        let switches = mixed.switches();
        for (from, to) in pairs(&mixed) {
            let (end, _) = send(&switches, from.addr(), to.addr());
            let has_route = mixed.sim.nodes[&from].router.table().route(&to).is_some();
            let expected =
                if has_route { Decision::Deliver } else { Decision::Drop(DropReason::NoRoute) };
            assert_eq!(end, expected, "{from} to {to}");
        }
    }
}

#[test]
fn no_packet_circulates_where_nodes_permit_different_relays() {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 100..220 {
        let _seed = PrintSeed(seed);
        let mixed = Mixed::new(seed, false);
        let switches = mixed.switches();
        for (from, to) in pairs(&mixed) {
            // `send` asserts that the hop limit ends each packet.
            let (end, _) = send(&switches, from.addr(), to.addr());
            *ends.entry(format!("{end:?}")).or_default() += 1;
            let permitted = [DropReason::ForgedSource, DropReason::HopLimit, DropReason::NoRoute];
            let known = match end {
                Decision::Drop(why) => permitted.contains(&why),
                Decision::Deliver | Decision::Hold => true,
                Decision::Forward(_) => false,
            };
            assert!(known, "{from} to {to}: {end:?}");
        }
    }
    println!("{ends:?}");
    let delivered = ends["Deliver"];
    let all: u32 = ends.values().sum();
    assert!(delivered * 10 > all * 6, "most packets arrive all the same: {ends:?}");
    assert!(ends.contains_key("Drop(ForgedSource)"), "views differ: {ends:?}");
}

#[test]
fn what_no_permitted_relay_leads_to_is_said_to_be_unreachable() {
    let mut unreachable = 0;
    for seed in 300..420 {
        let _seed = PrintSeed(seed);
        let mixed = Mixed::new(seed, false);
        for from in mixed.refuses.keys() {
            let router = &mixed.sim.nodes[from].router;
            let reached = mixed.within_reach(from);
            for to in mixed.refuses.keys().filter(|to| *to != from) {
                let explanation = router.explain(to);
                let Explanation::NoTransit { not_permitted, .. } = explanation else {
                    assert!(reached.contains(to), "{from} to {to}: {explanation:?}");
                    assert!(router.table().route(to).is_some(), "{from} to {to}: {explanation:?}");
                    continue;
                };
                unreachable += 1;
                assert!(!reached.contains(to), "{from} reaches {to}");
                assert!(router.table().route(to).is_none(), "{from} has a route to {to}");
                assert!(
                    !not_permitted.is_empty(),
                    "{from} does not say which relays it does not permit"
                );
                assert!(not_permitted.iter().all(|relay| mixed.refuses[from].contains(relay)));
            }
        }
    }
    assert!(unreachable > 100, "{unreachable} unreachable pairs are too few");
}

fn pairs(mixed: &Mixed) -> Vec<(NodeId, NodeId)> {
    let ids = || mixed.refuses.keys();
    ids()
        .flat_map(|from| ids().filter(move |to| *to != from).map(|to| (from.clone(), to.clone())))
        .collect()
}
