//! Units of work among whole nodes, with handlers, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::work::unit::{
    BusyReason, Failure, Outcome, ResultsError, ResultsOptions, SubmitError, UnitError, UnitFilter,
    UnitHandle, UnitLimits, UnitRefusal, UnitState, UnitsConfig,
};
use receptor_quic::{HandlerError, Node, NodeBuilder, Request, Responder};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::support::id;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What the executors' handlers share with a test.
#[derive(Default)]
struct Work {
    runs: AtomicUsize,
    go: Notify,
}

impl Work {
    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    /// Adds `text:shout`, which answers in capitals, `text:wait`, which waits first, and
    /// `text:flood`, which writes without end.
    fn serve(self: &Arc<Self>, builder: NodeBuilder) -> NodeBuilder {
        let (shout, wait) = (self.clone(), self.clone());
        let builder = builder.handle("text:shout", move |request, responder| {
            shout.runs.fetch_add(1, Ordering::Relaxed);
            capitals(request, responder)
        });
        let builder = builder.unwrap().handle("text:wait", move |request, responder| {
            let work = wait.clone();
            async move {
                work.runs.fetch_add(1, Ordering::Relaxed);
                responder.send("ready\n".into()).await?;
                work.go.notified().await;
                capitals(request, responder).await
            }
        });
        builder.unwrap().handle("text:flood", flood).unwrap()
    }
}

