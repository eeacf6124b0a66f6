//! Neighbours that break the routing protocol, or lie in it.

use std::time::Duration;

use super::attacker::*;
use crate::id::{Cost, NodeId, Version};
use crate::router::{Advertisement, Digest, Draft, Entry, Link, LinkClass, Message, Stamp};
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_the_routing_protocol_closes_the_link() {
    let scene = Scene::new().await;
    let digest = Message::Digest { digest: Digest::default(), count: 0 };
    let garbage = Message::Update(Advertisement::new(Rng(1).bytes(300).into()));
    let empty = Message::Update(Advertisement::new(Vec::new().into()));
    for (what, messages) in [
        ("no digest first", vec![Message::SyncEnd]),
        ("a record that is none", vec![digest.clone(), garbage]),
        ("an empty record", vec![digest.clone(), empty]),
        ("the end of the sync, twice", vec![digest, Message::SyncEnd, Message::SyncEnd]),
    ] {
        let mut attacker = scene.link().await;
        for message in messages {
            attacker.write(&Frame::Route(message.encode().into()).encode()).await;
        }
        assert_eq!(attacker.closed().await, CloseCode::RoutingViolation, "{what}");
        scene.assert_unharmed(what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn routing_before_the_session_is_nobodys_business() {
    let scene = Scene::new().await;
    let mut attacker = scene.greet().await;
    attacker.write(&Frame::Route(Message::SyncEnd.encode().into()).encode()).await;
    attacker.assert_answered("no session").await;
    scene.assert_serves("no session").await;
}

#[tokio::test(start_paused = true)]
async fn records_of_nonsense_take_no_neighbour_away() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    let digest = Message::Digest { digest: Digest(7), count: 3 };
    attacker.write(&Frame::Route(digest.encode().into()).encode()).await;
    let names: Vec<NodeId> = (0..50).map(|nth| id(&format!("ghost-{nth:02}"))).collect();
    let victims = [id("honest"), id("victim")];
    for origin in names.iter().chain(&victims) {
        let link = |peer: &NodeId| Link { peer: peer.clone(), class: LinkClass::Active, cost: Cost::DEFAULT };
        let mut peers: Vec<_> = names.iter().chain(&victims).filter(|peer| *peer != origin).collect();
        peers.sort();
        let draft = Draft {
            origin: origin.clone(),
            version: Version { epoch: u64::MAX / 2, sequence: 1 << 40, instance: 5 },
            transit: true,
            leaving: origin == &id("honest"),
            links: if origin == &id("honest") { Vec::new() } else { peers.into_iter().map(link).collect() },
            capabilities: bytes::Bytes::from_static(b"\xc1\xc1"),
            over: None,
        };
        let record = draft.seal().unwrap();
        let update = Message::Update(record.advertisement().clone());
        attacker.write(&Frame::Route(update.encode().into()).encode()).await;
    }
    let stamp = Stamp { version: Version { epoch: 1, sequence: 1, instance: 1 }, check: 0 };
    let entries = names.iter().map(|origin| Entry { origin: origin.clone(), stamp }).collect();
    attacker.write(&Frame::Route(Message::Have(entries).encode().into()).encode()).await;
    attacker.write(&Frame::Route(Message::Want(names.clone()).encode().into()).encode()).await;
    attacker.write(&Frame::Route(Message::Nack(names).encode().into()).encode()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.assert_serves("ghosts").await;
    attacker.connection.close(0_u32.into(), b"");
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.assert_unharmed("ghosts, after the link").await;
}
