//! Each write of a store fails in its turn, as on a full disk, in virtual time. Whatever write it
//! is, no unit is lost or runs twice, and the node goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::store::faults::FaultyDisk;
use super::super::{
    Failure, Outcome, ResultsOptions, SubmitError, UnitError, UnitFilter, UnitHandle, UnitLimits,
    UnitState, UnitStatus, UnitsConfig,
};
use crate::sync::lock;
use crate::testing::{Mesh, mesh};
use crate::{Node, NodeBuilder};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// How often a user repeats what has failed.
const TRIES: u32 = 20;

/// How often the handler has run for each payload.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<BTreeMap<String, u32>>>);

impl Runs {
    fn of(&self, payload: &str) -> u32 {
        lock(&self.0).get(payload).copied().unwrap_or(0)
    }

    /// Adds `text:shout`, which answers in capitals, and `text:wait`, which never ends.
    fn serve(&self, builder: NodeBuilder) -> NodeBuilder {
        let runs = self.clone();
        let shout = move |mut request: crate::Request, responder: crate::Responder| {
            let runs = runs.clone();
            async move {
                let text = request.payload.collect(1 << 20).await?;
                let text = String::from_utf8_lossy(&text).into_owned();
                *lock(&runs.0).entry(text.clone()).or_default() += 1;
                Ok(responder.send(text.to_ascii_uppercase().into_bytes().into()).await?)
            }
        };
        let wait = |_, responder: crate::Responder| async move {
            responder.send("ready\n".into()).await?;
            std::future::pending().await
        };
        let builder = builder.handle("text:shout", shout).expect("it is free");
        builder.handle("text:wait", wait).expect("it is free")
    }
}

#[tokio::test(start_paused = true)]
async fn each_write_of_the_executor_may_fail_once() {
    every_write_fails_in_turn("edge", 1).await;
}

#[tokio::test(start_paused = true)]
async fn each_write_of_the_executor_may_fail_with_those_behind_it() {
    every_write_fails_in_turn("edge", 7).await;
}

#[tokio::test(start_paused = true)]
async fn each_write_of_the_submitter_may_fail_once() {
    every_write_fails_in_turn("ctl", 1).await;
}

#[tokio::test(start_paused = true)]
async fn each_write_of_the_submitter_may_fail_with_those_behind_it() {
    every_write_fails_in_turn("ctl", 7).await;
}

