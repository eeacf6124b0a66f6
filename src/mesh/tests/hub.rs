//! A hub with thousands of stubs: what a status costs it, and the loss of all of them at once.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::attacker::*;
use crate::id::NodeId;
use crate::mesh::driver::stubs::attaching::attach;
use crate::mesh::{Status, StatusOptions, StubsStatus, clock};
use crate::switch::Cookie;
use crate::transport::frame::{Frame, FrameReader, Hello};
use crate::transport::tls::{SERVER_NAME, TlsConfig};

/// Handshakes under way at a time: fewer than one address may have.
const AT_A_TIME: usize = 8;

/// Stubs that are attached to `victim`, all of them on one endpoint.
pub(super) struct Stubs {
    pub(super) endpoint: quinn::Endpoint,
    links: Vec<Stub>,
}

struct Stub {
    _connection: quinn::Connection,
    _control: quinn::SendStream,
    _frames: FrameReader,
}

impl Stubs {
    async fn attach(scene: &Scene, count: usize) -> Self {
        Self::attach_from(scene, 0, count).await
    }

    async fn attach_from(scene: &Scene, first: usize, count: usize) -> Self {
        let victim = (id("victim"), scene.mesh.addr("victim"));
        Self::attach_to(scene, &victim, first..first + count).await
    }

    /// Stubs with these numbers that are attached to a node at an address.
    pub(super) async fn attach_to(
        scene: &Scene,
        (node, addr): &(NodeId, SocketAddr),
        numbers: Range<usize>,
    ) -> Self {
        let endpoint = scene.endpoint();
        let tls = TlsConfig::new(&scene.identity, scene.identity.trust());
        let mut config = quinn::ClientConfig::new(tls.client(Some(node.clone())));
        config.transport_config(transport());
        let (mut joining, mut links) = (JoinSet::new(), Vec::new());
        for nth in numbers {
            if joining.len() >= AT_A_TIME {
                links.push(joining.join_next().await.unwrap().unwrap());
            }
            let stub = id(&format!("mallory~{nth}"));
            let proof = attach(&scene.attachment(&stub, node));
            let connecting = endpoint.connect_with(config.clone(), *addr, SERVER_NAME).unwrap();
            let cookie = Cookie((nth as u64).to_be_bytes());
            let own = Hello { id: stub, stub: true, transit: false, cookie, ..hello() };
            joining.spawn(async move {
                let connection = connecting.await.unwrap();
                let (mut control, recv) = connection.open_bi().await.unwrap();
                control.write_all(&Frame::Hello(Box::new(own)).encode()).await.unwrap();
                let mut frames = FrameReader::new(recv);
                loop {
                    match frames.next().await.unwrap().unwrap() {
                        Frame::Select(_) => control.write_all(&proof.encode()).await.unwrap(),
                        Frame::Attached(_) => break,
                        _ => {}
                    }
                }
                Stub { _connection: connection, _control: control, _frames: frames }
            });
        }
        links.extend(joining.join_all().await);
        Self { endpoint, links }
    }
}

/// Stubs on a thread of their own, since a hub does not share its run queue with them.
struct Elsewhere {
    lose: oneshot::Sender<()>,
}

impl Elsewhere {
    async fn attach(scene: Arc<Scene>, count: usize) -> Self {
        let (attached, all) = oneshot::channel();
        let (lose, lost) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let stubs = Stubs::attach(&scene, count).await;
                attached.send(()).unwrap();
                // Dropped, the test has failed.
                let _ = lost.await;
                stubs.endpoint.close(0_u32.into(), b"");
                stubs.endpoint.wait_idle().await;
            });
        });
        all.await.unwrap();
        Self { lose }
    }
}

