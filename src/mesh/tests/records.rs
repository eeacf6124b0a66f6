//! A neighbour that alters what it repeats, or speaks in another's name.

use std::time::Duration;

use bytes::Bytes;

use super::attacker::*;
use crate::id::{Cost, NodeId, Version};
use crate::mesh::{CertificateNotary, Event, clock};
use crate::router::{
    Advertisement, CredentialName, Digest, Draft, Link, LinkClass, Message, Notary as _, Proof,
    Record,
};
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::verify::paths_begun_on_this_thread;

#[tokio::test(start_paused = true)]
async fn who_alters_or_forges_the_record_of_another_loses_its_link_and_nobody_else_notices() {
    let scene = Scene::new().await;
    let mut seen = [scene.mesh.node("honest").events(), scene.mesh.node("victim").events()];
    let mallory = CertificateNotary::new(&scene.identity, clock::system);
    let genuine = scene.link().await.record_of("honest").await;
    let newer = |change: fn(&mut Draft)| {
        let mut draft = (*Record::decode(&genuine).unwrap()).clone();
        draft.version.sequence += 1;
        change(&mut draft);
        draft.seal().unwrap().advertisement().bytes().clone()
    };
    let withdrawn = newer(|draft| draft.links.clear());
    let ghost = Draft { origin: id("ghost"), ..(*Record::decode(&genuine).unwrap()).clone() };
    let ghost = ghost.seal().unwrap().advertisement().bytes().clone();
    let by_mallory = |bytes: &Bytes| {
        let (credential, signature) = (mallory.credential(), mallory.sign(bytes).unwrap());
        Proof { credential: CredentialName::of(&credential), signature }.encode()
    };
    let forged = |bytes: &Bytes, proof: Bytes| Advertisement::new(bytes.clone()).with_proof(proof);
    let mut last_bit = genuine.proof().to_vec();
    *last_bit.last_mut().unwrap() ^= 1;
    let mut violations = 0;
    for (what, advertisement) in [
        ("altered, with the proof of the original", forged(&withdrawn, genuine.proof().clone())),
        ("only newer than the original", forged(&newer(|_| ()), genuine.proof().clone())),
        ("with a proof altered", forged(&newer(|_| ()), last_bit.into())),
        ("not signed", forged(&withdrawn, Bytes::new())),
        ("with a proof cut to nothing", forged(&withdrawn, genuine.proof().slice(..16))),
        ("with a proof cut", forged(&withdrawn, genuine.proof().slice(..40))),
        ("with too long a proof", forged(&withdrawn, vec![1; Proof::MAX + 1].into())),
        ("of one that is not there, not signed", forged(&ghost, Bytes::new())),
        ("signed by another", forged(&withdrawn, by_mallory(&withdrawn))),
        ("of one that is not there, signed by another", forged(&ghost, by_mallory(&ghost))),
    ] {
        let mut attacker = scene.link().await;
        attacker.begin().await;
        attacker.route(&Message::Update(advertisement)).await;
        // It gives the credentials that it is asked for.
        assert_eq!(
            attacker.close_code_answering(&mallory.credential()).await,
            CloseCode::RoutingViolation,
            "{what}"
        );
        scene.assert_unharmed(what).await;
        violations += 1;
    }
    let records = scene.status().await.records;
    // The proof that is too long is not even read.
    assert_eq!((records.forged, records.untrusted), (violations - 1, 0));
    // A credential that is another one than was asked for.
    let mut attacker = scene.link().await;
    attacker.begin().await;
    attacker.route(&Message::Update(forged(&ghost, by_mallory(&ghost)))).await;
    let other = attacker.close_code_answering(&Bytes::from_static(b"another credential")).await;
    assert_eq!(other, CloseCode::RoutingViolation);
    scene.assert_unharmed("another credential").await;

    for events in &mut seen {
        while let Ok(event) = events.try_recv() {
            let lost = match &event {
                Event::NodeUnreachable { node } => Some(node),
                Event::LinkDown { peer, .. } => Some(peer),
                _ => None,
            };
            assert!(lost.is_none_or(|node| *node == id("mallory")), "{event:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_genuine_record_may_be_repeated_by_anybody() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    let genuine = attacker.record_of("honest").await;
    attacker.route(&Message::Update(genuine)).await;
    attacker.assert_answered("a replay").await;
    assert_eq!(scene.status().await.records.forged, 0);
    scene.assert_serves("a replay").await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_mesh_is_not_trusted_and_nobody_is_blamed() {
    let scene = Scene::new().await;
    let elsewhere = crate::Authority::new("elsewhere", 1).unwrap();
    let mut events = scene.mesh.node("victim").events();
    let mut attacker = scene.link().await;
    attacker.begin().await;
    let origin = id("stranger");
    let notary = CertificateNotary::new(&elsewhere.issue(&origin, 1).unwrap(), clock::system);
    for sequence in 1..=3 {
        attacker
            .route(&Message::Update(seal(&notary, &origin, sequence, &["mallory", "victim"])))
            .await;
        attacker.answer_want(&notary.credential()).await;
    }
    attacker.assert_answered("a stranger's record").await;
    let records = scene.status().await.records;
    assert_eq!((records.forged, records.untrusted), (0, 3));
    let why = serde_json::to_value(&records.not_trusted).unwrap();
    assert_eq!(why, serde_json::json!([{ "node": "stranger", "why": "unknown-issuer" }]));
    // It is said once.
    let mut said = 0;
    while let Ok(event) = events.try_recv() {
        said += usize::from(matches!(event, Event::RecordNotTrusted { .. }));
    }
    assert_eq!(said, 1);
    scene.assert_serves("a stranger's record").await;
}

#[tokio::test(start_paused = true)]
async fn no_path_is_searched_on_the_drivers_thread_for_a_record() {
    let scene = Scene::new().await;
    let elsewhere = crate::Authority::new("elsewhere", 1).unwrap();
    let mut attacker = scene.link().await;
    attacker.begin().await;
    attacker.assert_answered("a digest").await;
    // Handshakes are over. The tasks of all nodes share this thread.
    let before = paths_begun_on_this_thread();
    for nth in 0..20 {
        let origin = id(&format!("stranger-{nth}"));
        let notary = CertificateNotary::new(&elsewhere.issue(&origin, 1).unwrap(), clock::system);
        attacker.route(&Message::Update(seal(&notary, &origin, 1, &["mallory"]))).await;
        attacker.answer_want(&notary.credential()).await;
    }
    attacker.assert_answered("strangers' records").await;
    assert_eq!(scene.status().await.records.untrusted, 20);
    assert_eq!(paths_begun_on_this_thread(), before);
}

#[tokio::test(start_paused = true)]
async fn what_a_member_may_still_say_of_itself_takes_no_neighbour_away() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    attacker.begin().await;
    let mallory = CertificateNotary::new(&scene.identity, clock::system);
    // Links to ghosts and to those that do not list it, the cheapest there are.
    let mut names: Vec<String> = (0..50).map(|nth| format!("ghost-{nth:02}")).collect();
    names.extend(["honest".to_owned(), "victim".to_owned()]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    attacker.route(&Message::Update(seal(&mallory, &id("mallory"), 1 << 40, &names))).await;
    attacker.answer_want(&mallory.credential()).await;
    attacker.assert_answered("false links").await;
    let records = scene.status().await.records;
    assert_eq!((records.forged, records.untrusted), (0, 0));
    scene.assert_serves("false links").await;
    let routes = scene.status().await.routes;
    assert!(routes.iter().all(|route| !route.node.as_str().starts_with("ghost")), "{routes:?}");
    attacker.connection.close(0_u32.into(), b"");
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.assert_unharmed("false links, after the link").await;
}

/// A record with these active links, signed.
fn seal(
    notary: &CertificateNotary,
    origin: &NodeId,
    sequence: u64,
    peers: &[&str],
) -> Advertisement {
    let link = |peer: &&str| Link { peer: id(peer), class: LinkClass::Active, cost: Cost::DEFAULT };
    let version = Version { epoch: 7, sequence, instance: 5 };
    let draft =
        Draft { links: peers.iter().map(link).collect(), ..Draft::new(origin.clone(), version) };
    let record = draft.seal().unwrap();
    let signature = notary.sign(record.advertisement().bytes()).unwrap();
    let proof = Proof { credential: CredentialName::of(&notary.credential()), signature };
    record.with_proof(proof.encode()).advertisement().clone()
}

impl Attacker {
    /// The first word of a session: it has other records than the victim.
    async fn begin(&mut self) {
        self.route(&Message::Digest { digest: Digest(7), count: 3 }).await;
    }

    async fn route(&mut self, message: &Message) {
        self.write(&Frame::Route(message.encode().into()).encode()).await;
    }

    async fn next_message(&mut self) -> Option<Message> {
        let Ok(Ok(Some(frame))) = tokio::time::timeout(LONG, self.frames.next()).await else {
            return None;
        };
        let Frame::Route(bytes) = frame else { panic!("{frame:?}") };
        Message::decode(&bytes).unwrap()
    }

    /// The record of a node as the victim repeats it. Begins the session.
    async fn record_of(&mut self, name: &str) -> Advertisement {
        self.begin().await;
        self.route(&Message::Want(vec![id(name)])).await;
        loop {
            if let Some(Message::Update(advertisement)) = self.next_message().await
                && Record::decode(&advertisement).unwrap().origin == id(name)
            {
                return advertisement;
            }
        }
    }

    /// Waits until it is asked for a credential, and gives this one.
    async fn answer_want(&mut self, credential: &[u8]) {
        loop {
            let message = self.next_message().await.expect("a want");
            if let Message::CredentialWant(wanted) = message {
                for (origin, name) in wanted {
                    let credential = Some(Bytes::copy_from_slice(credential));
                    self.route(&Message::Credential { origin, name, credential }).await;
                }
                return;
            }
        }
    }

    /// The code that the victim closes with; on the way it gets this credential for each that it
    /// asks for.
    async fn close_code_answering(&mut self, credential: &Bytes) -> CloseCode {
        while let Some(message) = self.next_message().await {
            if let Message::CredentialWant(wanted) = message {
                for (origin, name) in wanted {
                    let message =
                        Message::Credential { origin, name, credential: Some(credential.clone()) };
                    let _ = self
                        .control
                        .write_all(&Frame::Route(message.encode().into()).encode())
                        .await;
                }
            }
        }
        self.closed().await
    }
}
