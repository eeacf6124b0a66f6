//! A child process and its process group, never left behind.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use super::inflight::Token;

/// Poll interval for the end of a process group, which has no notification.
const GROUP_POLL: Duration = Duration::from_millis(20);

/// Processes that are being started at a time, by all nodes of this process; others wait for their
/// turn. Each occupies a thread for about a millisecond.
static STARTS: Semaphore = Semaphore::const_new(4);

/// How long a process group that was killed may take to vanish.
const KILLED_WAIT: Duration = Duration::from_secs(1);

/// A child process that leads a process group. Dropped, it gets SIGTERM with all its group, and
/// SIGKILL after the grace.
#[derive(Debug)]
pub(super) struct Process {
    /// Taken when the process is given up.
    leader: Option<Leader>,
}

#[derive(Debug)]
struct Leader {
    child: Child,
    group: Group,
    /// The child has ended. Members of its group may still run.
    exited: bool,
    grace: Duration,
    /// Held to the end: a command that is to be killed must not take its input for complete.
    _stdin: SharedStdin,
    /// Tells a shutdown that something is left to wait for.
    _token: Token,
}

/// A process's stdin, until it is taken out to be closed.
pub(super) type SharedStdin = Arc<Mutex<Option<ChildStdin>>>;

/// The ends of a process's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: SharedStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts a process on a blocking thread, once it is its turn. Dropped before that, it starts
    /// none; dropped later, the process is ended as if it had been dropped.
    ///
    /// The thread that starts a process waits until the process executes its program. A worker of
    /// the runtime must not: a caller that starts hundreds at once would stop the node.
    pub(super) async fn start(
        command: Command,
        grace: Duration,
        token: Token,
    ) -> io::Result<(Self, Pipes)> {
        let _turn = STARTS.acquire().await.expect("it is never closed");
        let started = tokio::task::spawn_blocking(move || Self::spawn(command, grace, token)).await;
        started.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn spawn(mut command: Command, grace: Duration, token: Token) -> io::Result<(Self, Pipes)> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group =
            Group { id: id.expect("a child that nobody waited for has an id"), ended: false };
        let pipes = Pipes {
            stdin: Arc::new(Mutex::new(child.stdin.take())),
            stdout: child.stdout.take().expect("stdout is piped"),
            stderr: child.stderr.take().expect("stderr is piped"),
        };
        let leader = Leader {
            child,
            group,
            exited: false,
            grace,
            _stdin: pipes.stdin.clone(),
            _token: token,
        };
        Ok((Self { leader: Some(leader) }, pipes))
    }

    /// Waits until the process has ended. Its group may live on. Cancel safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let leader =
            self.leader.as_mut().expect("the leader is there until the process is dropped");
        let status = leader.child.wait().await?;
        leader.exited = true;
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        if leader.exited && !leader.group.exists() {
            // The usual end: nothing was left behind.
            leader.group.ended = true;
            return;
        }
        // Without a runtime there is no grace: the group is killed by being dropped.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(leader.terminate());
        }
    }
}

impl Leader {
    async fn terminate(mut self) {
        self.group.signal(Signal::TERM);
        if timeout(self.grace, self.gone()).await.is_err() {
            self.group.signal(Signal::KILL);
            // Nothing more can be done about what survives this: it is in the kernel, or waits to
            // be reaped by others.
            let _ = timeout(KILLED_WAIT, self.gone()).await;
        }
        self.group.ended = true;
    }

    async fn gone(&mut self) {
        // An error means that there is nothing to wait for.
        let _ = self.child.wait().await;
        while self.group.exists() {
            sleep(GROUP_POLL).await;
        }
    }
}

/// A process group. Dropped before it has ended, it is killed.
#[derive(Debug)]
struct Group {
    id: Pid,
    ended: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // An error means that the group is empty.
        let _ = kill_process_group(self.id, signal);
    }

    fn exists(&self) -> bool {
        test_kill_process_group(self.id).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended && self.exists() {
            self.signal(Signal::KILL);
        }
    }
}
