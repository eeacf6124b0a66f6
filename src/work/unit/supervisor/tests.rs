//! Real supervisors with real commands. Each supervisor is a process of its own: this test program
//! again, with one test.

use std::process::Child;

use super::super::store::make_dir;
use super::*;
use crate::work::unit::machine::executor::Found;
use crate::work::unit::machine::executor::RunFile;

/// The unit's directory, for the test that is a supervisor.
const UNIT: &str = "RECEPTOR_TEST_SUPERVISED_UNIT";

#[test]
#[ignore = "a supervisor, started by the other tests"]
fn entry() {
    let unit = std::env::var_os(UNIT).expect("started by the other tests");
    match supervise(Path::new(&unit), 1) {
        Ok(()) | Err(NotSupervised::Taken) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn output_status_and_digests_are_recorded() {
    let unit = Unit::new();
    let record = unit.run(&sh("cat; echo problem >&2; exit 3"), b"hello\n");
    assert_eq!(record.exit, Exit { end: ExitKind::Status(3), terminated: false });
    assert_eq!(unit.read("stdout"), "hello\n");
    assert_eq!(unit.read("stderr"), "problem\n");
    let sha256: [u8; 32] = Sha256::digest(b"hello\n").into();
    assert_eq!(record.stdout, Channel { len: 6, sha256 });
    assert!(record.usage.max_rss_kib > 0);
    let found = unit.paths().found(1).unwrap();
    assert_eq!(found, Found { run: RunFile::Supervisor, locked: false, exit: Some(record.exit) });
}

#[test]
fn a_signal_that_ends_the_command_is_recorded() {
    let record = Unit::new().run(&sh("kill -9 $$"), b"");
    assert_eq!(record.exit, Exit { end: ExitKind::Signal(9), terminated: false });
}

#[test]
fn a_command_that_does_not_exist_is_reported_by_name() {
    let job = Job { program: "no-such-program".into(), ..sh("") };
    let record = Unit::new().run(&job, b"");
    let ExitKind::NotStarted(text) = record.exit.end else { panic!("{record:?}") };
    assert!(text.starts_with("cannot execute `no-such-program`: No such file"), "{text}");
}

#[test]
fn the_command_gets_its_environment_and_directory_and_nothing_else() {
    let job = Job {
        env: vec![("A".into(), "1".into())],
        dir: Some("/".into()),
        ..sh("/usr/bin/env; pwd")
    };
    let unit = Unit::new();
    unit.run(&job, b"");
    let output = unit.read("stdout");
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_="))
        .collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("A=1")).count(), 1);
    assert_eq!(lines.last(), Some(&"/"));
    assert!(!output.contains(UNIT), "{output}");
}

#[test]
fn a_request_ends_the_command_and_after_the_grace_it_is_killed() {
    for (grace_ms, script, end) in [
        (60_000, "trap 'exit 7' TERM; echo ready; sleep 1000 & wait", ExitKind::Status(7)),
        (50, "trap '' TERM; echo ready; while :; do sleep 1; done", ExitKind::Signal(9)),
    ] {
        let unit = Unit::new();
        let supervisor = unit.start(&sh(script), b"");
        unit.wait_for_output("ready\n");
        unit.paths().request_termination(1, grace_ms).unwrap();
        assert_eq!(unit.finish(supervisor).exit, Exit { end, terminated: true });
    }
}

#[test]
fn a_request_that_came_before_the_supervisor_is_honoured() {
    let unit = Unit::new();
    unit.paths().request_termination(1, 60_000).unwrap();
    let record = unit.run(&sh("sleep 1000"), b"");
    assert_eq!(record.exit, Exit { end: ExitKind::Signal(15), terminated: true });
}

#[test]
fn descendants_that_left_the_process_group_are_killed() {
    let unit = Unit::new();
    let job = sh(
        "setsid sh -c 'trap \"\" TERM; setsid sleep 1000 & echo $! $$; wait' & read -r line < wait; sleep 1000",
    );
    let supervisor = unit.start(&job, b"");
    let pids = unit.wait_for_line();
    unit.paths().request_termination(1, 20).unwrap();
    unit.finish(supervisor);
    for pid in pids.split_ascii_whitespace() {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives on");
    }
}

