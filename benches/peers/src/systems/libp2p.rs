//! libp2p: over QUIC, and through a circuit relay (v2) of our own whose limits are lifted.

use std::time::Duration;

use ::libp2p::multiaddr::Protocol;
use ::libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use ::libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify, noise, relay, yamux,
};
use anyhow::{Context, Result, ensure};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p_stream as stream;
use tokio::task::JoinHandle;

use crate::contender::{Client, DATA, Place, System};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/peers");
const RETRIES: usize = 1_000;
const FOREVER: Duration = Duration::from_secs(3_600);

pub struct Libp2p;

#[derive(NetworkBehaviour)]
struct NodeBehaviour {
    streams: stream::Behaviour,
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
struct RelayBehaviour {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
}

fn node() -> Result<Swarm<NodeBehaviour>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic_config(|mut config| {
            config.max_concurrent_stream_limit = 1_024;
            config
        })
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, relay| NodeBehaviour {
            streams: stream::Behaviour::new(),
            relay,
            identify: identify::Behaviour::new(identify::Config::new(
                "/peers/1".into(),
                key.public(),
            )),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(FOREVER))
        .build();
    Ok(swarm)
}

async fn serve(mut stream: Stream) -> Result<()> {
    let mut kind = [0; 1];
    stream.read_exact(&mut kind).await?;
    if kind == *b"S" {
        let (mut taken, mut buffer) = (0_u64, vec![0; 256 << 10]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => break,
                more => taken += more as u64,
            }
        }
        stream.write_all(&taken.to_be_bytes()).await?;
    } else {
        let mut data = [0; 64];
        stream.read_exact(&mut data).await?;
        stream.write_all(&data).await?;
    }
    stream.close().await?;
    // Dropped before its end is read, the stream would be stopped, and the client told so.
    while stream.read(&mut [0; 1]).await? > 0 {}
    Ok(())
}

fn local() -> Multiaddr {
    "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address")
}

/// Keeps a swarm going.
fn drive<B: NetworkBehaviour<ToSwarm: Send> + Send>(mut swarm: Swarm<B>) -> JoinHandle<()>
where
    Swarm<B>: Send + 'static,
{
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

impl System for Libp2p {
    type Client = Caller;
    type Running = JoinHandle<()>;

    async fn relay(_: &Place) -> Result<(JoinHandle<()>, String)> {
        let config = relay::Config {
            max_circuit_bytes: u64::MAX,
            max_circuit_duration: FOREVER,
            reservation_rate_limiters: Vec::new(),
            circuit_src_rate_limiters: Vec::new(),
            max_circuits: 4_096,
            max_circuits_per_peer: 1_024,
            ..relay::Config::default()
        };
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_quic()
            .with_behaviour(|key| RelayBehaviour {
                relay: relay::Behaviour::new(key.public().to_peer_id(), config),
                identify: identify::Behaviour::new(identify::Config::new(
                    "/peers/1".into(),
                    key.public(),
                )),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(FOREVER))
            .build();
        swarm.listen_on(local())?;
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                swarm.add_external_address(address.clone());
                let at = address.with(Protocol::P2p(*swarm.local_peer_id())).to_string();
                return Ok((drive(swarm), at));
            }
        }
    }

    async fn server(place: &Place) -> Result<(JoinHandle<()>, String)> {
        let mut swarm = node()?;
        let me = Protocol::P2p(*swarm.local_peer_id());
        let mut incoming = swarm.behaviour().streams.new_control().accept(PROTOCOL)?;
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                tokio::spawn(serve(stream));
            }
        });
        let relayed = match place.relayed {
            true => Some(place.relay().parse::<Multiaddr>()?.with(Protocol::P2pCircuit)),
            false => None,
        };
        swarm.listen_on(relayed.clone().unwrap_or_else(local))?;
        loop {
            match (swarm.select_next_some().await, &relayed) {
                (SwarmEvent::NewListenAddr { address, .. }, None) => {
                    return Ok((drive(swarm), address.with(me).to_string()));
                }
                (
                    SwarmEvent::Behaviour(NodeBehaviourEvent::Relay(
                        relay::client::Event::ReservationReqAccepted { .. },
                    )),
                    Some(relayed),
                ) => return Ok((drive(swarm), relayed.clone().with(me).to_string())),
                _ => {}
            }
        }
    }

    async fn client(place: &Place) -> Result<Caller> {
        let mut swarm = node()?;
        let mut control = swarm.behaviour().streams.new_control();
        let server: Multiaddr = place.last().parse()?;
        let Some(Protocol::P2p(peer)) = server.iter().last() else {
            anyhow::bail!("an address without a peer")
        };
        swarm.dial(server)?;
        drive(swarm);
        for _ in 0..100 {
            if control.open_stream(peer, PROTOCOL).await.is_ok() {
                return Ok(Caller { control, peer });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("not connected within 5 s")
    }
}

pub struct Caller {
    control: stream::Control,
    peer: PeerId,
}

impl Client for Caller {
    async fn bulk(&self, bytes: u64) -> Result<()> {
        let mut stream = self.control.clone().open_stream(self.peer, PROTOCOL).await?;
        stream.write_all(b"S").await?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(DATA.len() as u64) as usize;
            stream.write_all(&DATA[..now]).await?;
            left -= now as u64;
        }
        stream.close().await?;
        let mut said = [0; 8];
        stream.read_exact(&mut said).await.context("no answer")?;
        ensure!(said == bytes.to_be_bytes(), "the server counted another number of bytes");
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        // libp2p-stream drops a stream that comes in while the one before it waits to be accepted
        // (`shared.rs`: "Channel is full"): the call is made again, and both count as one.
        let mut called = self.call_once().await;
        for _ in 0..RETRIES {
            if called.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
            called = self.call_once().await;
        }
        called
    }
}

impl Caller {
    async fn call_once(&self) -> Result<()> {
        let mut stream = self.control.clone().open_stream(self.peer, PROTOCOL).await?;
        let mut request = [7; 65];
        request[0] = b'E';
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut answer = [0; 64];
        stream.read_exact(&mut answer).await?;
        // Whoever leaves a stream before its end stops the other side's half.
        ensure!(stream.read(&mut [0; 1]).await? == 0, "an answer of more than 64 bytes");
        stream.close().await?;
        Ok(())
    }
}
