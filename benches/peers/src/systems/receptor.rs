//! This crate.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use receptor_quic::{Authority, Node, NodeBuilder, NodeId, ServiceName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

use crate::contender::{Client, DATA, Place, System};

pub struct Receptor;

/// A node of the mesh, whose certificates the first of them makes.
fn node(place: &Place, id: &str) -> Result<NodeBuilder> {
    let id: NodeId = id.parse()?;
    let authority = match Authority::load(&place.dir) {
        Ok(authority) => authority,
        Err(_) => {
            let authority = Authority::new("peers", 1)?;
            authority.save(&place.dir)?;
            authority
        }
    };
    // On loopback every node is within reach of every other: without this nothing would be relayed.
    Ok(Node::builder(id.clone(), authority.issue(&id, 1)?).direct(false))
}

async fn listening(builder: NodeBuilder) -> Result<(Node, String)> {
    let node = builder.listen("127.0.0.1:0").start().await?;
    let at = node.local_addrs().first().context("an address")?.to_string();
    Ok((node, at))
}

impl System for Receptor {
    type Client = Caller;
    type Running = Node;

    async fn relay(place: &Place) -> Result<(Node, String)> {
        listening(node(place, "relay")?.transit(true)).await
    }

    async fn server(place: &Place) -> Result<(Node, String)> {
        let builder = node(place, "server")?;
        let (node, at) = match place.relayed {
            true => {
                let node =
                    builder.peer(place.relay().parse::<std::net::SocketAddr>()?).start().await?;
                node.linked().await?;
                (node, place.relay().to_owned())
            }
            false => listening(builder).await?,
        };
        let mut sink = node.serve("sink")?;
        tokio::spawn(async move {
            while let Some(mut incoming) = sink.accept().await {
                tokio::spawn(async move {
                    let mut taken = 0;
                    while let Some(chunk) = incoming.stream.recv.read_chunk(usize::MAX).await? {
                        taken += chunk.len() as u64;
                    }
                    incoming.stream.write_all(&taken.to_be_bytes()).await?;
                    incoming.stream.shutdown().await?;
                    anyhow::Ok(())
                });
            }
        });
        let mut echo = node.serve("echo")?;
        tokio::spawn(async move {
            while let Some(mut incoming) = echo.accept().await {
                tokio::spawn(async move {
                    copy(&mut incoming.stream.recv, &mut incoming.stream.send).await?;
                    incoming.stream.shutdown().await
                });
            }
        });
        Ok((node, at))
    }

    async fn client(place: &Place) -> Result<Caller> {
        let node = node(place, "client")?
            .peer(place.last().parse::<std::net::SocketAddr>()?)
            .start()
            .await?;
        node.linked().await?;
        let server: NodeId = "server".parse()?;
        node.routable(&server).await?;
        Ok(Caller { node, server, sink: "sink".parse()?, echo: "echo".parse()? })
    }
}

pub struct Caller {
    node: Node,
    server: NodeId,
    sink: ServiceName,
    echo: ServiceName,
}

impl Client for Caller {
    async fn bulk(&self, bytes: u64) -> Result<()> {
        let mut stream = self.node.open(&self.server, &self.sink).await?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(DATA.len() as u64) as usize;
            stream.send.write_chunk(Bytes::from_static(&DATA[..now])).await?;
            left -= now as u64;
        }
        stream.shutdown().await?;
        ensure!(stream.read_u64().await? == bytes, "the server counted another number of bytes");
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        let mut stream = self.node.open(&self.server, &self.echo).await?;
        stream.write_all(&DATA[..64]).await?;
        stream.shutdown().await?;
        let mut answer = Vec::with_capacity(64);
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.len() == 64, "an answer of {} bytes", answer.len());
        Ok(())
    }
}
