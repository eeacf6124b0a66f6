//! A relay on the path falls silent while another path exists: running streams and calls stand
//! still for at most a second.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network, mesh};
use receptor_quic::{Event, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{id, serve_echo, service, try_echo};

/// Maximum time for which a stream or a call may stand still.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Interval between the messages of a stream.
const MESSAGE_EVERY: Duration = Duration::from_millis(10);

/// How a relay falls silent.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Its process stops: nothing from it arrives.
    Stops,
    /// Its links stay up, and it forwards nothing.
    Swallows,
}

/// The longest time that something stood still.
#[derive(Clone, Default)]
struct Longest(Arc<Mutex<Duration>>);

impl Longest {
    fn record(&self, took: Duration) {
        let mut longest = self.0.lock().unwrap();
        *longest = took.max(*longest);
    }

    fn get(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn reset(&self) {
        *self.0.lock().unwrap() = Duration::ZERO;
    }
}

/// Offers `clock`, which sends a byte at each interval, and `meter`, which records the longest time
/// between two bytes.
fn serve_clock(node: &Node, meter: Longest) {
    let mut clock = node.serve(service("clock")).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = clock.accept().await {
            tokio::spawn(async move {
                tick(incoming.stream.send).await;
                drop(incoming.stream.recv);
            });
        }
    });
    let mut metered = node.serve(service("meter")).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = metered.accept().await {
            let meter = meter.clone();
            tokio::spawn(async move {
                measure(incoming.stream.recv, meter).await;
                drop(incoming.stream.send);
            });
        }
    });
}

async fn tick(mut to: impl AsyncWriteExt + Unpin) {
    while to.write_all(&[1; 100]).await.is_ok() {
        sleep(MESSAGE_EVERY).await;
    }
}

async fn measure(mut from: impl AsyncReadExt + Unpin, longest: Longest) {
    let mut last = Instant::now();
    let mut buffer = [0; 4_096];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {
        longest.record(last.elapsed());
        last = Instant::now();
    }
}

/// The longest standstills of an upload, a download, and calls in a row, from `a` to `b`.
struct Flows {
    up: Longest,
    down: Longest,
    calls: Longest,
    tasks: JoinSet<()>,
}

impl Flows {
    async fn start(mesh: &Mesh) -> Self {
        let (up, down, calls) = (Longest::default(), Longest::default(), Longest::default());
        serve_clock(mesh.node("b"), up.clone());
        serve_echo(mesh.node("b"));
        let a = mesh.node("a").clone();
        let mut tasks = JoinSet::new();
        let meter = a.open(&id("b"), &service("meter")).await.unwrap();
        tasks.spawn(async move {
            tick(meter.send).await;
            drop(meter.recv);
        });
        let clock = a.open(&id("b"), &service("clock")).await.unwrap();
        let downloaded = down.clone();
        tasks.spawn(async move {
            measure(clock.recv, downloaded).await;
            drop(clock.send);
        });
        let called = calls.clone();
        tasks.spawn(async move {
            loop {
                let start = Instant::now();
                try_echo(&a, "b").await.unwrap();
                called.record(start.elapsed());
                sleep(MESSAGE_EVERY).await;
            }
        });
        Self { up, down, calls, tasks }
    }

    fn reset(&self) {
        [&self.up, &self.down, &self.calls].into_iter().for_each(Longest::reset);
    }

    fn standstills(&self) -> [Duration; 3] {
        [self.up.get(), self.down.get(), self.calls.get()]
    }
}

/// The relay next to `a` that its packets for `b` go through.
async fn via(mesh: &Mesh) -> String {
    let status = mesh.node("a").status().await.unwrap();
    let peer = status.peers.iter().find(|peer| peer.node == id("b")).unwrap();
    peer.via.as_ref().unwrap().to_string()
}

async fn standstills(
    links: &[&str],
    quality: &LinkQuality,
    how: Silence,
    far: bool,
) -> [Duration; 3] {
    let mut mesh = mesh(links.iter().copied()).await;
    mesh.network().set_default(*quality);
    sleep(Duration::from_secs(10)).await;
    let flows = Flows::start(&mesh).await;
    sleep(Duration::from_secs(10)).await;
    let near = via(&mesh).await;
    let relay = if far { near.replace('r', "s") } else { near };
    flows.reset();
    match how {
        Silence::Stops => mesh.kill(&relay),
        Silence::Swallows => mesh.swallow(&relay),
    }
    sleep(Duration::from_secs(15)).await;
    assert!(!flows.tasks.is_empty());
    flows.standstills()
}

