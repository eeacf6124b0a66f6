//! A neighbour whose stubs come and go all the time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attacker::*;
use crate::id::Cost;
use crate::mesh::links::trust::notary::CertificateNotary;
use crate::router::{Attachment, Config, Message, NeighbourKind, Router, SessionUp};
use crate::transport::clock as wall;
use crate::transport::frame::{Frame, FrameReader};

/// Log lines as they are written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects what is logged at INFO and above on this thread, for as long as the guard lives.
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// How many lines these nodes have written since the last call.
    fn take_counts<const N: usize>(&self, nodes: [&str; N]) -> [usize; N] {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        nodes.map(|node| {
            text.lines().filter(|line| line.contains(&format!("node{{id={node}}}"))).count()
        })
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A router of the attacker's, with stubs that do not exist, on a link to the victim.
struct Edge {
    router: Router,
    attacker: Attacker,
}

impl Edge {
    async fn new(scene: &Scene) -> Self {
        let mut attacker = scene.greet().await;
        attacker.write(&Frame::Select(1).encode()).await;
        let mut config = Config::new(mallory(), hello().epoch, hello().instance, 1);
        config.notary = Some(Arc::new(CertificateNotary::new(&scene.identity, wall::system)));
        config.transit = false;
        // It keeps to no pace.
        config.timers.stub_delay = Duration::from_millis(1);
        config.timers.stub_interval = Duration::ZERO;
        config.timers.originate_interval = Duration::ZERO;
        config.timers.flap_hold_max = Duration::ZERO;
        let mut router = Router::new(config, now());
        let up = SessionUp {
            neighbour: id("victim"),
            instance: 1,
            cost: Cost::DEFAULT,
            kind: NeighbourKind::Full,
        };
        router.handle_session_up(up, now()).unwrap();
        Self { router, attacker }
    }

    /// Puts these stubs, which are attached to it, into its record, or takes them out.
    fn alternate(&mut self, stubs: &[Attachment], there: bool) {
        for attachment in stubs {
            let neighbour = attachment.stub().clone();
            if !there {
                self.router.handle_session_down(&neighbour, now());
                continue;
            }
            let (instance, kind) = (attachment.version().instance, NeighbourKind::Stub);
            let up = SessionUp { neighbour, instance, cost: Cost::DEFAULT, kind };
            self.router.handle_session_up(up, now()).unwrap();
            assert!(self.router.set_attachment(
                attachment.clone(),
                Duration::from_secs(3_600),
                now()
            ));
        }
    }

    /// Speaks with the victim for so long.
    async fn run(&mut self, time: Duration) {
        let end = now() + time;
        while now() < end {
            while self.router.poll_event().is_some() {}
            while let Some(transmit) = self.router.poll_transmit() {
                let frame = Frame::Route(transmit.message.encode().into());
                self.attacker.write(&frame.encode()).await;
                self.router.handle_writable(&id("victim"), now());
            }
            let due = self.router.poll_timeout().map_or(end, |deadline| deadline.at.min(end));
            tokio::select! {
                frame = next(&mut self.attacker.frames) => {
                    if let Frame::Route(message) = frame
                        && let Some(message) = Message::decode(&message).unwrap()
                    {
                        self.router.handle_message(&id("victim"), message, now()).unwrap();
                    }
                }
                () = tokio::time::sleep_until(due.into()) => self.router.handle_timeout(now()),
            }
        }
    }
}

async fn next(frames: &mut FrameReader) -> Frame {
    frames.next().await.expect("the link is up").expect("the victim does not leave")
}

fn now() -> std::time::Instant {
    crate::mesh::clock::now()
}

#[tokio::test(start_paused = true)]
async fn thousands_of_stubs_that_alternate_cause_few_log_lines() {
    let log = Log::default();
    let _guard = log.collect();
    let scene = Scene::new().await;
    let mut edge = Edge::new(&scene).await;
    edge.run(Duration::from_secs(2)).await;
    // They have proofs: anybody may run any number of processes under their own certificate.
    let stubs = (0..4_000).map(|nth| scene.attachment(&id(&format!("mallory~{nth}")), &mallory()));
    let stubs: Vec<Attachment> = stubs.collect();
    let nodes = ["victim", "honest"];
    let at_start = log.take_counts(nodes);
    assert!(at_start.iter().all(|lines| (1..10).contains(lines)), "{at_start:?}");
    for half in 0..60 {
        edge.alternate(&stubs, half % 2 == 0);
        edge.run(Duration::from_millis(500)).await;
        if half == 0 {
            let known =
                scene.status().await.edges.iter().filter(|edge| edge.class == "stub").count();
            assert!(known > 2_000, "the victim knows {known} stubs");
        }
    }
    let lines = log.take_counts(nodes);
    assert!(lines.iter().all(|lines| *lines <= 100), "{lines:?}");
    scene.assert_serves("stubs that alternate").await;
}
