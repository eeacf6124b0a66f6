//! Members that speak the protocol of units against its rules, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::super::frame::FrameReader;
use super::super::busy::BusyReason;
use super::super::outcome::{ReportState, UnitRefusal};
use super::super::wire::{MAX_REPLY_FRAME, MAX_REQUEST_FRAME, Reply, StatusReply, UnitRequest};
use super::super::{Outcome, ResultsOptions, UnitHandle, UnitLimits, UnitsConfig};
use crate::Node;
use crate::mesh::{Listener, SendHalf};
use crate::testing::{Mesh, mesh};
use crate::work::unit::machine::entry::StoreId;
use crate::work::unit::service::streams::serving::{service, write};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_executor_cannot_end_a_unit_of_another() {
    let (mesh, dir) = (mesh(["relay"]).await, tempfile::tempdir().unwrap());
    let go = Arc::new(Notify::new());
    let _edge = start(&mesh, &dir, "edge", config(), &go).await;
    let ctl = start(&mesh, &dir, "ctl", config(), &go).await;
    let rogue = mesh.joiner("rogue", &["relay"]).start().await.unwrap();
    let listener = rogue.serve(service()).unwrap();
    let unit = submit(&ctl, "edge").await;
    let mut results = unit.results(ResultsOptions::default());
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap().unwrap(), "ready\n");
    let forging = tokio::spawn(forge_an_end(listener, unit.id().into()));
    let other = submit(&ctl, "rogue").await;
    assert_eq!(end(&other).await, Outcome::Refused(UnitRefusal::NotAllowed));
    assert!(!unit.status().is_final(), "{:?}", unit.status());
    go.notify_one();
    assert_eq!(end(&unit).await, Outcome::Succeeded);
    forging.abort();
}

/// Reports to each follower that this unit has succeeded, and refuses the first that is offered.
async fn forge_an_end(mut listener: Listener, unit: Uuid) {
    let mut follower: Option<SendHalf> = None;
    let store = StoreId(Uuid::from_u128(9));
    while let Some(incoming) = listener.accept().await {
        let (mut send, recv) = incoming.stream.split();
        let mut reader = FrameReader::new(recv);
        let frame = reader.next(MAX_REQUEST_FRAME).await.expect("a request").expect("a request");
        match UnitRequest::decode(&frame).expect("a request") {
            UnitRequest::Follow => {
                write(&mut send, &Reply::Following { store }).await.expect("it is read");
                let status = StatusReply {
                    version: 99,
                    state: ReportState::Final(Outcome::Succeeded),
                    started: true,
                    since_ms: 0,
                    started_ms: None,
                    stdout_len: 0,
                    stderr_len: 0,
                };
                write(&mut send, &Reply::Status { store, id: unit, status })
                    .await
                    .expect("it is read");
                follower = Some(send);
            }
            UnitRequest::Offer { id, .. } => {
                // Behind the forged status, on the same stream.
                let refused = Reply::Refused { store, id, refusal: UnitRefusal::NotAllowed };
                write(follower.as_mut().expect("it follows first"), &refused)
                    .await
                    .expect("it is read");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_submitter_cannot_use_up_the_tombstones_of_all() {
    let (mesh, dir, go) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let mut few = config();
    few.limits.max_released_ids = 16;
    let _edge = start(&mesh, &dir, "edge", few, &go).await;
    let ctl = start(&mesh, &dir, "ctl", config(), &go).await;
    let flood = mesh.joiner("flood", &["relay"]).start().await.unwrap();
    flood.linked().await.unwrap();
    let mut replies = Vec::new();
    for n in 0..20 {
        replies.push(cancel(&flood, Uuid::from_u128(n)).await);
    }
    let taken = replies.iter().filter(|reply| matches!(reply, Reply::NeverAccepted { .. })).count();
    assert_eq!(taken, 12, "three quarters: {replies:?}");
    let last = replies.last().unwrap();
    assert!(matches!(last, Reply::Busy { reason: BusyReason::ReleasedIds, .. }), "{last:?}");
    // One that is cancelled already stays so.
    assert!(matches!(cancel(&flood, Uuid::nil()).await, Reply::NeverAccepted { .. }));
    let unit = submit(&ctl, "edge").await;
    go.notify_one();
    assert_eq!(end(&unit).await, Outcome::Succeeded);
}

/// Cancels a unit that was never offered.
async fn cancel(node: &Node, id: Uuid) -> Reply {
    let edge = "edge";
    let stream = timeout(LONG, node.open(edge, &service())).await.expect("in time");
    let (mut send, recv) = stream.expect("it is served").split();
    let request = UnitRequest::Cancel { id, grace_ms: 0, start_within_ms: 1_000 };
    send.write_all(&request.encode()).await.expect("it is read");
    send.finish();
    let frame = timeout(LONG, FrameReader::new(recv).next(MAX_REPLY_FRAME)).await.expect("in time");
    Reply::decode(&frame.expect("an answer").expect("an answer")).expect("a reply")
}

fn config() -> UnitsConfig {
    UnitsConfig::new().limits(UnitLimits { reserve_percent: 0, ..UnitLimits::default() })
}

/// A node with `text:wait`, which ends when it is notified.
async fn start(
    mesh: &Mesh,
    dir: &tempfile::TempDir,
    name: &str,
    config: UnitsConfig,
    go: &Arc<Notify>,
) -> Node {
    let go = go.clone();
    let wait = move |_, responder: crate::Responder| {
        let go = go.clone();
        async move {
            responder.send("ready\n".into()).await?;
            go.notified().await;
            Ok(())
        }
    };
    let builder = mesh.joiner(name, &["relay"]).data_dir(dir.path().join(name)).units(config);
    let builder = builder.handle("text:wait", wait).expect("it is free");
    let node = builder.start().await.expect("it starts");
    node.linked().await.expect("it is linked");
    node
}

async fn submit(node: &Node, executor: &str) -> UnitHandle {
    node.submit(executor, "text:wait", "x").await.expect("it is stored")
}

async fn end(unit: &UnitHandle) -> Outcome {
    timeout(LONG, unit.wait()).await.expect("it ends in time").expect("it is there")
}
