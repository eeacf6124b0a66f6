//! Peers that send invalid messages about direct paths, or too many.

use std::time::Duration;

use super::attacker::*;
use crate::punch::{Answer, Message, NatClass, Offer, PathCookie, ProbeKey, Terms};
use crate::transport::code::CloseCode;

fn terms() -> Terms {
    Terms {
        class: NatClass::Unknown,
        cookie: PathCookie([1; 8]),
        candidates: Vec::new(),
        volleys: true,
        padding: 0,
    }
}

fn offer(round: u64) -> Vec<u8> {
    offer_with_key(round, 2)
}

fn offer_with_key(round: u64, key: u8) -> Vec<u8> {
    framed(&Message::Offer(Offer { round, key: ProbeKey([key; 32]), terms: terms() }).encode())
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_about_paths_costs_its_sender_the_connection() {
    let scene = Scene::with_direct_paths().await;
    let member = scene.member().await;
    // The end with the smaller id, which mallory's is, offers; the victim answers.
    let answer = Message::Answer(Answer { round: 1, terms: terms() }).encode();
    for (what, bytes, finish, code) in [
        // These two first: sessions of one peer are limited, and without one nothing is violated.
        ("an answer from who offers", framed(&answer), false, CloseCode::PathViolation),
        (
            "a round with two keys",
            [offer(1), offer_with_key(1, 3)].concat(),
            false,
            CloseCode::PathViolation,
        ),
        ("too long", vec![0, 0, 0x10, 1], false, CloseCode::FrameTooLong),
        ("a length that nobody has", vec![0xff; 8], false, CloseCode::FrameTooLong),
        ("garbage", framed(&[0xc1; 20]), false, CloseCode::BadFrame),
        ("empty", framed(&[]), false, CloseCode::BadFrame),
        ("arrays in arrays", framed(&[0x91; 200]), false, CloseCode::BadFrame),
        ("cut off", vec![0, 0, 0, 9, 0x93], true, CloseCode::BadFrame),
    ] {
        let connection = member.endpoint.connect_peer(&id("victim")).unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        if finish {
            stream.finish().unwrap();
        }
        assert_eq!(close_code(&connection).await, code, "{what}");
        scene.assert_serves(what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_versions_messages_are_skipped_and_the_end_of_the_stream_is_no_error() {
    let scene = Scene::with_direct_paths().await;
    let member = scene.member().await;
    let connection = member.endpoint.connect_peer(&id("victim")).unwrap().await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[framed(&[0x92, 0x7f, 0xc0]), offer(7)].concat()).await.unwrap();
    stream.finish().unwrap();
    let mut answers = connection.accept_uni().await.unwrap();
    // The victim may have asked for an offer before this one came.
    let answer = loop {
        let mut length = [0; 4];
        answers.read_exact(&mut length).await.unwrap();
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        answers.read_exact(&mut message).await.unwrap();
        if !message.starts_with(&[0x91, 0x03]) {
            break message;
        }
    };
    assert_eq!(answer[1..3], [0x02, 7], "it is the answer to the offer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_and_offers_without_end_is_answered_at_a_bounded_rate() {
    let scene = Scene::with_direct_paths().await;
    let member = scene.member().await;
    let mut answered = 0;
    for round in 0..50 {
        let connection = member.endpoint.connect_peer(&id("victim")).unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        for nth in 0..20 {
            stream.write_all(&offer(round * 100 + nth)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.close(0_u32.into(), b"");
        tokio::time::sleep(Duration::from_millis(50)).await;
        answered = scene.status().await.paths.unwrap().attempts;
    }
    // Four sessions, four offers of each.
    assert!((4..=20).contains(&answered), "{answered}");
    scene.assert_serves("offers without end").await;
}
