//! Certificates that are renewed, rotated, revoked or forgotten while the mesh is up.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::attacker::{Scene, close_code, hello, mallory};
use crate::id::{NodeId, ServiceName};
use crate::mesh::clock;
use crate::mesh::report::status::LinkState;
use crate::testing::{LinkQuality, Network};
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::{RefusalReason, Refuser};
use crate::{Authority, Event, Identity, Node, NodeBuilder, Trust};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long certificates of these tests are valid.
const LIFE: Duration = Duration::from_secs(60);
/// When a connection must be gone that is not trusted any more.
const SOON: Duration = Duration::from_secs(2);

const ALL: [&str; 4] = ["r", "a", "b", "guest"];

/// A relay `r`, the nodes `a` and `b` that dial it, and the ephemeral `guest` of `r`.
struct World {
    network: Network,
    nodes: Vec<Node>,
}

impl World {
    /// Everybody's certificate is made by `issue`.
    async fn new(direct: bool, issue: impl Fn(&str) -> Identity) -> Self {
        Self::with(issue, |builder| builder.direct(direct)).await
    }

    /// As [`new`](Self::new), with further settings.
    async fn with(
        issue: impl Fn(&str) -> Identity,
        settings: impl Fn(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        let network = Network::new(7);
        network.set_default(LinkQuality {
            latency: Duration::from_millis(20),
            ..LinkQuality::default()
        });
        let mut world = Self { network, nodes: Vec::new() };
        for name in ALL {
            let builder = settings(world.builder(name, issue(name)));
            let node =
                builder.ephemeral(name == "guest").transit(name == "r").start().await.unwrap();
            serve_echo(&node);
            world.nodes.push(node);
        }
        for from in ["a", "b", "guest"] {
            world.node(from).linked().await.unwrap();
            for to in ["r", "a", "b"] {
                timeout(LIFE / 4, world.node(from).routable(&id(to))).await.unwrap().unwrap();
            }
        }
        world
    }

    /// A node on a host of its own, which dials `r` if there is one.
    fn builder(&self, name: &str, identity: Identity) -> NodeBuilder {
        let builder =
            Node::builder(id(name), identity).socket(self.network.bind_host()).direct(false);
        match self.nodes.first() {
            Some(relay) => builder.peer(relay.local_addrs()[0]),
            None => builder,
        }
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.id().as_str() == name).unwrap()
    }

    /// Streams that go on for as long as the test: over links and peer connections, from full nodes
    /// and from a stub.
    async fn streams(&self) -> Vec<Running> {
        let mut streams = Vec::new();
        for (from, to) in [("a", "r"), ("r", "guest"), ("a", "b"), ("guest", "b"), ("guest", "r")] {
            streams.push(Running::new(self.node(from), to).await);
        }
        streams
    }

    async fn reload(&self, names: &[&str], identity: impl Fn(&str) -> Identity) {
        for name in names {
            self.node(name).reload(identity(name)).await.unwrap();
        }
    }
}

/// A stream on which something goes back and forth all the time.
struct Running {
    from: String,
    to: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<u64>>,
}

