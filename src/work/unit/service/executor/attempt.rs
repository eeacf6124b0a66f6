//! One attempt of a unit: starting what runs it, and watching it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::in_unit::{InCore, InUnit};
use super::strays;
use crate::work::commands::supervise::{can_supervise, supervisor_command};
use crate::work::registry::UnitRunner;
use crate::work::unit::machine::executor::{ExecutorInput, Found, RunFile};
use crate::work::unit::service::shared::Shared;

/// How soon an attempt is looked at again whose process cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What ends an attempt's wait.
enum Process {
    /// The supervisor that this node has started.
    Child(Child),
    /// One that was started before, or by somebody else.
    Other(AsyncFd<OwnedFd>),
    /// It is not known which one it is.
    Unknown,
}

/// What there is of an attempt.
struct Look {
    found: Found,
    pid: Option<u32>,
}

impl Shared {
    /// Starts what runs an attempt. Returns what to feed if that failed.
    pub(in crate::work::unit::service) fn start_attempt(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        attempt: u32,
    ) -> Option<ExecutorInput> {
        if self.is_draining() {
            // The journal says that the attempt is due: the node's next run starts it.
            return None;
        }
        match self.try_start(unit, core, attempt) {
            Ok(None) => None,
            Ok(Some(child)) => {
                self.watch_attempt(unit, core, attempt, Some(child));
                None
            }
            Err(text) => Some(ExecutorInput::SpawnFailed { attempt, text }),
        }
    }

    /// Starts what runs an attempt. Returns the supervisor, which a handler does not have.
    fn try_start(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        attempt: u32,
    ) -> Result<Option<Child>, String> {
        let directive = &unit.spec.directive;
        let command = match self.registry.unit_runner(directive) {
            Some(UnitRunner::Command(command)) => command,
            Some(UnitRunner::Handler) => {
                return self.run_handler(unit, core, attempt).map(|()| None);
            }
            None => return Err(format!("nobody handles {directive} any more")),
        };
        let program = self.config.supervisor.as_deref();
        if program.is_none() && !can_supervise() {
            return Err("the node's program cannot supervise commands".to_owned());
        }
        let mark = unit.paths.attempt_path(attempt);
        let extra = [(strays::MARK.into(), mark.clone().into_os_string())];
        let job = command.unit_job(&unit.key, &unit.spec, self.limits(), extra);
        unit.paths.write_job(attempt, &job).map_err(|error| {
            self.disk_failed(&error);
            format!("cannot write the job: {error}")
        })?;
        let command = match &self.config.supervisor_args {
            Some(args) => test_supervisor(program, args, unit.paths.path(), attempt),
            None => supervisor_command(program, unit.paths.path(), attempt),
        };
        let _context = self.tasks.runtime().enter();
        let child = tokio::process::Command::from(command).spawn();
        child.map(Some).map_err(|error| format!("cannot start the supervisor: {error}"))
    }

    /// Has an attempt watched, unless it is already.
    pub(in crate::work::unit::service) fn watch_attempt(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        attempt: u32,
        child: Option<Child>,
    ) {
        if core.watched.replace(attempt) == Some(attempt) {
            return;
        }
        let (shared, unit) = (self.clone(), unit.clone());
        let process = child.map_or(Process::Unknown, Process::Child);
        self.spawn(async move { shared.watch(&unit, attempt, process).await });
    }

