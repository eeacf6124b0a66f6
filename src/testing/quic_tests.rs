//! Real quinn endpoints over the virtual network.

use super::{LinkQuality, NetCounters, Network};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, ServerConfig,
    TransportConfig,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_handshake_takes_its_round_trips_of_virtual_time() {
    let pair = Pair::new(1, LinkQuality { latency: 50 * MS, ..LinkQuality::default() });
    let start = Instant::now();
    let accepting = pair.accept();
    pair.connect().await.unwrap();
    assert_within(start.elapsed(), 100 * MS, 102 * MS);
    accepting.await.unwrap();
    assert_within(start.elapsed(), 150 * MS, 153 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_the_time_that_the_bandwidth_allows() {
    let quality =
        LinkQuality { bandwidth: Some(1 << 20), latency: 5 * MS, ..LinkQuality::default() };
    let (elapsed, _) = transfer(&Pair::new(2, quality), 1 << 20).await;
    assert_within(elapsed, 1_000 * MS, 1_300 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_stream_arrives_whole_though_a_tenth_is_lost() {
    let quality = LinkQuality { loss: 0.1, latency: 10 * MS, ..LinkQuality::default() };
    let (_, counters) = transfer(&Pair::new(3, quality), 1 << 20).await;
    let share = counters.lost as f64 / counters.sent as f64;
    assert!((0.05..0.15).contains(&share), "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_arrives_whole_though_jitter_reorders() {
    let quality = LinkQuality { jitter: 20 * MS, reorder: true, ..LinkQuality::default() };
    transfer(&Pair::new(4, quality), 1 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_in_an_idle_timeout_and_a_restored_link_takes_new_connections() {
    let pair = Pair::new(5, LinkQuality::default());
    let (connection, accepted) = pair.connected().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(connection.close_reason().is_none(), "keepalives hold an idle connection");

    let (client, server) = pair.hosts();
    pair.network.cut(client, server);
    let start = Instant::now();
    assert_eq!(connection.closed().await, ConnectionError::TimedOut);
    assert_eq!(accepted.closed().await, ConnectionError::TimedOut);
    assert_within(start.elapsed(), IDLE_TIMEOUT - 2 * KEEPALIVE, IDLE_TIMEOUT + 2 * KEEPALIVE);

    pair.network.restore(client, server);
    pair.connected().await;
}

#[tokio::test(start_paused = true)]
async fn an_isolated_host_is_silent_until_it_rejoins() {
    let pair = Pair::new(6, LinkQuality::default());
    let (_, server) = pair.hosts();
    pair.network.isolate(server);
    assert_eq!(pair.connect().await.unwrap_err(), ConnectionError::TimedOut);
    pair.network.rejoin(server);
    pair.connected().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let quality = LinkQuality {
        loss: 0.05,
        jitter: 5 * MS,
        latency: 10 * MS,
        bandwidth: Some(10 << 20),
        ..LinkQuality::default()
    };
    let tls = Tls::new();
    let mut runs = Vec::new();
    for seed in 0..8 {
        let first = transfer(&Pair::with_tls(seed, quality, &tls), 1 << 19).await;
        let second = transfer(&Pair::with_tls(seed, quality, &tls), 1 << 19).await;
        assert_eq!(first, second, "seed {seed}");
        runs.push(first);
    }
    assert!(runs.iter().any(|run| *run != runs[0]), "another seed gives another run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_thread_runtime_gets_the_network_in_real_time() {
    transfer(&Pair::new(11, LinkQuality::default()), 1 << 16).await;
}

#[tokio::test(start_paused = true)]
async fn mtu_discovery_finds_what_the_link_carries() {
    let pair = Pair::new(9, LinkQuality { mtu: 1_350, ..LinkQuality::default() });
    let (connection, _accepted) = pair.connected().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let found = connection.stats().path.current_mtu;
    assert!((1_300..=1_350).contains(&found), "found {found}");
    assert!(pair.network.counters().oversized > 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_migrates_when_its_address_changes() {
    let pair = Pair::new(10, LinkQuality::default());
    let (connection, accepted) = pair.connected().await;
    let old = accepted.remote_address();
    let new = pair.network.rebind(old, "192.0.2.1:4000".parse().unwrap()).unwrap();

    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"from elsewhere").await.unwrap();
    send.finish().unwrap();
    let (mut answer, mut heard) = accepted.accept_bi().await.unwrap();
    assert_eq!(heard.read_to_end(100).await.unwrap(), b"from elsewhere");
    assert_eq!(accepted.remote_address(), new);
    answer.write_all(b"found you").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"found you");
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(1);

/// A client and a server, each alone on its host.
struct Pair {
    network: Network,
    client: Endpoint,
    server: Endpoint,
    address: SocketAddr,
}

impl Pair {
    fn new(seed: u64, quality: LinkQuality) -> Self {
        Self::with_tls(seed, quality, &Tls::new())
    }

    fn with_tls(seed: u64, quality: LinkQuality, tls: &Tls) -> Self {
        let (server, client) = tls.configs();
        let network = Network::new(seed);
        network.set_default(quality);
        let (here, there) = (network.bind_host(), network.bind_host());
        let address = there.address();
        let endpoint = |socket, number, server| {
            let mut config = EndpointConfig::default();
            config.rng_seed(Some([number; 32]));
            let runtime = Arc::new(quinn::TokioRuntime);
            Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap()
        };
        let mut caller = endpoint(here, 1, None);
        caller.set_default_client_config(client);
        let server = endpoint(there, 2, Some(server));
        Self { network, client: caller, server, address }
    }

    fn hosts(&self) -> (IpAddr, IpAddr) {
        (self.client.local_addr().unwrap().ip(), self.address.ip())
    }

    async fn connect(&self) -> Result<Connection, ConnectionError> {
        self.client.connect(self.address, "server").unwrap().await
    }

    fn accept(&self) -> JoinHandle<Connection> {
        let server = self.server.clone();
        tokio::spawn(async move { server.accept().await.unwrap().await.unwrap() })
    }

    async fn connected(&self) -> (Connection, Connection) {
        let accepting = self.accept();
        (self.connect().await.unwrap(), accepting.await.unwrap())
    }
}

/// Sends this many bytes to the server and says when it had them all, and what became of all
/// datagrams.
async fn transfer(pair: &Pair, len: usize) -> (Duration, NetCounters) {
    let (connection, accepted) = pair.connected().await;
    let start = Instant::now();
    let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let receiving = tokio::spawn(async move {
        let mut stream = accepted.accept_uni().await.unwrap();
        let received = stream.read_to_end(len).await.unwrap();
        (received, Instant::now(), accepted)
    });
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream.finish().unwrap();
    let (received, end, _accepted) = receiving.await.unwrap();
    assert!(received == sent, "what arrived is not what was sent, seed {}", pair.network.seed());
    (end - start, pair.network.counters())
}

/// The server's certificate. Ed25519, whose signatures are all of one length.
struct Tls {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Tls {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::new(["server".to_owned()]).unwrap();
        Self { certificate: certificate.self_signed(&key).unwrap(), key }
    }

    /// Configurations that remember no earlier connection.
    fn configs(&self) -> (ServerConfig, ClientConfig) {
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IDLE_TIMEOUT.try_into().unwrap()));
        transport.keep_alive_interval(Some(KEEPALIVE));
        let transport = Arc::new(transport);

        let certificate = self.certificate.der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut server =
            ServerConfig::with_single_cert(vec![certificate.clone()], key.into()).unwrap();
        server.transport_config(Arc::clone(&transport));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        client.transport_config(transport);
        (server, client)
    }
}

#[track_caller]
fn assert_within(elapsed: Duration, least: Duration, most: Duration) {
    assert!((least..=most).contains(&elapsed), "took {elapsed:?}, not {least:?} to {most:?}");
}