/// A link of a hub costs memory and, when it ends, time by the number of its tasks.
#[tokio::test(start_paused = true)]
async fn a_link_has_one_task_beside_that_of_its_connection() {
    const MORE: usize = 40;
    let scene = Scene::new().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let settle = || tokio::time::sleep(Duration::from_secs(2));
    let first = Stubs::attach(&scene, 8).await;
    settle().await;
    let before = tasks();
    let stubs = Stubs::attach_from(&scene, first.links.len(), MORE).await;
    settle().await;
    // The task of the stubs' endpoint, and of each connection one at either end.
    assert_eq!(tasks() - before, 1 + MORE * 3);
    assert_eq!(stubs.links.len(), MORE);
}

#[tokio::test(start_paused = true)]
async fn a_status_lists_no_more_stubs_than_asked_for_and_counts_all() {
    const STUBS: usize = 40;
    const MAX: usize = 4;
    let scene = Scene::new().await;
    let stubs = Stubs::attach(&scene, STUBS).await;
    // Until they are in the victim's record.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = async |node: &str, max_stubs| {
        scene.mesh.node(node).status_with(StatusOptions { max_stubs }).await.unwrap()
    };
    let lists = |status: &Status| {
        [status.links.len(), status.routes.len(), status.edges.len(), status.peers.len()]
    };
    // Of the victim and its neighbour there is one link, one route, one peer, and an edge from each
    // end.
    let [all, few, none] = [None, Some(MAX), Some(0)].map(|max| status("victim", max));
    let (all, few, none) = (all.await, few.await, none.await);
    assert_eq!(lists(&all), [1, 1, 2, 1].map(|routers| routers + STUBS));
    assert_eq!(lists(&few), [1, 1, 2, 1].map(|routers| routers + MAX));
    assert_eq!(lists(&none), [1, 1, 2, 1]);
    for status in [all, few, none] {
        let counts =
            [status.stubs.reachable, status.stubs.links, status.stubs.attached[&id("victim")]];
        assert_eq!(counts, [STUBS; 3]);
    }
    // Those of other nodes are edges, and routes once somebody asks for them.
    scene.mesh.node("honest").routable(&id("mallory~39")).await.unwrap();
    let distant = status("honest", Some(MAX)).await;
    assert_eq!(lists(&distant), [1, 2, 2 + MAX, 1]);
    let StubsStatus { reachable, links, attached, .. } = distant.stubs;
    assert_eq!((reachable, links, attached[&id("victim")]), (1, 0, STUBS));
    assert_eq!(stubs.links.len(), STUBS);
}

/// Measures on the clock of this machine, so it is run by hand, on one that is idle:
/// `cargo test --release --all-features --lib -- --ignored --nocapture a_hub_with_4_000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures time"]
async fn a_hub_with_4_000_stubs_answers_fast_when_asked_and_when_it_loses_them() {
    let count = std::env::var("RECEPTOR_STUBS").map_or(4_000, |count| count.parse().unwrap());
    let scene = Arc::new(Scene::new().await);
    let start = clock::now();
    let stubs = Elsewhere::attach(Arc::clone(&scene), count).await;
    println!("{count} stubs attached in {:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (victim, honest) = (scene.mesh.node("victim"), scene.mesh.node("honest"));
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = clock::now();
        let status = victim.status().await.unwrap();
        took.push(start.elapsed());
        assert!(status.links.len() > count, "{}", status.links.len());
    }
    took.sort();
    println!("status: median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = clock::now();
        victim.status_with(StatusOptions { max_stubs: Some(16) }).await.unwrap();
        took.push(start.elapsed());
    }
    took.sort();
    println!("with 16 stubs: median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);

    let pinging = async {
        let (mut pings, begin) = (Vec::new(), clock::now());
        while begin.elapsed() < Duration::from_secs(5) {
            let start = clock::now();
            honest.ping(&id("victim")).await.unwrap();
            pings.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pings.sort();
        println!(
            "{} pings: median {:?}, worst {:?}",
            pings.len(),
            pings[pings.len() / 2],
            &pings[pings.len() - 5..]
        );
    };
    let losing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stubs.lose.send(()).unwrap();
        let start = clock::now();
        while victim.status().await.unwrap().links.len() > 1 {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        println!("all {count} lost within {:?}", start.elapsed());
    };
    tokio::join!(pinging, losing);
}
