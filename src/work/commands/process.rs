//! A child process and its process group, never left behind.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use crate::work::running::inflight::Token;

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
pub(in crate::work) struct Process {
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
pub(in crate::work) type SharedStdin = Arc<Mutex<Option<ChildStdin>>>;

/// The ends of a process's pipes.
#[derive(Debug)]
pub(in crate::work) struct Pipes {
    pub(in crate::work) stdin: SharedStdin,
    pub(in crate::work) stdout: ChildStdout,
    pub(in crate::work) stderr: ChildStderr,
}

impl Process {
    /// Starts a process on a blocking thread, once it is its turn. Dropped before that, it starts
    /// none; dropped later, the process is ended as if it had been dropped. The environment of
    /// `command` is what it sets itself, and `as_user` says whether it runs as another user.
    ///
    /// The thread that starts a process waits until the process executes its program. A worker of
    /// the runtime must not: a caller that starts hundreds at once would stop the node.
    pub(in crate::work) async fn start(
        command: Command,
        as_user: bool,
        grace: Duration,
        token: Token,
    ) -> io::Result<(Self, Pipes)> {
        let _turn = STARTS.acquire().await.expect("it is never closed");
        let starting = move || Self::spawn(command, as_user, grace, token);
        let started = tokio::task::spawn_blocking(starting).await;
        started.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn spawn(
        mut command: Command,
        as_user: bool,
        grace: Duration,
        token: Token,
    ) -> io::Result<(Self, Pipes)> {
        // Another user needs a fork in any case.
        let by_path = if as_user { None } else { by_path(command.as_std()) };
        let started = by_path.and_then(|by_path| spawn_group(&mut by_path.into()).ok());
        // Also for a script without an interpreter line, which is executed by a shell only if it is
        // looked up.
        let mut child = started.map_or_else(|| spawn_group(&mut command), Ok)?;
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
    pub(in crate::work) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let leader =
            self.leader.as_mut().expect("the leader is there until the process is dropped");
        let status = leader.child.wait().await?;
        leader.exited = true;
        Ok(status)
    }
}

/// Starts a process as the leader of a group, with pipes.
fn spawn_group(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).spawn()
}

/// The same command with the path of its program, if that is a name in a `PATH` that the command
/// sets.
///
/// Rust's standard library forks for such a name, because the C library would look it up in the
/// node's own `PATH`. A fork copies the page tables of the node, and all threads that need memory
/// wait meanwhile: 7 ms for a node of 80 MiB, and pings that took 400 ms while a caller started
/// hundreds of commands. For the path of a file, the new process borrows the node's memory until it
/// executes the file: 1.5 ms, and nobody waits.
fn by_path(command: &std::process::Command) -> Option<std::process::Command> {
    let name = command.get_program();
    let path = command.get_envs().find(|(key, _)| *key == "PATH")?.1?;
    let mut by_path = std::process::Command::new(find(name, path)?);
    by_path.arg0(name).args(command.get_args()).env_clear();
    by_path.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    if let Some(dir) = command.get_current_dir() {
        by_path.current_dir(dir);
    }
    Some(by_path)
}

/// The file that is executed for `name`; `None` if that depends on the working directory, or if
/// there is none.
fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        return None;
    }
    std::env::split_paths(path)
        .take_while(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_found_as_the_system_would_find_it() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        for dir in [&first, &second] {
            fs::create_dir(dir).unwrap();
        }
        let write = |file: &PathBuf, mode| {
            fs::write(file, "#!/bin/sh\n").unwrap();
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        };
        // Neither a file that cannot be executed nor a directory counts.
        write(&first.join("tool"), 0o644);
        fs::create_dir(first.join("other")).unwrap();
        write(&second.join("tool"), 0o755);
        write(&second.join("other"), 0o755);
        let path = std::env::join_paths([&first, &second]).unwrap();
        let found = |name: &str, path: &OsStr| find(OsStr::new(name), path);
        assert_eq!(found("tool", &path), Some(second.join("tool")));
        assert_eq!(found("other", &path), Some(second.join("other")));
        for name in ["", "none", "./tool", "/bin/sh"] {
            assert_eq!(found(name, &path), None, "{name}");
        }
        // What a relative directory means depends on the working directory.
        let path = std::env::join_paths([PathBuf::from("bin"), second]).unwrap();
        assert_eq!(found("tool", &path), None);
    }

    #[test]
    fn a_command_is_the_same_by_path() {
        let mut command = std::process::Command::new("sh");
        assert!(by_path(&command).is_none(), "the node's own path is the C library's");
        command.args(["-c", "true"]).env_clear().env("PATH", "/none:/bin").env("A", "1");
        command.current_dir("/");
        let by_path = by_path(&command).unwrap();
        assert_eq!(by_path.get_program(), "/bin/sh");
        assert!(by_path.get_args().eq(command.get_args()));
        assert!(by_path.get_envs().eq(command.get_envs()));
        assert_eq!(by_path.get_current_dir(), command.get_current_dir());
    }
}
