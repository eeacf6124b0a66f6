//! Streams that do not say what they are for, and peer connections without end.

use std::time::Duration;

use quinn::ReadError;

use super::attacker::*;
use crate::OpenError;
use crate::mesh::peers::MAX_CONNECTIONS_OF_ONE;
use crate::testing::LinkQuality;
use crate::transport::code::{CloseCode, StreamCode};
use crate::transport::settings;

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_header_costs_its_sender_the_stream() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    for (what, bytes, finish) in [
        ("too long", vec![0xff; 8], false),
        ("a little too long", vec![0, 0, 1, 1], false),
        ("cut off", vec![0, 0, 0, 9, 0x93], true),
        ("nothing", vec![], true),
        ("never finished", vec![0, 0, 0, 9, 0x93], false),
        ("nothing, and no end", vec![0], false),
    ] {
        let (mut send, mut recv) = attacker.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        if finish {
            send.finish().unwrap();
        }
        let read = tokio::time::timeout(LONG, recv.read_to_end(1_000)).await.unwrap();
        let reset = quinn::ReadToEndError::Read(ReadError::Reset(StreamCode::BadHeader.to_quic()));
        assert_eq!(read.unwrap_err(), reset, "{what}");
    }
    attacker.assert_answered("bad headers").await;
    scene.assert_serves("bad headers").await;
}

#[tokio::test(start_paused = true)]
async fn a_header_that_cannot_be_read_is_refused_with_why() {
    let scene = Scene::new().await;
    let mut attacker = scene.link().await;
    for (what, body, code) in [
        ("garbage", vec![0xc1; 40], 7),
        ("empty", vec![], 7),
        ("a text of 4 billion bytes", vec![0x93, 1, 0xdb, 0xff, 0xff, 0xff, 0xff], 7),
        ("arrays in arrays", [&[0x93][..], &[0x91; 200]].concat(), 7),
        ("a later version", vec![0x93, 2, 0xa1, b'x', 0xc0], 6),
        ("no service of that name", vec![0x93, 1, 0xa1, b'x', 0xc0], 1),
        ("no name of a service", vec![0x93, 1, 0xa1, b'!', 0xc0], 1),
    ] {
        let (mut send, mut recv) = attacker.connection.open_bi().await.unwrap();
        send.write_all(&framed(&body)).await.unwrap();
        let answer = tokio::time::timeout(LONG, recv.read_to_end(1_000)).await.unwrap().unwrap();
        assert_eq!(answer[..3], [0x01, 0x92, code], "{what}");
    }
    attacker.assert_answered("refused").await;
    scene.assert_serves("refused").await;
}

#[tokio::test(start_paused = true)]
async fn as_many_streams_as_are_allowed_delay_nobody() {
    let scene = Scene::new().await;
    let attacker = scene.link().await;
    let mut streams = Vec::new();
    // As many as the victim permits, all of them silent.
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_secs(1), attacker.connection.open_bi()).await
    {
        let mut stream = stream.unwrap();
        stream.0.write_all(&[0]).await.unwrap();
        streams.push(stream);
    }
    // Silent ones use credit like others, and earn as much; the control stream is one of them.
    assert_eq!(streams.len(), settings::STREAM_CREDIT as usize - 1);
    scene.assert_serves("silent streams").await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    // Their time is over; there is room again.
    drop(streams);
    tokio::time::timeout(LONG, attacker.connection.open_bi()).await.unwrap().unwrap();
    attacker.connection.close(0_u32.into(), b"");
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.assert_unharmed("silent streams").await;
}

#[tokio::test(start_paused = true)]
async fn one_peer_does_not_get_connections_without_end() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(member.endpoint.connect_peer(&id("victim")).unwrap().await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (live, closed): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|connection| connection.close_reason().is_none());
    assert_eq!(live.len(), MAX_CONNECTIONS_OF_ONE);
    for connection in closed {
        assert_eq!(close_code(&connection).await, CloseCode::Replaced);
    }
    scene.assert_serves("many connections").await;
    // None of them outlives the idle limit.
    tokio::time::sleep(Duration::from_secs(180)).await;
    for connection in live {
        assert_eq!(close_code(&connection).await, CloseCode::Idle);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_given_up_resets_its_stream() {
    let scene = Scene::new().await;
    let attacker = scene.link().await;
    let victim = scene.mesh.node("victim");
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(victim.open(&mallory(), "s").await.unwrap());
    }
    // Nothing is acknowledged, so the send window fills up.
    let network = scene.mesh.network();
    network.set_default(LinkQuality { loss: 1.0, ..LinkQuality::default() });
    for stream in &mut streams {
        let written = stream.send.write_all(&[0; 60 * 1024]);
        let _ = tokio::time::timeout(Duration::from_millis(1), written).await;
    }
    let deadline = Duration::from_millis(100);
    let opened = victim.open_within(&mallory(), "s", deadline).await;
    assert_eq!(opened.unwrap_err(), OpenError::Deadline(deadline));
    network.set_default(LinkQuality::default());
    for _ in 0..streams.len() {
        attacker.connection.accept_bi().await.unwrap();
    }
    let accepted = tokio::time::timeout(LONG, attacker.connection.accept_bi()).await;
    let (_send, mut recv) = accepted.expect("the stream is visible").unwrap();
    let read = recv.read(&mut [0; 8]).await;
    assert_eq!(read, Err(ReadError::Reset(StreamCode::Dropped.to_quic())));
}
