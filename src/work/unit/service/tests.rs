//! Whole nodes on loopback, with real supervisors: this test program again, with one test.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::super::supervisor::{NotSupervised, supervise};
use super::super::{
    Failure, Outcome, ResultsOptions, UnitFilter, UnitHandle, UnitLimits, UnitState, UnitsConfig,
};
use crate::{Authority, Command, Node, NodeId};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
#[ignore = "a supervisor, started by the other tests"]
fn supervisor_process() {
    let unit = std::env::var_os("RECEPTOR_SUPERVISE_UNIT").expect("started by the other tests");
    let attempt = std::env::var("RECEPTOR_SUPERVISE_ATTEMPT").expect("started by the other tests");
    match supervise(Path::new(&unit), attempt.parse().expect("a number")) {
        Ok(()) | Err(NotSupervised::Taken) => {}
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_payload_and_its_output_and_end_arrive() {
    let scene = Scene::new();
    let executor = scene.executor(None).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let unit = submit(&submitter, "cat; echo problem >&2; exit 3", "hello\n").await;
    assert_eq!(read(&unit, ResultsOptions::default()).await, b"hello\n");
    assert_eq!(wait(&unit).await, Outcome::Failed(Failure::Exit(3)));
    assert_eq!(read(&unit, ResultsOptions::default().stderr()).await, b"problem\n");
    assert_eq!(read(&unit, ResultsOptions::default().from(3).follow(false)).await, b"lo\n");
    let status = unit.status();
    assert_eq!((status.stdout_len, status.stderr_len), (Some(6), Some(8)));
    assert!(status.started && status.started_ms.is_some() && status.ended_ms.is_some());
    let here = executor.units().here(&UnitFilter::default());
    assert_eq!(here.len(), 1);
    assert_eq!((here[0].id, here[0].outcome.clone()), (unit.id(), status.outcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_on_while_both_nodes_restart() {
    let scene = Scene::new();
    let executor = scene.executor(None).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let go = scene.root.path().join("go");
    let script =
        format!("echo $$; while ! [ -e {} ]; do sleep 0.02; done; echo done", go.display());
    let unit = submit(&submitter, &script, "").await;
    let mut results = unit.results(ResultsOptions::default());
    let first = timeout(LONG, results.next()).await.unwrap().unwrap().unwrap();
    let id = unit.id();
    let addr = executor.local_addrs()[0];
    drop((unit, results));
    submitter.shutdown_within(Duration::ZERO).await;
    executor.shutdown_within(Duration::ZERO).await;
    drop((submitter, executor));
    let executor = scene.executor(Some(addr)).await;
    assert_eq!(executor.units().here(&UnitFilter::default())[0].state, UnitState::Running);
    let submitter = scene.submitter(Some(&executor)).await;
    let unit = submitter.units().get(id).expect("it is known after the restart");
    let mut results = unit.results(ResultsOptions::default());
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap().unwrap(), first);
    std::fs::write(&go, "").unwrap();
    let rest = read(&unit, ResultsOptions::default().from(first.len() as u64)).await;
    assert_eq!(rest, b"done\n");
    assert_eq!(wait(&unit).await, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_cancelled_and_then_released() {
    let scene = Scene::new();
    let executor = scene.executor(None).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let unit = submit(&submitter, "echo up; sleep 1000 & sleep 1000", "").await;
    let mut results = unit.results(ResultsOptions::default());
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap().unwrap(), "up\n");
    unit.cancel(Duration::from_secs(5)).await.unwrap();
    assert_eq!(wait(&unit).await, Outcome::Cancelled);
    assert_eq!(timeout(LONG, results.next()).await.unwrap().unwrap(), None);
    unit.release(false).await.unwrap();
    timeout(LONG, unit.removed()).await.unwrap().unwrap();
    assert!(submitter.units().list(&UnitFilter::default()).is_empty());
    assert!(executor.units().here(&UnitFilter::default()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_of_a_killed_supervisor_is_lost_and_leaves_nothing_behind() {
    let scene = Scene::new();
    let executor = scene.executor(None).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let mut fastest = LONG;
    // Other work on the machine may delay one of them.
    for _ in 0..5 {
        fastest = fastest.min(time_until_lost(&submitter).await);
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

/// Kills the supervisor of a new unit, and returns how long it took until the submitter knew.
async fn time_until_lost(submitter: &Node) -> Duration {
    let unit = submit(submitter, "setsid sleep 1000 & echo $PPID $$ $!; wait", "").await;
    let mut results = unit.results(ResultsOptions::default());
    let line =
        timeout(LONG, results.next()).await.expect("in time").expect("output").expect("output");
    let text = String::from_utf8_lossy(&line);
    let pids: Vec<i32> =
        text.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect();
    let supervisor = rustix::process::Pid::from_raw(pids[0]).expect("a process id");
    let killed = tokio::time::Instant::now();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).expect("it runs");
    assert_eq!(wait(&unit).await, Outcome::Lost);
    let after = killed.elapsed();
    for pid in &pids[1..] {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} lives on: {stat}");
    }
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn output_beyond_the_limit_and_time_beyond_the_limit_end_a_command() {
    let scene = Scene::new();
    let max_run_for = Some(Duration::from_millis(300));
    let limits = UnitLimits { max_output: 100_000, max_run_for, ..limits() };
    let config = scene.config("executor").limits(limits);
    let executor = scene.executor_with(None, config).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let wordy = submit(&submitter, "yes", "").await;
    let slow = submit(&submitter, "sleep 1000", "").await;
    assert_eq!(wait(&wordy).await, Outcome::Failed(Failure::OutputLimit));
    assert_eq!(read(&wordy, ResultsOptions::default()).await.len(), 100_000);
    assert_eq!(wait(&slow).await, Outcome::Failed(Failure::RunTime));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_units_run_once_each_and_in_turn() {
    let scene = Scene::new();
    let limits = UnitLimits { max_running: 2, ..limits() };
    let executor = scene.executor_with(None, scene.config("executor").limits(limits)).await;
    let submitter = scene.submitter(Some(&executor)).await;
    let ran = scene.root.path().join("ran");
    let mut units = Vec::new();
    for n in 0..12 {
        units.push(submit(&submitter, &format!("echo {n} >> {}", ran.display()), "").await);
    }
    for unit in &units {
        assert_eq!(wait(unit).await, Outcome::Succeeded);
    }
    let mut lines: Vec<u32> =
        std::fs::read_to_string(&ran).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_was_given_up_keeps_its_id_until_it_is_over() {
    let scene = Scene::new();
    let submitter = scene.submitter(None).await;
    let submit = |key| {
        let executor = "executor";
        submitter.submit(executor, "sh:run", "x").key(key).into_future()
    };
    for _ in 0..20 {
        let key = uuid::Uuid::now_v7();
        let mut given_up = submit(key);
        tokio::select! {
            biased;
            _ = &mut given_up => {}
            () = std::future::ready(()) => {}
        }
        drop(given_up);
        let unit = timeout(LONG, submit(key)).await.unwrap().unwrap();
        assert_eq!(uuid::Uuid::from(unit.id()), key);
    }
}

/// A CA, and a directory for each node.
struct Scene {
    root: tempfile::TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new("units", 1).expect("a CA");
        Self { root: tempfile::tempdir().expect("a directory"), authority }
    }

    fn config(&self, name: &str) -> UnitsConfig {
        let entry =
            concat!(module_path!(), "::supervisor_process").split_once("::").expect("a path").1;
        UnitsConfig::new()
            .dir(self.root.path().join(name))
            .limits(limits())
            .supervisor(std::env::current_exe().expect("a program"))
            .supervisor_args([entry, "--exact", "--ignored", "--test-threads=1", "--nocapture"])
    }

    async fn executor(&self, addr: Option<std::net::SocketAddr>) -> Node {
        self.executor_with(addr, self.config("executor")).await
    }

    async fn executor_with(&self, addr: Option<std::net::SocketAddr>, config: UnitsConfig) -> Node {
        let id: NodeId = "executor".parse().expect("valid");
        let identity = self.authority.issue(&id, 1).expect("a certificate");
        let listen = addr.unwrap_or_else(|| "127.0.0.1:0".parse().expect("valid"));
        let builder = Node::builder(id, identity).listen(listen).units(config);
        let builder = builder.command("sh:run", script()).expect("it is free");
        builder.start().await.expect("it starts")
    }

    async fn submitter(&self, executor: Option<&Node>) -> Node {
        let id: NodeId = "submitter".parse().expect("valid");
        let identity = self.authority.issue(&id, 1).expect("a certificate");
        let mut builder = Node::builder(id, identity).units(self.config("submitter"));
        if let Some(executor) = executor {
            builder = builder.peer(executor.local_addrs()[0]);
        }
        builder.start().await.expect("it starts")
    }
}

/// Limits that do not depend on the free space of this machine.
fn limits() -> UnitLimits {
    UnitLimits { reserve_percent: 0, ..UnitLimits::default() }
}

/// A command whose payload begins with the length of a script, the script, and a line feed; the
/// rest is the script's input.
fn script() -> Command {
    let read = "read -r len; SCRIPT=$(dd bs=1 count=\"$len\" 2>/dev/null); eval \"$SCRIPT\"";
    Command::new("/bin/sh").arg("-c").arg(read)
}

async fn submit(node: &Node, script: &str, input: &str) -> UnitHandle {
    let payload = format!("{}\n{script}{input}", script.len());
    let executor = "executor";
    node.submit(executor, "sh:run", payload).await.expect("it is stored")
}

async fn wait(unit: &UnitHandle) -> Outcome {
    timeout(LONG, unit.wait()).await.expect("it ends in time").expect("it is there")
}

async fn read(unit: &UnitHandle, options: ResultsOptions) -> Vec<u8> {
    let mut results = unit.results(options);
    let mut all = Vec::new();
    while let Some(piece) =
        timeout(LONG, results.next()).await.expect("in time").expect("it is there")
    {
        all.extend_from_slice(&piece);
    }
    all
}