async fn flood(_: Request, responder: Responder) -> Result<(), HandlerError> {
    loop {
        for _ in 0..32 {
            responder.send(vec![b'x'; 64 * 1024].into()).await?;
        }
        // The clock stands still while anything is written: a slow disk bounds the output.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn capitals(mut request: Request, responder: Responder) -> Result<(), HandlerError> {
    let text = request.payload.collect(1 << 20).await?;
    if text.is_empty() {
        return Err(HandlerError::new(format!("{} sent nothing", request.caller)));
    }
    Ok(responder.send(text.to_ascii_uppercase().into()).await?)
}

/// A node with units, in a directory that outlives it.
async fn start(mesh: &Mesh, dir: &tempfile::TempDir, name: &str, work: &Arc<Work>) -> Node {
    start_within(mesh, dir, name, work, limits()).await
}

/// Limits that do not depend on the free space of this machine.
fn limits() -> UnitLimits {
    let mut limits = UnitLimits::default();
    limits.reserve_percent = 0;
    limits
}

/// As [`start`], with other limits.
async fn start_within(
    mesh: &Mesh,
    dir: &tempfile::TempDir,
    name: &str,
    work: &Arc<Work>,
    limits: UnitLimits,
) -> Node {
    let builder = mesh.joiner(name, &["relay"]).data_dir(dir.path().join(name));
    let node = work.serve(builder.units(UnitsConfig::new().limits(limits))).start().await.unwrap();
    node.linked().await.unwrap();
    node
}

async fn end(unit: &UnitHandle) -> Outcome {
    timeout(LONG, unit.wait()).await.expect("it ends in time").unwrap()
}

async fn read(unit: &UnitHandle) -> Vec<u8> {
    let mut results = unit.results(ResultsOptions::default());
    let mut all = Vec::new();
    while let Some(piece) = timeout(LONG, results.next()).await.expect("in time").unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

async fn wait_for(unit: &UnitHandle, state: UnitState) {
    let mut watch = unit.watch();
    let reached = async { while watch.next().await.is_some_and(|status| status.state < state) {} };
    timeout(LONG, reached).await.expect("it gets there in time");
}

async fn stop(node: Node) {
    node.shutdown_within(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_unit_runs_through_a_relay_and_its_handler_sees_who_submitted_it() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:shout", "hello").label("job", "7").await.unwrap();
    assert_eq!((end(&unit).await, read(&unit).await), (Outcome::Succeeded, b"HELLO".to_vec()));
    let empty = ctl.submit(id("edge"), "text:shout", "").await.unwrap();
    let Outcome::Failed(Failure::Handler(text)) = end(&empty).await else {
        panic!("{:?}", empty.status())
    };
    assert_eq!(text, "ctl sent nothing");
    let mut filter = UnitFilter::default();
    filter.labels.push(("job".to_owned(), "7".to_owned()));
    assert_eq!(ctl.units().list(&filter).len(), 1);
    assert_eq!(edge.units().here(&filter)[0].submitter, id("ctl"));
}

#[tokio::test(start_paused = true)]
async fn a_unit_waits_for_its_executor_across_a_restart_of_its_submitter() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let old = ctl.submit(id("edge"), "text:shout", "late").await.unwrap();
    let key = old.id();
    stop(ctl).await;
    assert_eq!(old.wait().await, Err(UnitError::ShutDown));
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.units().get(key).expect("it is on disk");
    assert_eq!(unit.status().state, UnitState::Queued);
    let edge = start(&mesh, &dir, "edge", &work).await;
    ctl.routable(edge.id()).await.unwrap();
    let routed = Instant::now();
    assert_eq!(end(&unit).await, Outcome::Succeeded);
    assert!(routed.elapsed() < Duration::from_secs(2), "{:?}", routed.elapsed());
    assert_eq!((work.runs(), read(&unit).await), (1, b"LATE".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_was_not_started_in_time_expires_and_never_runs() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let submitted = Instant::now();
    let unit = ctl.submit(id("edge"), "text:shout", "x").start_by(Duration::from_secs(9));
    let unit = unit.await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Expired);
    let after = submitted.elapsed();
    assert!(after >= Duration::from_secs(9) && after < Duration::from_secs(10), "{after:?}");
    let edge = start(&mesh, &dir, "edge", &work).await;
    ctl.routable(edge.id()).await.unwrap();
    let next = ctl.submit(id("edge"), "text:shout", "x").await.unwrap();
    assert_eq!((end(&next).await, work.runs()), (Outcome::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_cancelled_before_it_arrives_never_runs() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:shout", "x").await.unwrap();
    unit.cancel(Duration::ZERO).await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Cancelled);
    let _edge = start(&mesh, &dir, "edge", &work).await;
    let next = ctl.submit(id("edge"), "text:shout", "x").await.unwrap();
    assert_eq!((end(&next).await, work.runs()), (Outcome::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_running_handler_is_cancelled_and_its_followers_end() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let _edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:wait", "x").await.unwrap();
    let mut results = unit.results(ResultsOptions::default());
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap().unwrap(), "ready\n");
    unit.cancel(Duration::ZERO).await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Cancelled);
    let ended = Instant::now();
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap(), None);
    assert!(ended.elapsed() < Duration::from_millis(100), "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_cancelled_while_its_output_is_written() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let _edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    for _ in 0..10 {
        let unit = ctl.submit(id("edge"), "text:flood", "x").await.unwrap();
        let mut results = unit.results(ResultsOptions::default());
        timeout(LONG, results.next()).await.expect("it writes in time").unwrap();
        unit.cancel(Duration::ZERO).await.unwrap();
        assert_eq!(end(&unit).await, Outcome::Cancelled);
        while timeout(LONG, results.next()).await.expect("it ends in time").unwrap().is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_payload_cannot_be_read_fails() {
    let (mesh, dir, work) =
        (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::<Work>::default());
    let mut limits = limits();
    limits.max_running = 1;
    let _edge = start_within(&mesh, &dir, "edge", &work, limits).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let first = ctl.submit(id("edge"), "text:wait", "x").await.unwrap();
    wait_for(&first, UnitState::Running).await;
    let second = ctl.submit(id("edge"), "text:wait", "x").await.unwrap();
    wait_for(&second, UnitState::Accepted).await;
    let stored = dir.path().join("edge/units/in/node-ctl").join(second.id().to_string());
    std::fs::remove_file(stored.join("payload")).unwrap();
    work.go.notify_one();
    assert_eq!(end(&first).await, Outcome::Succeeded);
    let Outcome::Failed(Failure::Handler(text)) = end(&second).await else {
        panic!("{:?}", second.status())
    };
    assert!(text.starts_with("cannot read the payload: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_one_unit_however_often_it_is_submitted() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let _edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let submit = |text: &'static str| {
        let key = uuid::Uuid::from_u128(42);
        ctl.submit(id("edge"), "text:shout", text).key(key).send()
    };
    let (one, two) = tokio::join!(submit("same"), submit("same"));
    assert_eq!(end(&one.unwrap()).await, Outcome::Succeeded);
    assert_eq!(end(&two.unwrap()).await, Outcome::Succeeded);
    assert!(matches!(submit("other").await, Err(SubmitError::Conflict { .. })));
    assert_eq!(end(&submit("same").await.unwrap()).await, Outcome::Succeeded);
    assert_eq!(work.runs(), 1);
    // Another directory of the submitter does not know the key; the executor does.
    stop(ctl).await;
    let other = tempfile::tempdir().unwrap();
    let ctl = start(&mesh, &other, "ctl", &work).await;
    let again = |text: &'static str| {
        ctl.submit(id("edge"), "text:shout", text).key(uuid::Uuid::from_u128(42)).send()
    };
    let unit = again("other").await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Refused(UnitRefusal::Conflict));
    unit.release(false).await.unwrap();
    timeout(LONG, unit.removed()).await.unwrap().unwrap();
    assert_eq!(work.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_unit_is_gone_at_both_ends_and_its_key_is_dead() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let key = uuid::Uuid::from_u128(42);
    let submit = || ctl.submit(id("edge"), "text:wait", "x").key(key).send();
    let unit = submit().await.unwrap();
    wait_for(&unit, UnitState::Running).await;
    unit.release(true).await.unwrap();
    timeout(LONG, unit.removed()).await.unwrap().unwrap();
    assert!(edge.units().here(&UnitFilter::default()).is_empty());
    assert!(matches!(
        unit.results(ResultsOptions::default()).next().await,
        Err(ResultsError::Unit(_))
    ));
    let again = submit().await.unwrap();
    assert_eq!(end(&again).await, Outcome::Refused(UnitRefusal::Released));
    assert_eq!(work.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_released_while_it_is_handed_over_is_gone_soon() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let payload = vec![b'x'; 64 << 20];
    let unit = ctl.submit(id("edge"), "text:shout", payload).await.unwrap();
    let mut watch = unit.watch();
    while watch.next().await.expect("it is handed over").payload_handed == 0 {}
    assert_eq!(unit.status().state, UnitState::Handing);
    unit.release(false).await.unwrap();
    let released = Instant::now();
    timeout(LONG, unit.removed()).await.unwrap().unwrap();
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
    assert!(edge.units().here(&UnitFilter::default()).is_empty());
    assert_eq!(work.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_units_refuses_them_at_both_ends() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("relay"), "text:shout", "x").await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Refused(UnitRefusal::NoUnits));
    let relay = mesh.node("relay");
    let refused = relay.submit(id("ctl"), "text:shout", "x").await;
    assert_eq!(refused.err(), Some(SubmitError::NoUnits));
    let unknown = ctl.submit(id("ctl"), "text:whisper", "x").await.unwrap();
    assert_eq!(end(&unknown).await, Outcome::Refused(UnitRefusal::UnknownDirective));
    let builder = mesh.joiner("edge", &["relay"]).units(UnitsConfig::new());
    let error = builder.start().await.unwrap_err();
    assert_eq!(error.to_string(), "units need a data directory");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_a_restart_cut_off_is_lost_unless_it_is_idempotent() {
    let (mesh, dir, work) =
        (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::<Work>::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let submit = |text| ctl.submit(id("edge"), "text:wait", text);
    let once = submit("once").await.unwrap();
    let again = submit("again").idempotent(true).await.unwrap();
    wait_for(&once, UnitState::Running).await;
    wait_for(&again, UnitState::Running).await;
    stop(edge).await;
    let _edge = start(&mesh, &dir, "edge", &work).await;
    assert_eq!(end(&once).await, Outcome::Lost);
    work.go.notify_one();
    assert_eq!(end(&again).await, Outcome::Succeeded);
    assert_eq!((work.runs(), read(&again).await), (3, b"ready\nAGAIN".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn units_are_kept_for_as_long_as_they_are_wanted() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:shout", "x").keep_for(Duration::from_secs(20));
    let unit = unit.await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Succeeded);
    let ended = Instant::now();
    timeout(LONG, unit.removed()).await.unwrap().unwrap();
    assert!(ended.elapsed() > Duration::from_secs(19), "{:?}", ended.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(edge.units().here(&UnitFilter::default()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_not_accepted_says_why_until_it_is() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let mut few = limits();
    few.max_units_per_submitter = 1;
    let _edge = start_within(&mesh, &dir, "edge", &work, few).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let first = ctl.submit(id("edge"), "text:shout", "first").await.unwrap();
    assert_eq!(end(&first).await, Outcome::Succeeded);
    let second = ctl.submit(id("edge"), "text:shout", "second").await.unwrap();
    let mut watch = second.watch();
    let busy = async {
        loop {
            let status = watch.next().await.expect("it has not ended");
            if let Some(busy) = status.busy {
                return (busy, status.state);
            }
        }
    };
    let busy = timeout(LONG, busy).await.expect("in time");
    assert_eq!(busy, (BusyReason::SubmitterUnits, UnitState::Queued));
    first.release(false).await.unwrap();
    assert_eq!((end(&second).await, second.status().busy), (Outcome::Succeeded, None));
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_expires_before_it_is_accepted_says_why() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let mut full = limits();
    full.reserve_percent = 100;
    let _edge = start_within(&mesh, &dir, "edge", &work, full).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:shout", "x").start_by(Duration::from_secs(9));
    let unit = unit.await.unwrap();
    assert_eq!(end(&unit).await, Outcome::Expired);
    assert_eq!((unit.status().busy, work.runs()), (Some(BusyReason::DiskReserve), 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_for_the_executor_ends_when_the_unit_is_removed() {
    let (mesh, dir, work) = (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::default());
    let edge = start(&mesh, &dir, "edge", &work).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let unit = ctl.submit(id("edge"), "text:wait", "x").await.unwrap();
    let mut results = unit.results(ResultsOptions::default());
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap().unwrap(), "ready\n");
    stop(edge).await;
    let abandon = async {
        // By then it waits for a route.
        tokio::time::sleep(Duration::from_secs(30)).await;
        unit.abandon().await.unwrap();
    };
    let (next, ()) = tokio::join!(timeout(LONG, results.next()), abandon);
    assert_eq!(next.expect("in time").unwrap_err(), ResultsError::Unit(UnitError::Removed));
}

#[tokio::test(start_paused = true)]
async fn a_unit_whose_turn_comes_in_a_shutdown_starts_after_the_restart() {
    let (mesh, dir, work) =
        (mesh(["relay"]).await, tempfile::tempdir().unwrap(), Arc::<Work>::default());
    let mut one = limits();
    one.max_running = 1;
    let edge = start_within(&mesh, &dir, "edge", &work, one).await;
    let ctl = start(&mesh, &dir, "ctl", &work).await;
    let submit = async |payload| ctl.submit(id("edge"), "text:wait", payload).await.unwrap();
    let first = submit("first").await;
    wait_for(&first, UnitState::Running).await;
    let second = submit("second").await;
    wait_for(&second, UnitState::Accepted).await;
    let end_first = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        work.go.notify_one();
    };
    tokio::join!(edge.shutdown_within(Duration::from_secs(10)), end_first);
    drop(edge);
    assert_eq!(work.runs(), 1);
    let _edge = start(&mesh, &dir, "edge", &work).await;
    assert_eq!(end(&first).await, Outcome::Succeeded);
    wait_for(&second, UnitState::Running).await;
    work.go.notify_one();
    assert_eq!((end(&second).await, work.runs()), (Outcome::Succeeded, 2));
}
