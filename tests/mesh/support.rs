//! What several tests need.

use std::time::Duration;

use receptor_quic::mesh::LinkState;
use receptor_quic::{Node, NodeId, ServiceName, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

pub(crate) fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub(crate) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Offers `echo`, which sends back what it gets.
pub(crate) fn serve_echo(node: &Node) {
    let mut listener = node.serve(service("echo")).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.stream;
                if tokio::io::copy(&mut stream.recv, &mut stream.send).await.is_ok() {
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
}

/// Calls `echo` of another node, which must answer.
pub(crate) async fn echo(from: &Node, to: &str) {
    try_echo(from, to).await.unwrap();
}

/// Calls `echo` of another node; what it answers must be right.
pub(crate) async fn try_echo(from: &Node, to: &str) -> std::io::Result<()> {
    let mut stream = from.open(&id(to), &service("echo")).await.map_err(std::io::Error::other)?;
    stream.write_all(to.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, to);
    Ok(())
}

/// Offers `sink`, which takes everything and answers with the count and a checksum.
pub(crate) fn serve_sink(node: &Node) {
    let mut listener = node.serve(service("sink")).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.stream;
                let mut sum = Checksum::default();
                while let Ok(Some(chunk)) = stream.recv.read_chunk(64 * 1024).await {
                    sum.add(&chunk);
                }
                let _ = stream.send.write_all(&sum.value().to_be_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
}

/// A checksum that depends on the order of the bytes.
#[derive(Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte) + 1);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// Sends `pieces` pieces of 64 KiB to `sink` and checks what came; returns the longest time that a
/// piece waited.
pub(crate) async fn transfer(mut stream: Stream, pieces: usize) -> Duration {
    let mut sum = Checksum::default();
    let mut longest = Duration::ZERO;
    for piece in 0..pieces {
        let data: Vec<u8> = (0..64 * 1024).map(|i| (i * 31 + piece * 7) as u8).collect();
        sum.add(&data);
        let before = Instant::now();
        stream.send.write_chunk(data.into()).await.unwrap();
        longest = longest.max(before.elapsed());
    }
    let before = Instant::now();
    stream.shutdown().await.unwrap();
    let answer = stream.read_u64().await.unwrap();
    assert_eq!(answer, sum.value(), "the checksums agree");
    longest.max(before.elapsed())
}

/// The links of a node that are up, by neighbour.
pub(crate) async fn up_links(node: &Node) -> Vec<String> {
    let status = node.status().await.unwrap();
    let up = status.links.iter().filter(|link| link.state == LinkState::Up);
    up.map(|link| link.peer.as_ref().unwrap().to_string()).collect()
}
