//! Bulk flows of real quinn over a virtual bottleneck.

use std::sync::Arc;
use std::time::Duration;

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Congestion::{self, Cubic, Westwood};
use crate::testing::{LinkQuality, Network};

const MS: Duration = Duration::from_millis(1);
/// Time before measurements begin.
const WARM_UP: Duration = Duration::from_secs(3);
const MBIT: f64 = 1e6 / 8.0;

/// A bottleneck. Data and acknowledgements have one each.
#[derive(Clone, Copy)]
struct Path {
    mbit: f64,
    round_trip: Duration,
    loss: f64,
    queue: usize,
    jitter: Duration,
    /// Mbit/s to which the rate falls before the measurement.
    falls_to: Option<f64>,
}

/// 20 Mbit/s, 40 ms, 100 kB: as much queue as fits the path.
const EDGE: Path = Path {
    mbit: 20.0,
    round_trip: Duration::from_millis(40),
    loss: 0.0,
    queue: 100_000,
    jitter: Duration::ZERO,
    falls_to: None,
};

#[derive(Debug)]
struct Outcome {
    /// Mbit/s of each flow.
    rates: Vec<f64>,
    /// Packets dropped by the full queue for each that was delivered.
    dropped: f64,
    /// Round trips of a small call on a connection of its own.
    median: Duration,
    worst: Duration,
}

impl Outcome {
    fn total(&self) -> f64 {
        self.rates.iter().sum()
    }

    /// Jain's index of fairness: 1 if all rates are equal.
    fn jain(&self) -> f64 {
        let squares: f64 = self.rates.iter().map(|rate| rate * rate).sum();
        self.total().powi(2) / (self.rates.len() as f64 * squares)
    }
}

/// What may fail in a test; a failure fails the test.
type Outcomes<T> = Result<T, Box<dyn std::error::Error>>;

fn tls() -> Outcomes<(ServerConfig, ClientConfig)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let params = rcgen::CertificateParams::new(["server".to_owned()])?;
    let certificate = params.self_signed(&key)?.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    Ok((server, ClientConfig::with_root_certificates(Arc::new(roots))?))
}

fn transport(congestion: Congestion) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(congestion.factory())
        .receive_window(VarInt::from_u32(64 << 20))
        .stream_receive_window(VarInt::from_u32(32 << 20))
        .send_window(32 << 20);
    Arc::new(config)
}

async fn bulk(connection: Connection) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let data = vec![7; 64 << 10];
    while stream.write_all(&data).await.is_ok() {}
}

async fn serve(connection: Connection) {
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                tokio::spawn(async move {
                    while let Ok(Some(_)) = stream.read_chunk(usize::MAX, false).await {}
                });
            }
            call = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = call else { return };
                tokio::spawn(async move {
                    let _ = recv.read_to_end(64).await;
                    let _ = send.write_all(b"pong").await;
                    let _ = send.finish();
                });
            }
        }
    }
}

/// Flows, one a second, and what each moved in `time` once all have started.
async fn measure(seed: u64, path: Path, flows: &[Congestion], time: Duration) -> Outcomes<Outcome> {
    let network = Network::new(seed);
    let quality = LinkQuality {
        latency: path.round_trip / 2,
        bandwidth: Some((path.mbit * MBIT) as u64),
        loss: path.loss,
        queue: path.queue,
        jitter: path.jitter,
        ..LinkQuality::default()
    };
    network.set_default(quality);
    let (here, there) = (network.bind_host(), network.bind_host());
    let address = there.address();
    let (server, mut client) = tls()?;
    let endpoint = |socket, number, server| {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([number; 32]));
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(quinn::TokioRuntime))
    };
    let (here, there) = (endpoint(here, 1, None)?, endpoint(there, 2, Some(server))?);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(incoming) = there.accept().await {
            if let Ok(connection) = incoming.await {
                tokio::spawn(serve(connection));
            }
        }
    });
    client.transport_config(transport(Cubic));
    let caller = here.connect_with(client.clone(), address, "server")?.await?;
    let mut connections = Vec::new();
    for flow in flows {
        client.transport_config(transport(*flow));
        let connection = here.connect_with(client.clone(), address, "server")?.await?;
        tasks.spawn(bulk(connection.clone()));
        connections.push(connection);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    if let Some(mbit) = path.falls_to {
        tokio::time::sleep(WARM_UP).await;
        network.set_default(LinkQuality { bandwidth: Some((mbit * MBIT) as u64), ..quality });
    }
    tokio::time::sleep(WARM_UP).await;
    let moved = || -> Vec<(u64, u64)> {
        connections
            .iter()
            .map(|connection| {
                let stats = connection.stats();
                let packets = stats.path.sent_packets - stats.path.lost_packets;
                (stats.udp_tx.bytes - stats.path.lost_bytes, packets)
            })
            .collect()
    };
    let (before, counters) = (moved(), network.counters());
    let (start, mut calls) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let called = Instant::now();
        let (mut send, mut recv) = caller.open_bi().await?;
        send.write_all(b"ping").await?;
        send.finish()?;
        recv.read_to_end(64).await?;
        calls.push(called.elapsed());
        tokio::time::sleep(100 * MS).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (then, after) = (moved(), network.counters());
    let rates = then
        .iter()
        .zip(&before)
        .map(|(after, before)| after.0.saturating_sub(before.0) as f64 / MBIT / seconds)
        .collect();
    let packets: u64 =
        then.iter().zip(&before).map(|(after, before)| after.1.saturating_sub(before.1)).sum();
    calls.sort();
    Ok(Outcome {
        rates,
        dropped: (after.dropped_full - counters.dropped_full) as f64 / packets as f64,
        median: calls[calls.len() / 2],
        worst: calls[calls.len() - 1],
    })
}