#[tokio::test(start_paused = true)]
async fn one_task_recovers_a_unit_however_long_the_disk_is_full() {
    let (mesh, dir, runs) =
        (mesh(["relay"]).await, tempfile::tempdir().expect("a directory"), Runs::default());
    let ctl = start(&mesh, &dir, "ctl", &runs).await;
    let disk = FaultyDisk::new(&dir.path().join("ctl").join("units"));
    let unit = ctl.submit("away", "text:shout", "").start_by(Duration::from_secs(1));
    let unit = unit.await.expect("it is stored");
    disk.fill(true);
    sleep(Duration::from_secs(2)).await;
    let before = disk.writes();
    sleep(Duration::from_secs(10)).await;
    // Each second, one task recovers the unit and another one tries to record that it has expired.
    let writes = disk.writes() - before;
    assert!((10..=60).contains(&writes), "{writes} writes");
    assert!(!unit.status().is_final());
    disk.fill(false);
    assert_eq!(end(&unit).await, Outcome::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_power_failure_hid_holds_its_place() {
    let (mesh, dir, runs) =
        (mesh(["relay"]).await, tempfile::tempdir().expect("a directory"), Runs::default());
    let edge = start(&mesh, &dir, "edge", &runs).await;
    let ctl = start(&mesh, &dir, "ctl", &runs).await;
    let submit = || ctl.submit("edge", "text:wait", "").idempotent(true);
    let first = submit().await.expect("it is stored");
    reaches(&first, UnitState::Running).await;
    let second = submit().await.expect("it is stored");
    reaches(&second, UnitState::Accepted).await;
    edge.shutdown_within(Duration::ZERO).await;
    // Only what was synced is left of the journal.
    let log = format!("edge/units/in/node-ctl/{}/log", first.id());
    keep_frames(&dir.path().join(log), 2);
    let edge = start(&mesh, &dir, "edge", &runs).await;
    sleep(Duration::from_secs(5)).await;
    let running = |status: &UnitStatus| status.state == UnitState::Running;
    let here = edge.units().here(&UnitFilter::default());
    assert_eq!(here.iter().filter(|status| running(status)).count(), 1, "{here:?}");
    first.cancel(Duration::ZERO).await.expect("it is there");
    assert_eq!(end(&first).await, Outcome::Cancelled);
    reaches(&second, UnitState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn output_that_was_written_in_part_is_whole_after_a_cancellation() {
    let (mesh, dir, runs) =
        (mesh(["relay"]).await, tempfile::tempdir().expect("a directory"), Runs::default());
    let _edge = start(&mesh, &dir, "edge", &runs).await;
    let ctl = start(&mesh, &dir, "ctl", &runs).await;
    let key = Uuid::now_v7();
    let attempt = dir.path().join(format!("edge/units/in/node-ctl/{key}/attempt-1"));
    let disk = FaultyDisk::new(&attempt);
    disk.fill(true);
    let unit = ctl.submit("edge", "text:wait", "").key(key).await.expect("it is stored");
    reaches(&unit, UnitState::Running).await;
    sleep(Duration::from_secs(5)).await;
    // The last byte of "ready\n" finds no room.
    let written = fs::read(attempt.join("stdout")).expect("it is there");
    assert_eq!(written, b"ready");
    unit.cancel(Duration::ZERO).await.expect("it is there");
    assert_eq!(end(&unit).await, Outcome::Cancelled);
    assert_eq!(read(&unit).await, written);
}

async fn reaches(unit: &UnitHandle, state: UnitState) {
    let mut watch = unit.watch();
    let reached = async {
        while let Some(status) = watch.next().await {
            if status.state == state {
                return true;
            }
        }
        false
    };
    let reached = timeout(LONG, reached).await;
    assert_eq!(reached, Ok(true), "not {state:?}: {:?}", unit.status());
}

/// Cuts a log behind so many frames.
fn keep_frames(path: &Path, frames: usize) {
    let bytes = fs::read(path).expect("there is a log");
    let mut at = 8;
    for _ in 0..frames {
        let len: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        at += 8 + u32::from_be_bytes(len) as usize;
    }
    assert!(at < bytes.len(), "nothing to cut");
    fs::write(path, &bytes[..at]).expect("it is written");
}

/// Plays the same scene with each write of this node failing in turn, and a number of those behind
/// it.
async fn every_write_fails_in_turn(name: &str, failures: u64) {
    let (mesh, dir, runs) =
        (mesh(["relay"]).await, tempfile::tempdir().expect("a directory"), Runs::default());
    let edge = start(&mesh, &dir, "edge", &runs).await;
    let ctl = start(&mesh, &dir, "ctl", &runs).await;
    let disk = FaultyDisk::new(&dir.path().join(name).join("units"));
    let mut write = 0;
    loop {
        disk.fail(write..write + failures);
        scene(&ctl, &runs, write).await;
        if disk.writes() <= write {
            break;
        }
        write += 1;
    }
    assert!(write > 15, "{write} writes");
    drop(disk);
    // Nothing is left, in memory or on disk.
    for node in [ctl, edge] {
        node.shutdown_within(Duration::ZERO).await;
    }
    let edge = start(&mesh, &dir, "edge", &runs).await;
    let ctl = start(&mesh, &dir, "ctl", &runs).await;
    assert_eq!(ctl.units().list(&UnitFilter::default()), []);
    assert_eq!(edge.units().here(&UnitFilter::default()), []);
    assert!(ctl.units().quarantined().is_empty() && edge.units().quarantined().is_empty());
}

/// One unit runs to its end, another is cancelled, and both are released.
async fn scene(ctl: &Node, runs: &Runs, write: u64) {
    let text = format!("text {write}");
    let wait = submit(ctl, "text:wait", "").await;
    let shout = submit(ctl, "text:shout", &text).await;
    again(|| wait.cancel(Duration::ZERO)).await;
    let no_room = |outcome: &Outcome| matches!(outcome, Outcome::Failed(Failure::NotStarted(why)) if why.contains("No space left"));
    let (ended, ran) = (end(&shout).await, runs.of(&text));
    if ended == Outcome::Succeeded {
        assert_eq!(
            (ran, read(&shout).await),
            (1, text.to_ascii_uppercase().into_bytes()),
            "write {write}"
        );
    } else {
        assert!(no_room(&ended) && ran == 0, "write {write}: {ended:?}, {ran} runs");
    }
    let cancelled = end(&wait).await;
    assert!(cancelled == Outcome::Cancelled || no_room(&cancelled), "write {write}: {cancelled:?}");
    for unit in [shout, wait] {
        again(|| unit.release(false)).await;
        timeout(LONG, unit.removed())
            .await
            .expect("it is removed in time")
            .expect("the node is up");
    }
}

async fn start(mesh: &Mesh, dir: &tempfile::TempDir, name: &str, runs: &Runs) -> Node {
    // A place that is lost among those that run would keep all later units from starting.
    let limits = UnitLimits { reserve_percent: 0, max_running: 1, ..UnitLimits::default() };
    let builder = mesh.joiner(name, &["relay"]).data_dir(dir.path().join(name));
    let node = runs
        .serve(builder.units(UnitsConfig::new().limits(limits)))
        .start()
        .await
        .expect("it starts");
    node.linked().await.expect("it is linked");
    node
}

/// Submits with one key until it succeeds.
async fn submit(ctl: &Node, directive: &str, payload: &str) -> UnitHandle {
    let key = Uuid::now_v7();
    let mut tries = TRIES;
    loop {
        let submit = ctl.submit("edge", directive, payload);
        match submit.key(key).await {
            Err(SubmitError::Disk(_)) if tries > 0 => tries -= 1,
            submitted => return submitted.expect("the disk works by now"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Repeats a request until it succeeds.
async fn again<F: Future<Output = Result<(), UnitError>>>(request: impl Fn() -> F) {
    let mut tries = TRIES;
    loop {
        match request().await {
            // It may be gone already.
            Err(UnitError::Removed) => return,
            Err(UnitError::Disk(_)) if tries > 0 => tries -= 1,
            done => return done.expect("the disk works by now"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn end(unit: &UnitHandle) -> Outcome {
    let ended = timeout(LONG, unit.wait()).await;
    assert!(ended.is_ok(), "it does not end: {:?}", unit.status());
    ended.expect("it ends in time").expect("it is there")
}

async fn read(unit: &UnitHandle) -> Vec<u8> {
    let mut results = unit.results(ResultsOptions::default());
    let mut all = Vec::new();
    while let Some(piece) =
        timeout(LONG, results.next()).await.expect("in time").expect("it is there")
    {
        all.extend_from_slice(&piece);
    }
    all
}
