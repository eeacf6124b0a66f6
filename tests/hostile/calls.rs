//! Calls and streams of one member that leave nothing for others.

use std::time::Duration;

use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::{Directive, Node, Responder};

use crate::member::{EDGE, framed, id};
use crate::puppet::Puppet;
use crate::scene::Scene;

fn directive(text: &str) -> Directive {
    text.parse().unwrap()
}

/// Serves calls that end when their caller wants it.
fn serve_slow(node: &Node) {
    let wait = async |_, responder: Responder| {
        responder.cancelled().await;
        Ok(())
    };
    node.handle(directive("slow:work"), wait).unwrap();
    node.handle(directive("quick:work"), async |_, _| Ok(())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_end_leave_room_for_those_of_others() {
    let scene = Scene::of(mesh(["victim-r", "caller-r"]).await);
    let victim = scene.mesh.node("victim");
    serve_slow(victim);
    // Ordinary nodes are enough for this attack, all of them with one certificate.
    let mut greedy = Vec::new();
    let mut calls = Vec::new();
    let to = id("victim");
    for number in 0..4 {
        let node = scene.mesh.joiner(&format!("greedy~{number}"), &["r"]).ephemeral(true);
        let node = node.start().await.unwrap();
        node.linked().await.unwrap();
        for _ in 0..500 {
            let call = node.call(&to, directive("slow:work"));
            match tokio::time::timeout(Duration::from_secs(1), call).await {
                Ok(Ok(call)) => calls.push(call),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        greedy.push(node);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(calls.len() >= 1_000, "{} calls are hardly an attack", calls.len());
    assert_eq!(scene.pings(20, "caller", "victim").await, 20);
    let mut served = 0;
    for _ in 0..20 {
        let call = scene.mesh.node("caller").call(&to, directive("quick:work"));
        let Ok(Ok(call)) = tokio::time::timeout(Duration::from_secs(5), call).await else {
            continue;
        };
        served += usize::from(call.exchange(bytes::Bytes::new(), 1_024).await.is_ok());
    }
    assert_eq!(served, 20);
    assert_eq!(scene.newcomers(20, "r", "victim").await, 20);
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_reads_hold_a_bounded_number_of_bytes() {
    const STREAMS: usize = 1_000;
    let scene = Scene::of(Mesh::builder(["victim-r", "peer-r"]).start().await);
    let victim = scene.mesh.node("victim");
    let mut listener = victim.serve("unread").unwrap();
    let kept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = listener.accept().await {
            kept.push(incoming);
        }
        kept
    });
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let _puppet = Puppet::start(&scene.mallory, link, false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connection = scene.mallory.connect_peer(&id("victim")).await.unwrap();
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let connection = connection.clone();
        writing.spawn(async move {
            let Ok((mut send, _recv)) = connection.open_bi().await else { return 0 };
            // Asks for credit, so that the next stream has room. Once the window is full, not even
            // this gets through.
            let open = framed(&(1_u8, "unread", (), true));
            let _ = tokio::time::timeout(Duration::from_secs(20), send.write_all(&open)).await;
            let mut taken = 0;
            let piece = [0; 16 * 1024];
            while let Ok(Ok(count)) =
                tokio::time::timeout(Duration::from_secs(20), send.write(&piece)).await
            {
                taken += count;
            }
            std::mem::forget(send);
            taken
        });
    }
    let taken: usize = writing.join_all().await.into_iter().sum();
    // What the attacker's own side keeps for sending is in it, too.
    assert!(taken <= 64 << 20, "{} MiB", taken >> 20);
    assert_eq!(scene.pings(20, "peer", "victim").await, 20);
    assert_eq!(scene.newcomers(20, "r", "victim").await, 20);
    kept.abort();
}
