//! iroh: directly, and through an iroh-relay of our own on this machine, over HTTPS.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use iroh::endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, RelayUrl, TransportAddr};
use iroh_relay::server::{CertConfig, RelayConfig, Server, ServerConfig, TlsConfig};

use crate::contender::{Client, DATA, Place, System};

const ALPN: &[u8] = b"peers";
const CERTIFICATE: &str = "iroh-relay.der";

pub struct Iroh;

/// What lives as long as a process.
pub enum Running {
    Relay(#[expect(dead_code, reason = "it runs while it is kept")] Server),
    Node(#[expect(dead_code, reason = "it runs while it is kept")] Endpoint),
}

fn e(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

async fn endpoint(place: &Place) -> Result<Endpoint> {
    let transport =
        QuicTransportConfig::builder().max_concurrent_bidi_streams(VarInt::from_u32(1_024)).build();
    let builder =
        Endpoint::builder(presets::Minimal).alpns(vec![ALPN.to_vec()]).transport_config(transport);
    if !place.relayed {
        let builder = builder.relay_mode(RelayMode::Disabled).clear_ip_transports();
        return builder.bind_addr("127.0.0.1:0").map_err(e)?.bind().await.map_err(e);
    }
    // Without addresses of its own it cannot but use the relay.
    let url: RelayUrl = place.relay().parse().map_err(e)?;
    let root = std::fs::read(place.dir.join(CERTIFICATE))?;
    let endpoint = builder
        .relay_mode(RelayMode::custom([url]))
        .ca_tls_config(iroh_relay::tls::CaTlsConfig::custom_roots([root.into()]))
        .clear_ip_transports()
        .bind()
        .await
        .map_err(e)?;
    endpoint.online().await;
    Ok(endpoint)
}

async fn serve(mut send: SendStream, mut recv: RecvStream) -> Result<()> {
    let mut kind = [0; 1];
    recv.read_exact(&mut kind).await.map_err(e)?;
    if kind == *b"S" {
        let mut taken = 0_u64;
        while let Some(chunk) = recv.read_chunk(usize::MAX).await.map_err(e)? {
            taken += chunk.len() as u64;
        }
        send.write_all(&taken.to_be_bytes()).await.map_err(e)?;
    } else {
        let data = recv.read_to_end(1 << 16).await.map_err(e)?;
        send.write_chunk(Bytes::from(data)).await.map_err(e)?;
    }
    send.finish().map_err(e)
}

impl System for Iroh {
    type Client = Caller;
    type Running = Running;

    async fn relay(place: &Place) -> Result<(Running, String)> {
        let made =
            rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
        std::fs::write(place.dir.join(CERTIFICATE), made.cert.der())?;
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let server_config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
        let any = (Ipv4Addr::LOCALHOST, 0);
        let mut relay = RelayConfig::new(any);
        relay.tls = Some(TlsConfig::new(any, CertConfig::Manual { server_config }));
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        let server = Server::spawn(config).await.map_err(e)?;
        let at = format!("https://{}", server.https_addr().context("no address")?);
        Ok((Running::Relay(server), at))
    }

    async fn server(place: &Place) -> Result<(Running, String)> {
        let endpoint = endpoint(place).await?;
        let addr = endpoint.bound_sockets().first().map(ToString::to_string).unwrap_or_default();
        let at = format!("{} {addr}", endpoint.id());
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(async move {
                    let connection = incoming.await.map_err(e)?;
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        tokio::spawn(serve(send, recv));
                    }
                    anyhow::Ok(())
                });
            }
        });
        Ok((Running::Node(endpoint), at))
    }

    async fn client(place: &Place) -> Result<Caller> {
        let endpoint = endpoint(place).await?;
        let (id, addr) = place.last().split_once(' ').unwrap_or((place.last(), ""));
        let transport = match place.relayed {
            true => TransportAddr::Relay(place.relay().parse().map_err(e)?),
            false => TransportAddr::Ip(addr.parse()?),
        };
        let addr = EndpointAddr::from_parts(id.parse().map_err(e)?, [transport]);
        let connection = endpoint.connect(addr, ALPN).await.map_err(e)?;
        Ok(Caller { _endpoint: endpoint, connection })
    }
}

pub struct Caller {
    _endpoint: Endpoint,
    connection: Connection,
}

impl Client for Caller {
    async fn bulk(&self, bytes: u64) -> Result<()> {
        let (mut send, mut recv) = self.connection.open_bi().await.map_err(e)?;
        send.write_all(b"S").await.map_err(e)?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(DATA.len() as u64) as usize;
            send.write_chunk(Bytes::from_static(&DATA[..now])).await.map_err(e)?;
            left -= now as u64;
        }
        send.finish().map_err(e)?;
        let said = recv.read_to_end(8).await.map_err(e)?;
        ensure!(said == bytes.to_be_bytes(), "the server counted another number of bytes");
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        let (mut send, mut recv) = self.connection.open_bi().await.map_err(e)?;
        let mut request = [7; 65];
        request[0] = b'E';
        send.write_all(&request).await.map_err(e)?;
        send.finish().map_err(e)?;
        let answer = recv.read_to_end(1_024).await.map_err(e)?;
        ensure!(answer.len() == 64, "an answer of {} bytes", answer.len());
        Ok(())
    }
}