#[test]
fn what_a_command_leaves_behind_cannot_keep_it_open() {
    let unit = Unit::new();
    let record = unit.run(&sh("(trap '' TERM; sleep 1000) & echo done"), b"");
    assert_eq!(record.exit.end, ExitKind::Status(0));
    assert_eq!(unit.read("stdout"), "done\n");
}

#[test]
fn output_is_kept_up_to_its_limit_and_then_the_command_ends() {
    let unit = Unit::new();
    let record = unit.run(&Job { output_limit: 100_000, ..sh("yes") }, b"");
    assert_eq!(record.exit.end, ExitKind::OutputLimit);
    assert_eq!((record.stdout.len, unit.read("stdout").len()), (100_000, 100_000));
}

#[test]
fn a_command_ends_when_its_time_is_over() {
    let record = Unit::new().run(&Job { run_for_ms: Some(30), ..sh("sleep 1000") }, b"");
    assert_eq!(record.exit, Exit { end: ExitKind::RunTime, terminated: false });
}

#[test]
fn of_many_supervisors_one_executes_the_command() {
    let unit = Unit::new();
    let job = sh("echo once >> ../../../ran; exec sleep 0.1");
    let job = Job { dir: Some(unit.attempt()), ..job };
    let supervisors: Vec<Child> = (0..4).map(|_| unit.start(&job, b"")).collect();
    supervisors.into_iter().for_each(|it| drop(unit.finish(it)));
    assert_eq!(fs::read_to_string(unit.root.path().join("ran")).unwrap(), "once\n");
}

#[test]
fn a_second_supervisor_leaves_the_output_of_the_first_alone() {
    let unit = Unit::new();
    let job = sh("echo kept; echo problem >&2");
    let first = unit.run(&job, b"");
    assert_eq!(unit.run(&job, b""), first);
    assert_eq!(
        (unit.read("stdout"), unit.read("stderr")),
        ("kept\n".to_owned(), "problem\n".to_owned())
    );
}

#[test]
fn a_void_attempt_is_not_executed() {
    let unit = Unit::new();
    assert!(unit.paths().fence(1).unwrap());
    let supervisor = unit.start(&sh("echo never"), b"");
    assert!(supervisor.wait_with_output().unwrap().status.success());
    assert_eq!(unit.paths().exit(1).unwrap(), None);
    assert!(!unit.attempt().join("stdout").exists());
}

/// A unit's directory.
struct Unit {
    root: tempfile::TempDir,
}

impl Unit {
    fn new() -> Self {
        let unit = Self { root: tempfile::tempdir().unwrap() };
        make_dir(&unit.root.path().join("units")).unwrap();
        make_dir(unit.paths().path()).unwrap();
        unit
    }

    fn paths(&self) -> UnitPaths {
        UnitPaths::new(&self.root.path().join("units/unit"))
    }

    fn attempt(&self) -> PathBuf {
        self.paths().attempt_path(1)
    }

    fn run(&self, job: &Job, payload: &[u8]) -> ExitRecord {
        self.finish(self.start(job, payload))
    }

    fn start(&self, job: &Job, payload: &[u8]) -> Child {
        self.paths().write_payload(0, payload).unwrap();
        let job = Job { dir: job.dir.clone().or_else(|| Some(self.attempt())), ..job.clone() };
        self.paths().write_job(1, &job).unwrap();
        let name = concat!(module_path!(), "::entry").split_once("::").unwrap().1;
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args([name, "--exact", "--ignored", "--test-threads=1", "--nocapture"]);
        command
            .env(UNIT, self.paths().path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn finish(&self, mut supervisor: Child) -> ExitRecord {
        assert!(supervisor.wait().unwrap().success());
        self.paths().exit(1).unwrap().expect("it has recorded the end")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.attempt().join(name)).unwrap()
    }

    fn wait_for_output(&self, expected: &str) {
        while self.wait_for_line() != expected {}
    }

    /// Waits until the command has written a line.
    fn wait_for_line(&self) -> String {
        let path = self.attempt().join("stdout");
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&changes, self.attempt(), flags).unwrap();
        loop {
            match fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => drop(rustix::io::read(&changes, &mut [0; 4_096]).unwrap()),
            }
        }
    }
}

fn sh(script: &str) -> Job {
    Job {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        dir: None,
        user: None,
        output_limit: 1 << 20,
        run_for_ms: None,
        grace_ms: 0,
    }
}