/// Meshes with two ways from `a` to `b`, and whether it is the relay farther from `a` that fails.
const MESHES: [(&[&str], bool); 5] = [
    (&["a-r1", "a-r2", "r1-b", "r2-b"], false),
    (&["a-r1", "a-r2", "a-r3", "r1-b", "r2-b", "r3-b"], false),
    (&["a-r1", "a-r2", "r1-s1", "r2-s2", "s1-b", "s2-b"], false),
    (&["a-r1", "a-r2", "r1-s1", "r2-s2", "s1-b", "s2-b"], true),
    (&["a-r1", "r1-b", "a-x", "x-y", "y-b"], false),
];

async fn none_stands_still(quality: &LinkQuality) {
    for (links, far) in MESHES {
        for how in [Silence::Stops, Silence::Swallows] {
            let took = standstills(links, quality, how, far).await;
            let longest = took.into_iter().max().unwrap();
            assert!(longest <= STANDSTILL, "{links:?}, far {far}, {how:?}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_calls_leave_a_silent_relay_within_a_second() {
    for millis in [1, 10] {
        let latency = Duration::from_millis(millis);
        none_stands_still(&LinkQuality { latency, ..LinkQuality::default() }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn they_leave_it_as_soon_where_packets_are_lost() {
    for millis in [1, 10] {
        let latency = Duration::from_millis(millis);
        none_stands_still(&LinkQuality { latency, loss: 0.03, ..LinkQuality::default() }).await;
    }
}

/// Networks that are bad without a relay that fails, by seed: loss on every link, or jitter on those
/// of `a`.
fn bad_network(mesh: &Mesh, seed: u64) {
    let latency = Duration::from_millis(2 + seed % 20);
    let lossy = seed.is_multiple_of(2);
    let loss = if lossy { 0.03 } else { 0.0 };
    let jitter = if lossy { Duration::ZERO } else { Duration::from_millis(300) };
    let quality = LinkQuality { latency, loss, ..LinkQuality::default() };
    mesh.network().set_default(quality);
    for relay in ["r1", "r2"] {
        let (a, relay) = (mesh.addr("a").ip(), mesh.addr(relay).ip());
        mesh.network().set_link(a, relay, LinkQuality { jitter, ..quality });
    }
}

/// The seeds `FROM..TO` in `RECEPTOR_BAD_NETWORKS`, and a few without it.
fn seeds() -> Range<u64> {
    let Ok(range) = std::env::var("RECEPTOR_BAD_NETWORKS") else { return 0..24 };
    let (from, to) = range.split_once("..").expect("FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn loss_or_jitter_alone_hardly_moves_paths_and_ends_no_link() {
    let (mut runs, mut moved, mut ended) = (0, Vec::new(), Vec::new());
    for seed in seeds() {
        let links = ["a-r1", "a-r2", "r1-b", "r2-b"];
        let mesh = Mesh::builder(links).network(Network::new(seed)).start().await;
        sleep(Duration::from_secs(3)).await;
        bad_network(&mesh, seed);
        serve_echo(mesh.node("b"));
        let mut events: Vec<_> = mesh.nodes().map(Node::events).collect();
        // Now and then, and in bursts.
        for nth in 0..100 {
            try_echo(mesh.node("a"), "b").await.unwrap();
            sleep(Duration::from_millis([10, 100, 400, 900][nth % 4])).await;
        }
        for event in
            events.iter_mut().flat_map(|events| std::iter::from_fn(|| events.try_recv().ok()))
        {
            match event {
                Event::NextHopAvoided { .. } => moved.push((seed, format!("{event:?}"))),
                Event::LinkDown { .. } => ended.push((seed, format!("{event:?}"))),
                _ => {}
            }
        }
        runs += 1;
    }
    assert!(ended.is_empty(), "{ended:#?}");
    // Several packets in a row are lost now and then: 5 of 1,000 runs of a hundred calls. Without
    // the care taken it is more than a quarter.
    assert!(moved.len() <= 2 + runs / 100, "{runs} runs: {moved:#?}");
}
