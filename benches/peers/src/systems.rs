//! The systems, one a file.

#[cfg(feature = "iroh")]
mod iroh;
#[cfg(feature = "libp2p")]
mod libp2p;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "zenoh", feature = "nats"))]
mod pem;
mod receptor;
#[cfg(feature = "zenoh")]
mod zenoh;

use anyhow::{Result, bail};
use tokio::io::AsyncReadExt;

use crate::contender::{Place, Role, System};
use crate::work;

/// Plays a role of a system.
pub async fn play(system: &str, role: Role, place: &Place) -> Result<()> {
    match system {
        "receptor-quic" => play_of::<receptor::Receptor>(role, place).await,
        #[cfg(feature = "iroh")]
        "iroh" => play_of::<iroh::Iroh>(role, place).await,
        #[cfg(feature = "libp2p")]
        "libp2p" => play_of::<libp2p::Libp2p>(role, place).await,
        #[cfg(feature = "zenoh")]
        "zenoh" => play_of::<zenoh::Zenoh>(role, place).await,
        #[cfg(feature = "nats")]
        "nats" => play_of::<nats::Nats>(role, place).await,
        _ => bail!("no system is called {system}"),
    }
}

async fn play_of<S: System>(role: Role, place: &Place) -> Result<()> {
    let (_running, ready) = match role {
        Role::Relay => S::relay(place).await?,
        Role::Server => S::server(place).await?,
        Role::Client => {
            let client = S::client(place).await?;
            println!("READY");
            return work::obey(client).await;
        }
    };
    println!("READY {ready}");
    // Until whoever started this one is gone.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
