//! The baseline's relay: for each connection that comes in one to the next target in turn, and for
//! each stream one there. Datagrams go one way, as the bench sends them.

use std::net::SocketAddr;

use quinn::{Endpoint, Incoming};

use super::Settings;
use super::console::Console;
use super::raw::Maker;
use crate::Result;
use crate::certificates::HOST;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let endpoint = Maker::new(settings)?.endpoint()?;
    let targets: Vec<SocketAddr> = settings
        .get("target")?
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let mut console = Console::ready(endpoint.local_addr()?);
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        let mut targets = targets.into_iter().cycle();
        while let (Some(incoming), Some(target)) = (accepting.accept().await, targets.next()) {
            tokio::spawn(relay(incoming, accepting.clone(), target));
        }
    });
    while let Some(command) = console.next().await {
        console.answer(Err(format!("a relay does not {command}").into()));
    }
    Ok(())
}

async fn relay(incoming: Incoming, endpoint: Endpoint, target: SocketAddr) -> Result<()> {
    let near = incoming.await?;
    let far = endpoint.connect(target, HOST)?.await?;
    let (from, to) = (near.clone(), far.clone());
    tokio::spawn(async move {
        while let Ok(datagram) = from.read_datagram().await {
            to.send_datagram_wait(datagram).await?;
        }
        Result::Ok(())
    });
    while let Ok((near_send, near_recv)) = near.accept_bi().await {
        let far = far.clone();
        // One task for both directions: it is woken less.
        tokio::spawn(async move {
            let (far_send, far_recv) = far.open_bi().await?;
            tokio::try_join!(copy(near_recv, far_send), copy(far_recv, near_send))?;
            Result::Ok(())
        });
    }
    Ok(())
}

async fn copy(mut from: quinn::RecvStream, mut to: quinn::SendStream) -> Result<()> {
    while let Some(chunk) = from.read_chunk(usize::MAX, true).await? {
        to.write_chunk(chunk.bytes).await?;
    }
    Ok(to.finish()?)
}