impl Running {
    async fn new(from: &Node, to: &str) -> Self {
        let mut stream = from.open(&id(to), &service("echo")).await.unwrap();
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut rounds = 0;
            while !*stopped.borrow_and_update() {
                stream.write_u64(rounds).await?;
                if stream.read_u64().await? != rounds {
                    return Err(std::io::Error::other("another number came back"));
                }
                rounds += 1;
                sleep(Duration::from_millis(100)).await;
            }
            Ok(rounds)
        });
        Self { from: from.id().to_string(), to: to.to_owned(), stop, task }
    }

    /// It has lost nothing, and was never at rest for long.
    async fn assert_whole(self, since: Instant) {
        self.stop.send_replace(true);
        let what = self.to_string();
        let rounds = self.task.await.unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
        let least = since.elapsed().as_millis() / 250;
        assert!(u128::from(rounds) > least, "{what}: {rounds} rounds of at least {least}");
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

async fn assert_whole(streams: Vec<Running>, since: Instant) {
    for stream in streams {
        stream.assert_whole(since).await;
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_at_two_thirds_of_the_lifetime_loses_nothing() {
    for direct in [false, true] {
        let ca = Authority::new("ca", 1).unwrap();
        let world = World::new(direct, |name| issue(&ca, name, LIFE)).await;
        let (start, streams) = (Instant::now(), world.streams().await);
        for _ in 0..5 {
            sleep(LIFE * 2 / 3).await;
            world.reload(&ALL, |name| issue(&ca, name, LIFE)).await;
        }
        assert!(start.elapsed() > 3 * LIFE);
        assert_whole(streams, start).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_of_the_ca_in_four_steps_loses_nothing() {
    // Between the steps, and between the nodes within a step. A node signs its record once a
    // second, so a step takes that long until all have routes again.
    for (direct, between_steps, between_nodes) in [
        (false, Duration::from_secs(20), Duration::ZERO),
        (true, Duration::from_secs(5), Duration::from_secs(1)),
        (false, Duration::from_secs(1), Duration::ZERO),
        (false, Duration::ZERO, Duration::ZERO),
        (true, Duration::ZERO, Duration::ZERO),
    ] {
        let mut ca = Authority::new("ca", 1).unwrap();
        let world = World::new(direct, |name| ca.issue(&id(name), 1).unwrap()).await;
        let (start, streams) = (Instant::now(), world.streams().await);
        for _ in 0..2 {
            let next = Authority::new("ca", 1).unwrap();
            let both = Trust::from_pem(&(ca.certificate_pem() + &next.certificate_pem())).unwrap();
            let old: Vec<_> = ALL.iter().map(|name| world_identity(&ca, name)).collect();
            let new: Vec<_> = ALL.iter().map(|name| world_identity(&next, name)).collect();
            for (identities, trust) in [(&old, &both), (&new, &both), (&new, &next.trust())] {
                for (name, identity) in ALL.iter().zip(identities) {
                    world.reload(&[name], |_| identity.clone().with_trust(trust.clone())).await;
                    sleep(between_nodes).await;
                }
                sleep(between_steps).await;
            }
            ca = next;
            sleep(Duration::from_secs(5)).await;
        }
        assert_whole(streams, start).await;
        for node in &world.nodes {
            assert_eq!(node.status().await.unwrap().records.not_trusted, []);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rotations_until_all_first_certificates_have_expired_lose_nothing() {
    let mut ca = Authority::new("ca", 1).unwrap();
    let world = World::new(false, |name| issue(&ca, name, LIFE)).await;
    let (start, streams) = (Instant::now(), world.streams().await);
    for _ in 0..4 {
        sleep(LIFE * 2 / 3).await;
        let next = Authority::new("ca", 1).unwrap();
        let both = Trust::from_pem(&(ca.certificate_pem() + &next.certificate_pem())).unwrap();
        world.reload(&ALL, |name| issue(&ca, name, LIFE).with_trust(both.clone())).await;
        world.reload(&ALL, |name| issue(&next, name, LIFE).with_trust(both.clone())).await;
        world.reload(&ALL, |name| issue(&next, name, LIFE)).await;
        ca = next;
    }
    assert!(start.elapsed() > 2 * LIFE);
    sleep(Duration::from_secs(5)).await;
    assert_whole(streams, start).await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_that_comes_before_the_trust_in_it_counts() {
    let [old, new] = [(); 2].map(|()| Authority::new("ca", 1).unwrap());
    let both = Trust::from_pem(&(old.certificate_pem() + &new.certificate_pem())).unwrap();
    let world = World::new(false, |name| world_identity(&old, name)).await;
    let (start, streams) = (Instant::now(), world.streams().await);
    // Everybody else is late with the second step.
    world.reload(&["a", "guest"], |name| world_identity(&new, name).with_trust(both.clone())).await;
    sleep(Duration::from_secs(30)).await;
    world.reload(&["r", "b"], |name| world_identity(&new, name).with_trust(both.clone())).await;
    sleep(Duration::from_secs(10)).await;
    world.reload(&ALL, |name| world_identity(&new, name)).await;
    sleep(Duration::from_secs(10)).await;
    assert_whole(streams, start).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_left_out_of_a_rotation_is_cut_and_told_why() {
    for left_out in ["a", "guest", "b"] {
        let [old, new] = [(); 2].map(|()| Authority::new("ca", 1).unwrap());
        let both = Trust::from_pem(&(old.certificate_pem() + &new.certificate_pem())).unwrap();
        let world = World::new(false, |name| world_identity(&old, name)).await;
        let streams = world.streams().await;
        let others: Vec<_> = ALL.into_iter().filter(|name| *name != left_out).collect();
        world.reload(&ALL, |name| world_identity(&old, name).with_trust(both.clone())).await;
        sleep(Duration::from_secs(3)).await;
        world.reload(&others, |name| world_identity(&new, name).with_trust(both.clone())).await;
        sleep(Duration::from_secs(3)).await;
        let mut events = world.node(left_out).events();
        world.reload(&others, |name| world_identity(&new, name)).await;
        sleep(SOON).await;
        for name in others {
            assert_not_connected(world.node(name), left_out).await;
        }
        for stream in streams {
            // Cut off by the relay, the node itself may not hear of the end of its peer
            // connections.
            if stream.from != left_out {
                assert_eq!(stream.task.is_finished(), stream.to == left_out, "{stream}");
            }
        }
        let why = refusal(&mut events).await;
        assert_eq!(why.reason, RefusalReason::UnknownCa);
        assert_eq!(why.by, Refuser::OtherNode);
    }
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_closed_at_both_kinds_of_connection_and_both_ends() {
    for expiring in ["r", "a", "b", "guest"] {
        let ca = Authority::new("ca", 1).unwrap();
        let begin = Instant::now();
        let life = |name: &str| if name == expiring { LIFE } else { DAY };
        let world = World::new(false, |name| issue(&ca, name, life(name))).await;
        let streams = world.streams().await;
        tokio::time::sleep_until(begin + LIFE - SOON).await;
        assert!(
            streams.iter().all(|stream| !stream.task.is_finished()),
            "{expiring} is still good"
        );
        let mut events = world.node(expiring).events();
        tokio::time::sleep_until(begin + LIFE + 2 * SOON).await;
        for name in ALL.into_iter().filter(|name| *name != expiring) {
            assert_not_connected(world.node(name), expiring).await;
            let status = world.node(name).status().await.unwrap();
            let (routes, edges) = (status.routes, status.edges);
            assert!(routes.iter().all(|route| route.node != id(expiring)), "{name}: {routes:?}");
            assert!(edges.iter().all(|edge| edge.from != id(expiring)), "{name} keeps the record");
        }
        if expiring != "r" {
            let why = refusal(&mut events).await;
            assert_eq!((why.reason.clone(), why.by), (RefusalReason::Expired, Refuser::OtherNode));
        }
        for stream in streams {
            if stream.from != expiring && (stream.to == expiring || expiring == "r") {
                // Without the relay, peer connections wait for another way.
                let waits = expiring == "r" && stream.to != "r";
                assert!(waits || stream.task.is_finished(), "{stream}, {expiring} has expired");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_reason_to_cut_a_connection_is_told_by_its_own_name() {
    let ca = Authority::new("ca", 1).unwrap();
    let pin = world_identity(&ca, "b").key_fingerprint();
    let cuts: [(Trust, RefusalReason); 3] = [
        (ca.trust().with_denied([id("a")]), RefusalReason::Denied),
        (ca.trust().with_allowed([id("b")]), RefusalReason::Denied),
        (ca.trust().with_pins([pin]), RefusalReason::NotPinned),
    ];
    for (trust, reason) in cuts {
        let world = World::new(false, |name| world_identity(&ca, name)).await;
        let peer = Running::new(world.node("b"), "a").await;
        let mut events = world.node("a").events();
        let before = Instant::now();
        world.reload(&["r", "b"], |name| world_identity(&ca, name).with_trust(trust.clone())).await;
        let why = refusal(&mut events).await;
        assert_eq!((why.reason.clone(), why.by), (reason, Refuser::OtherNode));
        assert!(before.elapsed() < SOON);
        sleep(SOON).await;
        assert_not_connected(world.node("b"), "a").await;
        assert!(peer.task.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_node_is_cut_when_its_handshake_straddles_a_reload() {
    let [old, new] = [(); 2].map(|()| Authority::new("ca", 1).unwrap());
    let others = [id("late"), id("r")];
    let denying = |name: &str| {
        let others = others.iter().filter(|other| other.as_str() != name).cloned();
        world_identity(&old, name).with_trust(old.trust().with_denied(others))
    };
    let rotated = |name: &str| world_identity(&new, name);
    let reloads: [&dyn Fn(&str) -> Identity; 2] = [&denying, &rotated];
    for (reload, reloads) in
        reloads.into_iter().flat_map(|reload| [(reload, "r"), (reload, "late")])
    {
        for tenths in (1..60).step_by(3).chain((60..=100).step_by(10)) {
            let network = Network::new(tenths);
            let relay = network.bind_host();
            let addr = relay.address();
            let relay =
                Node::builder(id("r"), world_identity(&old, "r")).socket(relay).transit(true);
            let relay = relay.start().await.unwrap();
            let late = slow_node(&network, "late", world_identity(&old, "late"), addr).await;
            sleep(Duration::from_millis(100 * tenths)).await;
            let (judge, judged) = if reloads == "r" { (&relay, "late") } else { (&late, "r") };
            judge.reload(reload(reloads)).await.unwrap();
            // The handshake is over a while later, if it is not over yet.
            let before = Instant::now();
            let mut up = None;
            while before.elapsed() < Duration::from_secs(20) {
                sleep(Duration::from_millis(100)).await;
                match (links(judge).await.contains(&id(judged)), up) {
                    (true, None) => up = Some(Instant::now()),
                    (true, Some(since)) => {
                        assert!(since.elapsed() < SOON, "{reloads} after {tenths} tenths")
                    }
                    (false, _) => up = None,
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_denied_before_its_late_hello_is_cut() {
    for (seconds, rotates) in (0..=9).flat_map(|seconds| [(seconds, false), (seconds, true)]) {
        let scene = Scene::new().await;
        let victim = scene.mesh.node("victim").clone();
        let (_endpoint, connection) = scene.connect().await;
        sleep(Duration::from_secs(seconds)).await;
        let ca = scene.mesh.authority();
        let own = ca.issue(&id("victim"), 1).unwrap();
        let other = Authority::new("other", 1).unwrap();
        let trust = if rotates { other.trust() } else { ca.trust().with_denied([mallory()]) };
        victim.reload(own.with_trust(trust)).await.unwrap();
        sleep(Duration::from_millis(9_500 - 1_000 * seconds)).await;
        let (mut control, _recv) = connection.open_bi().await.unwrap();
        control.write_all(&Frame::Hello(Box::new(hello())).encode()).await.unwrap();
        let said = Instant::now();
        let code = close_code(&connection).await;
        assert!(said.elapsed() < SOON, "{seconds} s: {:?}", said.elapsed());
        let expected = if rotates { CloseCode::UnknownCa } else { CloseCode::Denied };
        assert_eq!(code, expected, "{seconds} s");
        assert!(!links(&victim).await.contains(&mallory()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_peer_is_cut_when_its_handshake_straddles_a_reload() {
    let ca = Authority::new("ca", 1).unwrap();
    // Where packets take 2.5 s each way, a handshake takes up to 10 s.
    let quick = (1..50).step_by(4).map(|tenths| (tenths, 1_000));
    let slow = (1..=100).step_by(9).map(|tenths| (tenths, 2_500));
    let cases = quick
        .chain(slow)
        .flat_map(|(tenths, latency)| [(tenths, latency, "b"), (tenths, latency, "a")]);
    for (tenths, latency, denier) in cases {
        let patient = Duration::from_secs(20);
        let world =
            World::with(|name| world_identity(&ca, name), |builder| builder.peer_timeout(patient))
                .await;
        let slow =
            LinkQuality { latency: Duration::from_millis(latency), ..LinkQuality::default() };
        let (a, b) = (world.node("a").clone(), world.node("b"));
        world.network.set_access(b.local_addrs()[0].ip(), slow);
        let denied = if denier == "b" { "a" } else { "b" };
        let opening = tokio::spawn({
            let a = a.clone();
            async move {
                let mut stream = a.open(&id("b"), &service("echo")).await.ok()?;
                stream.write_u64(1).await.ok()?;
                stream.read_u64().await.ok()
            }
        });
        sleep(Duration::from_millis(100 * tenths)).await;
        let trust = ca.trust().with_denied([id(denied)]);
        world.reload(&[denier], |name| world_identity(&ca, name).with_trust(trust.clone())).await;
        // Whether it was served before depends on the time; afterwards it is over.
        let _ = timeout(Duration::from_secs(40), opening).await.expect("it ends").unwrap();
        sleep(SOON).await;
        assert_not_connected(world.node(denier), denied).await;
        let again = timeout(Duration::from_secs(40), Running::new_fails(&a, "b")).await;
        assert!(again.is_ok_and(|failed| failed), "{denied} is not served after {tenths} tenths");
    }
}

impl Running {
    /// Whether a new stream is not served.
    async fn new_fails(from: &Node, to: &str) -> bool {
        let Ok(mut stream) = from.open(&id(to), &service("echo")).await else { return true };
        stream.write_u64(1).await.is_err() || stream.read_u64().await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_link_names_id_and_issuer_at_both_ends() {
    let [ours, theirs] = ["our mesh", "their mesh"].map(|name| Authority::new(name, 1).unwrap());
    let both = Trust::from_pem(&(ours.certificate_pem() + &theirs.certificate_pem())).unwrap();
    // The dialler judges first. Where it trusts both CAs, the acceptor refuses.
    for (dialler_trusts, refused, issuer) in [(false, "r", "our mesh"), (true, "a", "their mesh")] {
        let network = Network::new(3);
        let acceptor = issue(&ours, "r", DAY);
        let dialler = issue(&theirs, "a", DAY);
        let dialler = if dialler_trusts { dialler.with_trust(both.clone()) } else { dialler };
        let builder = |name, identity| {
            Node::builder(id(name), identity).socket(network.bind_host()).direct(false)
        };
        let r = builder("r", acceptor).start().await.unwrap();
        let mut at_acceptor = r.events();
        let a = builder("a", dialler).peer(r.local_addrs()[0]).start().await.unwrap();
        let mut at_dialler = a.events();
        for (end, events, refuses) in [
            ("acceptor", &mut at_acceptor, dialler_trusts),
            ("dialler", &mut at_dialler, !dialler_trusts),
        ] {
            let why = refusal(events).await;
            let by = if refuses { Refuser::ThisNode } else { Refuser::OtherNode };
            assert_eq!((&why.reason, why.by), (&RefusalReason::UnknownCa, by), "{end}");
            assert_eq!(why.ids, [id(refused)], "{end}");
            assert!(
                why.issuer.as_ref().is_some_and(|name| name.contains(issuer)),
                "{end}: {why:?}"
            );
            let named = format!("(id {refused}, issued by ");
            assert!(why.to_string().contains(&named), "{end}: {why}");
        }
        // The status of the dialler shows it, and `doctor` with it.
        let status = a.status().await.unwrap();
        let error = status.links.iter().find_map(|link| link.last_error.clone()).unwrap();
        assert!(error.contains(&format!("id {refused}")) && error.contains(issuer), "{error}");
    }
}

/// A node whose packets take a second each way.
async fn slow_node(network: &Network, name: &str, identity: Identity, relay: SocketAddr) -> Node {
    let socket = network.bind_host();
    let slow = LinkQuality { latency: Duration::from_secs(1), ..LinkQuality::default() };
    network.set_access(socket.address().ip(), slow);
    Node::builder(id(name), identity)
        .socket(socket)
        .direct(false)
        .peer(relay)
        .start()
        .await
        .unwrap()
}

async fn links(node: &Node) -> Vec<NodeId> {
    let links = node.status().await.unwrap().links.into_iter();
    let connected = |state| !matches!(state, LinkState::Dialling | LinkState::Backoff);
    links.filter(|link| connected(link.state)).filter_map(|link| link.peer).collect()
}

async fn assert_not_connected(node: &Node, other: &str) {
    let status = node.status().await.unwrap();
    assert!(!links(node).await.contains(&id(other)), "{}: link to {other}", node.id());
    assert!(status.peers.iter().all(|peer| peer.node != id(other)), "{}: peer {other}", node.id());
}

/// What the other node says of this one.
async fn refusal(events: &mut crate::Events) -> crate::transport::Refusal {
    let heard = async {
        loop {
            if let Event::LinkRefused { why, .. } = events.recv().await.unwrap() {
                return why;
            }
        }
    };
    timeout(Duration::from_secs(5), heard).await.expect("it is told")
}

/// A certificate that is valid for so long from now on, and was for a day before.
fn issue(ca: &Authority, name: &str, life: Duration) -> Identity {
    ca.issue_at(&id(name), 1, clock::system() + life - DAY).unwrap()
}

fn world_identity(ca: &Authority, name: &str) -> Identity {
    ca.issue_at(&id(name), 1, SystemTime::min(clock::system(), ca.not_after())).unwrap()
}

fn serve_echo(node: &Node) {
    let mut listener = node.serve(service("echo")).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.stream;
                let _ = tokio::io::copy(&mut stream.recv, &mut stream.send).await;
            });
        }
    });
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}