/// Prints the outcome; `--nocapture` shows it.
#[expect(clippy::print_stderr, reason = "figures for the next change of the controller")]
async fn shown(name: &str, path: Path, flows: &[Congestion]) -> Outcome {
    let outcome = measure(1, path, flows, Duration::from_secs(20)).await.expect("no error");
    eprintln!(
        "{name}: {:.1?} Mbit/s, Jain {:.2}, dropped {:.3}, call {:?}, {:?} at most",
        outcome.rates,
        outcome.jain(),
        outcome.dropped,
        outcome.median,
        outcome.worst
    );
    outcome
}

#[tokio::test(start_paused = true)]
async fn random_loss_leaves_most_of_the_rate() {
    for (loss, least) in [(0.0, 17.0), (0.001, 17.0), (0.01, 14.0), (0.03, 10.0)] {
        let outcome = shown(&format!("loss {loss}"), Path { loss, ..EDGE }, &[Westwood]).await;
        assert!(outcome.total() >= least, "{outcome:?}");
        assert!(outcome.dropped <= 0.05, "{outcome:?}");
        assert!(outcome.median <= EDGE.round_trip + 60 * MS, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_shares_its_path_with_one_of_cubic() {
    for flows in [[Westwood, Cubic], [Cubic, Westwood]] {
        let outcome = shown(&format!("{flows:?}"), EDGE, &flows).await;
        let ours = flows.iter().position(|flow| *flow == Westwood).unwrap();
        let share = outcome.rates[ours] / outcome.rates[1 - ours];
        assert!((0.4..=2.0).contains(&share), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn eight_flows_share_their_path_fairly() {
    for loss in [0.0, 0.01] {
        let outcome =
            shown(&format!("eight, loss {loss}"), Path { loss, ..EDGE }, &[Westwood; 8]).await;
        assert!(outcome.jain() >= 0.9, "{outcome:?}");
        assert!(outcome.total() >= 17.0, "{outcome:?}");
        assert!(outcome.dropped <= 0.1, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deep_queue_stays_short_and_a_shallow_one_is_not_flooded() {
    let deep = shown("deep", Path { queue: 1_000_000, ..EDGE }, &[Westwood]).await;
    assert!(deep.median <= EDGE.round_trip + 60 * MS && deep.total() >= 17.0, "{deep:?}");
    let shallow = shown("shallow", Path { queue: 20_000, ..EDGE }, &[Westwood]).await;
    assert!(shallow.dropped <= 0.05 && shallow.total() >= 17.0, "{shallow:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_others_fill_does_not_starve_a_flow() {
    let outcome =
        shown("deep, beside CUBIC", Path { queue: 1_000_000, ..EDGE }, &[Westwood, Cubic]).await;
    assert!(outcome.rates[0] >= 2.0, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn jitter_is_not_taken_for_a_queue() {
    for loss in [0.0, 0.01] {
        let path = Path { loss, jitter: 20 * MS, ..EDGE };
        let outcome = shown(&format!("jitter, loss {loss}"), path, &[Westwood]).await;
        assert!(outcome.total() >= 9.0, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn short_and_long_paths_are_filled_despite_loss() {
    for (mbit, ms) in [(20.0, 10), (20.0, 150), (100.0, 40)] {
        let queue = (mbit * MBIT * f64::from(ms) / 1_000.0) as usize;
        let path = Path { mbit, round_trip: ms * MS, queue, loss: 0.01, ..EDGE };
        let outcome = shown(&format!("{mbit} Mbit/s, {ms} ms"), path, &[Westwood]).await;
        assert!(outcome.total() >= 0.7 * mbit, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_falls_leaves_no_long_queue() {
    let path = Path { queue: 1_000_000, falls_to: Some(2.0), ..EDGE };
    let outcome = shown("20, then 2 Mbit/s", path, &[Westwood]).await;
    assert!(outcome.total() >= 1.7, "{outcome:?}");
    assert!(outcome.median <= EDGE.round_trip + 60 * MS, "{outcome:?}");
}
