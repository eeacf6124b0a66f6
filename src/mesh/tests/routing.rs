//! Neighbours that break the routing protocol, or lie in it.

use std::time::Duration;

use super::attacker::*;
use crate::id::{NodeId, Version};
use crate::rng::SplitMix64;
use crate::router::{Advertisement, CredentialName, Digest, Entry, Message, Stamp};
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_the_routing_protocol_closes_the_link() {
    let scene = Scene::new().await;
    let digest = Message::Digest { digest: Digest::default(), count: 0 };
    let garbage = Message::Update(Advertisement::new(SplitMix64::new(1).bytes(300).into()));
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
async fn stamps_and_requests_of_nonsense_take_no_neighbour_away() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    let digest = Message::Digest { digest: Digest(7), count: 3 };
    attacker.write(&Frame::Route(digest.encode().into()).encode()).await;
    let names: Vec<NodeId> = (0..50).map(|nth| id(&format!("ghost-{nth:02}"))).collect();
    let version = Version { epoch: u64::MAX / 2, sequence: 1 << 40, instance: 1 };
    let stamp = Stamp { version, check: 0 };
    let victims = [id("honest"), id("victim")];
    let entries = names
        .iter()
        .chain(&victims)
        .map(|origin| Entry { origin: origin.clone(), stamp })
        .collect();
    let wanted = names.iter().map(|origin| (origin.clone(), CredentialName([7; 16]))).collect();
    let (origin, name) = (id("ghost-00"), CredentialName::of(b"none"));
    let credential = Some(bytes::Bytes::from_static(b"none"));
    for message in [
        Message::Have(entries),
        Message::Want(names.clone()),
        Message::Nack(names),
        Message::CredentialWant(wanted),
        Message::Credential { origin: origin.clone(), name, credential },
        Message::Credential { origin, name, credential: None },
    ] {
        attacker.write(&Frame::Route(message.encode().into()).encode()).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.assert_serves("ghosts").await;
    attacker.connection.close(0_u32.into(), b"");
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.assert_unharmed("ghosts, after the link").await;
}
