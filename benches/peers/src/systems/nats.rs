//! NATS: two clients of a `nats-server`, where that is installed. Bulk is published in messages of
//! 64 KiB, calls are requests.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::{Client as Nat, ConnectOptions};
use bytes::Bytes;
use futures::StreamExt;

use super::pem::{Pem, free_port};
use crate::contender::{Client, DATA, Place, System};

const MESSAGE: usize = 64 << 10;
/// Where packages put it, beside what is in PATH.
const SERVERS: [&str; 3] = ["nats-server", "/usr/sbin/nats-server", "/usr/local/bin/nats-server"];

pub struct Nats;

/// What lives as long as a process.
pub enum Running {
    Server(#[expect(dead_code, reason = "it runs while it is kept")] tokio::process::Child),
    Client(#[expect(dead_code, reason = "it runs while it is kept")] Nat),
}

async fn connect(place: &Place) -> Result<Nat> {
    let mut options = ConnectOptions::new().subscription_capacity(1 << 20);
    if place.variant == "tls" {
        // The tree has two, and async-nats asks for the one of the process.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let Pem { ca, certificate, key } = Pem::at(&place.dir);
        options = options
            .require_tls(true)
            .add_root_certificates(ca)
            .add_client_certificate(certificate, key);
    }
    Ok(options.connect(place.relay()).await?)
}

fn start(dir: &Path, port: u16, tls: bool) -> Result<tokio::process::Child> {
    let Pem { ca, certificate, key } = Pem::make(dir)?;
    let mut config = format!("listen: \"127.0.0.1:{port}\"\n");
    if tls {
        config += &format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}\n"
        );
    }
    let file = dir.join("nats.conf");
    std::fs::write(&file, config)?;
    let spawned = SERVERS.iter().find_map(|server| {
        let mut command = tokio::process::Command::new(server);
        command.arg("-c").arg(&file).stderr(Stdio::null()).kill_on_drop(true).spawn().ok()
    });
    spawned.context("nats-server is not installed")
}

impl System for Nats {
    type Client = Caller;
    type Running = Running;

    async fn relay(place: &Place) -> Result<(Running, String)> {
        let port = free_port()?;
        let server = start(&place.dir, port, place.variant == "tls")?;
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let scheme = if place.variant == "tls" { "tls" } else { "nats" };
        Ok((Running::Server(server), format!("{scheme}://localhost:{port}")))
    }

    async fn server(place: &Place) -> Result<(Running, String)> {
        let nats = connect(place).await?;
        let mut echo = nats.subscribe("echo").await?;
        let mut sink = nats.subscribe("sink").await?;
        nats.flush().await?;
        let replying = nats.clone();
        tokio::spawn(async move {
            while let Some(message) = echo.next().await {
                if let Some(reply) = message.reply {
                    let _ = replying.publish(reply, message.payload).await;
                }
            }
        });
        let counting = nats.clone();
        tokio::spawn(async move {
            let mut taken = 0;
            while let Some(message) = sink.next().await {
                taken += message.payload.len() as u64;
                if let Some(reply) = message.reply {
                    let _ = counting.publish(reply, taken.to_be_bytes().to_vec().into()).await;
                    taken = 0;
                }
            }
        });
        Ok((Running::Client(nats), place.relay().to_owned()))
    }

    async fn client(place: &Place) -> Result<Caller> {
        Ok(Caller(connect(place).await?))
    }
}

pub struct Caller(Nat);

impl Client for Caller {
    async fn bulk(&self, bytes: u64) -> Result<()> {
        let message = Bytes::from_static(&DATA[..MESSAGE]);
        for _ in 1..bytes / MESSAGE as u64 {
            self.0.publish("sink", message.clone()).await?;
        }
        // The last one asks for the count.
        let said = self.0.request("sink", message).await?;
        ensure!(
            said.payload == bytes.to_be_bytes()[..],
            "the server counted another number of bytes"
        );
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        let answer = self.0.request("echo", Bytes::from_static(&DATA[..64])).await?;
        ensure!(answer.payload.len() == 64, "an answer of {} bytes", answer.payload.len());
        Ok(())
    }
}
