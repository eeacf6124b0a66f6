//! Frames of a neighbour, without end.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::mesh::LinkState;
use receptor_quic::router::{
    Advertisement, CredentialName, Digest, Draft, Link as Edge, LinkClass, Message, Notary as _,
    Proof,
};
use receptor_quic::testing::mesh;

use crate::log::Log;
use crate::member::{EDGE, Link, Member, close_code, frame, framed, id};
use crate::puppet::notary;
use crate::scene::Scene;

/// Frames of each kind.
const FRAMES: u64 = 5_000;

/// One frame of a flood, by its number.
type MakeFrame = fn(&Member, u64) -> Vec<u8>;

#[tokio::test(start_paused = true)]
async fn frames_without_end_delay_nobody_and_fill_no_log() {
    let kinds: [(&str, MakeFrame); 11] = [
        ("PING", |_, n| framed(&(frame::PING, n))),
        ("PONG", |_, n| framed(&(frame::PONG, n))),
        ("SELECT", |_, n| framed(&(frame::SELECT, n))),
        ("QUERY", |_, n| framed(&(frame::QUERY, format!("node-{n}")))),
        ("CONVERGE", |_, n| framed(&(frame::CONVERGE, n))),
        ("OBSERVED", |_, n| {
            framed(&(frame::OBSERVED, format!("192.0.2.{}:{}", n % 250, 1 + n % 60_000)))
        }),
        ("an unknown type", |_, n| framed(&(0x3e_u8, n, "x".repeat(500)))),
        ("DIGEST", |_, n| message(&Message::Digest { digest: Digest(n.into()), count: n })),
        ("WANT", |_, n| message(&Message::Want(vec![id(&format!("node-{n}"))]))),
        ("CREDENTIAL-WANT", |_, n| {
            message(&Message::CredentialWant(vec![(
                id("peer"),
                CredentialName::of(&n.to_be_bytes()),
            )]))
        }),
        ("UPDATE", |mallory, n| message(&Message::Update(record(mallory, n)))),
    ];
    for (what, make) in kinds {
        flood(what, make).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reports_of_other_processes_fill_no_log() {
    flood("TWIN", |_, n| framed(&(frame::TWIN, n, "somewhere\u{1b}[31m\nelse"))).await;
}

/// Sends these frames as fast as the victim reads them, while others need it.
async fn flood(what: &str, make: MakeFrame) {
    let scene = Scene::of(mesh(["victim-peer", "other-victim"]).await);
    let log = Log::open();
    let Link { connection, mut control, frames, .. } =
        scene.mallory.link(scene.addr("victim"), EDGE).await;
    // It reads what it gets, so that nothing makes the victim wait.
    tokio::spawn(frames.discard());
    let flood = async {
        for number in 1..=FRAMES {
            // The victim may end the link, which is as good an answer.
            if control.write_all(&make(&scene.mallory, number)).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let (answered, ()) = tokio::join!(scene.pings(20, "peer", "victim"), flood);
    assert_eq!(answered, 20, "{what}");
    assert_eq!(scene.pings(5, "other", "peer").await, 5, "{what}");
    let lines = log.take();
    assert!(lines <= 30, "{what}: {lines} lines");
    connection.close(0_u32.into(), b"");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let links = scene.mesh.node("victim").status().await.unwrap().links;
    assert_eq!(links.iter().filter(|link| link.state == LinkState::Up).count(), 2, "{what}");
}

fn message(message: &Message) -> Vec<u8> {
    let body = message.encode();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// The attacker's own record, genuine, in this version.
fn record(mallory: &Member, sequence: u64) -> Advertisement {
    let notary = notary(&mallory.identity);
    let edge = Edge { peer: id("victim"), class: LinkClass::Active, cost: Cost::DEFAULT };
    let version = Version { epoch: 1, sequence, instance: mallory.instance };
    let draft = Draft { links: [edge].into(), ..Draft::new(mallory.id.clone(), version) };
    let record = draft.seal().unwrap();
    let signature = notary.sign(record.advertisement().bytes()).unwrap();
    let proof = Proof { credential: CredentialName::of(&notary.credential()), signature };
    record.with_proof(proof.encode()).advertisement().clone()
}

#[tokio::test(start_paused = true)]
async fn links_made_and_dropped_without_end_fill_no_log() {
    let scene = Scene::of(mesh(["victim-peer", "other-victim"]).await);
    let log = Log::open();
    let churn = async {
        for _ in 0..300 {
            let link = scene.mallory.link(scene.addr("victim"), EDGE).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            link.connection.close(0_u32.into(), b"");
        }
    };
    let (answered, ()) = tokio::join!(scene.pings(20, "peer", "victim"), churn);
    assert_eq!(answered, 20);
    let lines = log.take();
    assert!(lines <= 100, "{lines} lines");
}

#[tokio::test(start_paused = true)]
async fn a_member_cannot_take_the_id_of_another() {
    let mut scene = Scene::of(mesh(["victim-r", "peer-r"]).await);
    scene.mallory.id = id("peer");
    let connection = scene.mallory.connect(scene.addr("victim")).await.unwrap();
    let (mut control, _recv) = connection.open_bi().await.unwrap();
    let hello = (
        frame::HELLO,
        [1],
        "peer",
        1,
        2,
        1,
        false,
        true,
        "10.0.0.9:1",
        serde_bytes::Bytes::new(&[3; 8]),
        "",
    );
    control.write_all(&framed(&hello)).await.unwrap();
    // WRONG_NAME.
    assert_eq!(close_code(&connection).await, 0x03);
    assert_eq!(scene.pings(20, "victim", "peer").await, 20);
}
