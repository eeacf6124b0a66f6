//! zenoh: two clients of a router. Bulk is published in messages of 64 KiB, calls are queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::zenoh::bytes::ZBytes;
use ::zenoh::pubsub::Publisher;
use ::zenoh::qos::CongestionControl;
use ::zenoh::{Config, Session, Wait};
use anyhow::{Result, anyhow, ensure};

use super::pem::{Pem, free_port};
use crate::contender::{Client, DATA, Place, System};

const MESSAGE: usize = 64 << 10;
const RETRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Zenoh;

fn e(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// `at` is where the router listens.
async fn open(place: &Place, router: bool, at: &str) -> Result<Session> {
    let (mode, endpoints) = match router {
        true => ("router", format!(r#"listen: {{ endpoints: ["{at}"] }}"#)),
        false => (
            "client",
            format!(r#"connect: {{ endpoints: ["{at}"] }}, listen: {{ endpoints: [] }}"#),
        ),
    };
    let tls = match place.variant {
        "tcp" => String::new(),
        _ => {
            let Pem { ca, certificate, key } = Pem::at(&place.dir);
            format!(
                r#", transport: {{ link: {{ tls: {{ root_ca_certificate: {ca:?}, enable_mtls: true,
                listen_private_key: {key:?}, listen_certificate: {certificate:?},
                connect_private_key: {key:?}, connect_certificate: {certificate:?} }} }} }}"#
            )
        }
    };
    let scouting = "scouting: { multicast: { enabled: false }, gossip: { enabled: false } }";
    let config = format!(r#"{{ mode: "{mode}", {endpoints}, {scouting}{tls} }}"#);
    ::zenoh::open(Config::from_json5(&config).map_err(e)?).await.map_err(e)
}

impl System for Zenoh {
    type Client = Caller;
    type Running = Session;

    async fn relay(place: &Place) -> Result<(Session, String)> {
        Pem::make(&place.dir)?;
        let at = format!("{}/localhost:{}", place.variant, free_port()?);
        Ok((open(place, true, &at).await?, at))
    }

    async fn server(place: &Place) -> Result<(Session, String)> {
        let session = open(place, false, place.relay()).await?;
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        session
            .declare_subscriber("peers/sink")
            .callback(move |message| {
                count.fetch_add(message.payload().len() as u64, Ordering::Relaxed);
            })
            .background()
            .await
            .map_err(e)?;
        session
            .declare_queryable("peers/count")
            .callback(move |query| {
                let _ = query
                    .reply("peers/count", taken.load(Ordering::Relaxed).to_be_bytes().to_vec())
                    .wait();
            })
            .background()
            .await
            .map_err(e)?;
        session
            .declare_queryable("peers/echo")
            .callback(|query| {
                let payload = query.payload().cloned().unwrap_or_default();
                let _ = query.reply("peers/echo", payload).wait();
            })
            .background()
            .await
            .map_err(e)?;
        Ok((session, place.relay().to_owned()))
    }

    async fn client(place: &Place) -> Result<Caller> {
        let session = open(place, false, place.relay()).await?;
        let sink = session
            .declare_publisher("peers/sink")
            .congestion_control(CongestionControl::Block)
            .await
            .map_err(e)?;
        let caller = Caller { session, sink: Arc::new(sink) };
        // Until the router has told of the server's offers.
        for _ in 0..100 {
            if caller.call().await.is_ok() && caller.count().await.is_ok() {
                return Ok(caller);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the server does not answer within 5 s")
    }
}

pub struct Caller {
    session: Session,
    sink: Arc<Publisher<'static>>,
}

impl Caller {
    async fn get(&self, key: &str, payload: &[u8]) -> Result<Vec<u8>> {
        // Over TLS with many under way, a query now and then ends without its reply: it is made
        // again, which counts as one call.
        let mut failed = anyhow!("never asked");
        for _ in 0..RETRIES {
            let asked =
                self.session.get(key).timeout(PATIENCE).payload(ZBytes::from(payload.to_vec()));
            match asked.await.map_err(e)?.recv_async().await.map_err(e) {
                Ok(reply) => match reply.result() {
                    Ok(sample) => return Ok(sample.payload().to_bytes().to_vec()),
                    Err(error) => {
                        failed = anyhow!("{}", String::from_utf8_lossy(&error.payload().to_bytes()))
                    }
                },
                Err(error) => failed = error,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(failed)
    }

    async fn count(&self) -> Result<u64> {
        let said = self.get("peers/count", &[]).await?;
        Ok(u64::from_be_bytes(said.as_slice().try_into()?))
    }
}

impl Client for Caller {
    async fn bulk(&self, bytes: u64) -> Result<()> {
        let wanted = self.count().await? + bytes;
        let sink = Arc::clone(&self.sink);
        tokio::task::spawn_blocking(move || {
            let message = ZBytes::from(DATA[..MESSAGE].to_vec());
            (0..bytes / MESSAGE as u64)
                .try_for_each(|_| sink.put(message.clone()).wait().map_err(e))
        })
        .await??;
        // Publications are not confirmed: the server is asked until it has them all.
        let began = std::time::Instant::now();
        while self.count().await? < wanted {
            ensure!(began.elapsed() < Duration::from_secs(60), "not all of it came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        let answer = self.get("peers/echo", &DATA[..64]).await?;
        ensure!(answer.len() == 64, "an answer of {} bytes", answer.len());
        Ok(())
    }
}