    /// Feeds what becomes of an attempt, until it has ended.
    async fn watch(self: &Arc<Self>, unit: &Arc<InUnit>, attempt: u32, mut process: Process) {
        let pulse = unit.pulse().clone();
        let _watch =
            self.incoming.growth.watch(&self.tasks, &unit.paths.attempt_path(attempt), &pulse);
        let mut told = false;
        loop {
            let Look { found, pid } = match self.look(unit, attempt).await {
                Ok(look) => look,
                Err(Some(error)) => {
                    tracing::warn!(unit = %unit.key, %error, "cannot look at the files of a unit");
                    tokio::time::sleep(crate::work::unit::service::DISK_RETRY).await;
                    continue;
                }
                Err(None) => return,
            };
            if found.run == RunFile::Supervisor && !told {
                told = true;
                self.feed_until_taken(unit, ExecutorInput::Started { attempt }).await;
            }
            let last = match (found.exit, found.run, found.locked) {
                (Some(exit), ..) => Some(ExecutorInput::Exited { attempt, exit }),
                (None, RunFile::Fence, _) => Some(ExecutorInput::Fenced { attempt, void: true }),
                // A handler that was cut off or not called. The node's next run decides what
                // becomes of the unit.
                (None, RunFile::Supervisor, false) if self.is_draining() => return,
                (None, RunFile::Absent, false)
                    if self.is_draining() && !matches!(process, Process::Child(_)) =>
                {
                    return;
                }
                (None, RunFile::Supervisor, false) => {
                    self.kill_strays(unit, attempt).await;
                    Some(ExecutorInput::Vanished { attempt })
                }
                (None, RunFile::Absent, false) if !matches!(process, Process::Child(_)) => {
                    let text = "the supervisor ended before it began".to_owned();
                    Some(ExecutorInput::SpawnFailed { attempt, text })
                }
                (None, RunFile::Supervisor | RunFile::Absent, _) => None,
            };
            if let Some(input) = last {
                self.feed_until_taken(unit, input).await;
                let seen = unit.seen();
                if seen.removed || seen.attempt != attempt || seen.report.outcome().is_some() {
                    return;
                }
                // The fence has shown that the attempt was begun after all.
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            if let (Process::Unknown, Some(pid)) = (&process, pid) {
                process = self.other(pid);
                if matches!(process, Process::Other(_)) {
                    // It may have ended before it could be waited for.
                    continue;
                }
            }
            tokio::select! {
                () = ended(&mut process) => process = Process::Unknown,
                () = pulse.file() => {}
            }
        }
    }

    async fn look(&self, unit: &Arc<InUnit>, attempt: u32) -> Result<Look, Option<io::Error>> {
        let paths = unit.paths.clone();
        let look = self.blocking(move || {
            let pid = paths.supervisor_pid(attempt)?;
            Ok(Look { found: paths.found(attempt)?, pid })
        });
        look.await.map_err(|_| None)?.map_err(Some)
    }

    async fn kill_strays(&self, unit: &Arc<InUnit>, attempt: u32) {
        let dir = unit.paths.attempt_path(attempt);
        if let Ok(false) = self.blocking(move || strays::kill(&dir)).await {
            tracing::warn!(unit = %unit.key, "processes of a unit whose supervisor was killed are left");
        }
    }

    /// A process that this one has not started. It can be waited for on Linux alone.
    #[cfg(target_os = "linux")]
    #[allow(
        deprecated,
        reason = "the replacement needs unsafe; the file descriptor is owned and stays open"
    )]
    fn other(&self, pid: u32) -> Process {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let _context = self.tasks.runtime().enter();
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let fd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let waiting =
            fd.and_then(|fd| AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).ok());
        waiting.map_or(Process::Unknown, Process::Other)
    }

    #[cfg(not(target_os = "linux"))]
    fn other(&self, _: u32) -> Process {
        Process::Unknown
    }
}

/// Waits until a process has ended. Cancel safe.
async fn ended(process: &mut Process) {
    match process {
        Process::Child(child) => drop(child.wait().await),
        Process::Other(fd) => drop(fd.readable().await),
        Process::Unknown => tokio::time::sleep(LOOK_AGAIN).await,
    }
}

/// A supervisor in a test program, which learns by its environment what to do.
fn test_supervisor(
    program: Option<&std::path::Path>,
    args: &[std::ffi::OsString],
    unit: &std::path::Path,
    attempt: u32,
) -> std::process::Command {
    use std::process::Stdio;
    let mut command = std::process::Command::new(
        program.unwrap_or_else(|| std::path::Path::new("/proc/self/exe")),
    );
    command
        .args(args)
        .env("RECEPTOR_SUPERVISE_UNIT", unit)
        .env("RECEPTOR_SUPERVISE_ATTEMPT", attempt.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
