//! The supervisor: one small process for each attempt of a command, which outlives the node.
//!
//! Only the parent of a process learns how it ended, so somebody has to stay when the node
//! restarts. The supervisor holds the unit's lock for its whole life, creates the attempt's `run`
//! file before it executes the command, copies both outputs to files, and records the end in
//! `exit`. It is the subreaper of all that the command starts, and ends only when nothing of that
//! is left.
//!
//! ```text
//! node ── job, terminate ──▶ attempt-N/ ◀── run, stdout, stderr, exit ── supervisor ── pipes ── command
//!                                lock held ◀───────────────────────────────┘
//! ```
//!
//! It is one thread that waits in `poll` for: signals (a child has ended), the pipes, and the
//! directory (the node asks it to terminate). It has no timer unless a time limit runs, or the disk
//! is full.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeVal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl, inotify};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group,
    pidfd_open, set_child_subreaper, setsid, wait,
};
use sha2::{Digest as _, Sha256};

use super::job::{Channel, ExitRecord, Job, Usage};
use super::store::{UnitPaths, sync_parent};
use crate::work::unit::machine::executor::{Exit, ExitKind};

/// How much is read from a pipe at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// How many pieces of one pipe are copied before the other one and everything else have their turn.
const PIECES_A_TURN: usize = 16;

/// How long to wait before output is written again to a disk that was full.
const DISK_RETRY: Duration = Duration::from_millis(200);

/// How long a full disk may keep output back of a command that has ended. It may be that very
/// output that fills the disk, which is only released once the end is known.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// How long processes that the command has left behind may keep its outputs open.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// How often those that are being killed are looked for: one may start another at any time.
const KILL_ROUND: Duration = Duration::from_millis(10);

/// How long they are killed before they are left: the kernel holds on to what is stuck in a device.
const KILL_FOR: Duration = Duration::from_secs(10);

/// The longest text about a command that could not be executed, in bytes.
const MAX_TEXT: usize = 1_024;

/// Room that is reserved for the `exit` file, in bytes.
const EXIT_RESERVE: u64 = 4 * 1024;

/// Why a supervisor did not execute anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSupervised {
    /// Another supervisor has begun the attempt, or the node has made it void.
    #[error("the attempt was begun or made void by somebody else")]
    Taken,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Executes an attempt, and returns when it has ended and that is on disk.
///
/// For a process of its own: it takes over the signals and the descendants of the whole process.
pub(crate) fn supervise(unit: &Path, attempt: u32) -> Result<(), NotSupervised> {
    // A terminal that goes away must not end the job. A process that leads a group already stays in
    // its session.
    let _ = setsid();
    let paths = UnitPaths::new(unit);
    let _lock = paths.lock()?;
    let dir = paths.attempt_path(attempt);
    // Creating the outputs would truncate those of the supervisor that was first.
    if paths.is_begun(attempt)? {
        return Err(NotSupervised::Taken);
    }
    let job: Job = rmp_serde::from_slice(&fs::read(dir.join("job"))?).map_err(io::Error::other)?;
    let wakeups = Wakeups::new(&dir)?;
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    let stdout = Output::create(&dir.join("stdout"), job.output_limit)?;
    let stderr = Output::create(&dir.join("stderr"), job.output_limit)?;
    let reserve = Reserve::create(&dir.join("exit.reserve"))?;
    match paths.begin(attempt, std::process::id()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(NotSupervised::Taken);
        }
        begun => begun?,
    }
    let mut supervisor = Supervisor {
        outputs: [stdout, stderr],
        pipes: [None, None],
        children: Children::default(),
        wakeups,
        terminate_path: dir.join("terminate"),
        ending: None,
        run_until: job.run_for_ms.and_then(|ms| now().checked_add(Duration::from_millis(ms))),
        grace: Duration::from_millis(job.grace_ms),
    };
    let exit = match supervisor.spawn(&job, &unit.join("payload")) {
        Ok(()) => supervisor.run(),
        Err(error) => {
            let mut text = format!("cannot execute `{}`: {error}", job.program.to_string_lossy());
            while text.len() > MAX_TEXT {
                text.pop();
            }
            Exit { end: ExitKind::NotStarted(text), terminated: false }
        }
    };
    let [stdout, stderr] = supervisor.outputs;
    let record = ExitRecord {
        exit,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        usage: usage_of_children(),
    };
    reserve.write(&dir.join("exit"), &record)?;
    Ok(())
}

struct Supervisor {
    outputs: [Output; 2],
    pipes: [Option<OwnedFd>; 2],
    children: Children,
    wakeups: Wakeups,
    terminate_path: PathBuf,
    /// Why the command is being ended, and when it is killed.
    ending: Option<(Why, Instant)>,
    run_until: Option<Instant>,
    grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Requested,
    RunTime,
    OutputLimit,
}

impl Supervisor {
    fn spawn(&mut self, job: &Job, payload: &Path) -> io::Result<()> {
        let stdin = match File::open(payload) {
            Ok(file) => Stdio::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stdio::null(),
            Err(error) => return Err(error),
        };
        let mut command = Command::new(&job.program);
        command.args(&job.args).env_clear().envs(job.env.iter().cloned()).stdin(stdin);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(dir) = &job.dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = job.user {
            command.gid(gid).uid(uid);
        }
        let mut child = command.spawn()?;
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.children.leader = leader;
        // Without it (before Linux 5.3) SIGCHLD alone says that the command has ended.
        self.children.leader_fd = leader.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let pipes =
            [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        for pipe in pipes.iter().flatten() {
            fcntl_setfl(pipe, OFlags::NONBLOCK)?;
        }
        self.pipes = pipes;
        // The command runs from here on. Should this fail, its end is still seen by its file
        // descriptor.
        let _ = self.wakeups.take_signals();
        Ok(())
    }

    /// Copies the outputs until the command and all that it started have ended.
    fn run(&mut self) -> Exit {
        let mut buffer = vec![0; PIECE];
        let mut left_behind_until = None;
        self.look_for_request();
        loop {
            self.wait(left_behind_until);
            self.wakeups.drain(&mut buffer);
            self.look_for_request();
            self.children.reap();
            self.copy(&mut buffer);
            self.enforce();
            let Some(status) = self.children.ended else { continue };
            let open = self.pipes.iter().any(Option::is_some);
            let until = *left_behind_until.get_or_insert_with(|| now() + LEFT_BEHIND);
            if !open || now() >= until {
                return self.end(status, &mut buffer);
            }
        }
    }

    /// The command has ended: what it left behind is killed, and what they wrote is kept.
    fn end(&mut self, status: WaitStatus, buffer: &mut [u8]) -> Exit {
        let give_up = now() + KILL_FOR;
        while self.children.kill_all() && now() < give_up {
            self.copy(buffer);
            std::thread::sleep(KILL_ROUND);
        }
        let give_up = now() + DISK_WAIT;
        while self.copy(buffer) && now() < give_up {
            std::thread::sleep(DISK_RETRY);
        }
        let is_cut_off = self.outputs.iter().any(Output::is_stuck);
        let why = self.ending.map(|(why, _)| why);
        let end = match (why, status.exit_status(), status.terminating_signal()) {
            _ if is_cut_off => ExitKind::OutputLimit,
            (_, Some(0), _) => ExitKind::Status(0),
            (Some(Why::RunTime), ..) => ExitKind::RunTime,
            (Some(Why::OutputLimit), ..) => ExitKind::OutputLimit,
            (_, Some(status), _) => ExitKind::Status(status),
            (_, None, signal) => ExitKind::Signal(signal.unwrap_or(0)),
        };
        Exit { end, terminated: why == Some(Why::Requested) }
    }

    /// Waits for something to do.
    fn wait(&self, left_behind_until: Option<Instant>) {
        let full = self.outputs.iter().any(Output::is_stuck).then(|| now() + DISK_RETRY);
        let kill = self.ending.map(|(_, kill_at)| kill_at);
        let run = self.run_until.filter(|_| self.ending.is_none());
        let due = [left_behind_until, full, kill, run].into_iter().flatten().min();
        let timeout = due.map(|due| {
            let wait = due.saturating_duration_since(now());
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) }
        });
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds: Vec<PollFd<'_>> = self.wakeups.fds().map(readable).collect();
        fds.extend(self.children.leader_fd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        for (pipe, output) in self.pipes.iter().zip(&self.outputs) {
            if let Some(pipe) = pipe
                && !output.is_stuck()
            {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        // An interrupted wait is one that is over.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// Copies what the pipes hold. Returns whether something is left that could not be written.
    fn copy(&mut self, buffer: &mut [u8]) -> bool {
        for (pipe, output) in self.pipes.iter_mut().zip(&mut self.outputs) {
            // A command that writes without end must not keep this from looking at anything else.
            for _ in 0..PIECES_A_TURN {
                let Some(open) = pipe.as_ref().filter(|_| output.flush()) else { break };
                match rustix::io::read(open, &mut *buffer) {
                    Ok(0) => *pipe = None,
                    Ok(n) => output.write(&buffer[..n]),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => *pipe = None,
                }
            }
        }
        self.outputs.iter().any(Output::is_stuck)
    }

    fn look_for_request(&mut self) {
        if self.ending.is_some_and(|(why, _)| why == Why::Requested) && !self.wakeups.asked {
            return;
        }
        self.wakeups.asked = false;
        let Ok(text) = fs::read_to_string(&self.terminate_path) else { return };
        let grace = Duration::from_millis(text.trim().parse().unwrap_or(0));
        self.begin_to_end(Why::Requested, grace);
    }

    fn enforce(&mut self) {
        if self.wakeups.terminated {
            self.begin_to_end(Why::Requested, self.grace);
        }
        if self.run_until.is_some_and(|until| now() >= until) {
            self.begin_to_end(Why::RunTime, self.grace);
        }
        if self.outputs.iter().any(|output| output.exceeded) {
            self.begin_to_end(Why::OutputLimit, Duration::ZERO);
        }
        if self.ending.is_some_and(|(_, kill_at)| now() >= kill_at) {
            self.children.signal(Signal::KILL);
        }
    }

    /// Asks the command to end, and sets when it is killed. The first reason counts, and the
    /// shortest grace.
    fn begin_to_end(&mut self, why: Why, grace: Duration) {
        let kill_at = now() + grace;
        match &mut self.ending {
            Some((_, before)) => *before = kill_at.min(*before),
            none => {
                *none = Some((why, kill_at));
                self.children.signal(Signal::TERM);
            }
        }
    }
}

/// The command, and how it ended.
#[derive(Default)]
struct Children {
    leader: Option<Pid>,
    /// Readable once the command has ended.
    leader_fd: Option<OwnedFd>,
    ended: Option<WaitStatus>,
}

impl Children {
    /// Signals the command's process group, and descendants that have left it.
    fn signal(&self, signal: Signal) {
        // An error means that there is no process.
        if let Some(leader) = self.leader.filter(|_| self.ended.is_none()) {
            let _ = kill_process_group(leader, signal);
        }
        for child in descendants() {
            let _ = kill_process(child, signal);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.leader && (status.exited() || status.signaled()) {
                self.ended = Some(status);
                self.leader_fd = None;
            }
        }
    }

    /// Kills whatever descends from this process. Returns whether there was anything.
    fn kill_all(&mut self) -> bool {
        self.reap();
        let found = descendants();
        for child in &found {
            let _ = kill_process(*child, Signal::KILL);
        }
        self.reap();
        !found.is_empty()
    }
}

/// All processes that descend from this one. Those whose parents have ended are its own children.
fn descendants() -> Vec<Pid> {
    let mut found = BTreeSet::new();
    let mut open = vec![getpid()];
    while let Some(parent) = open.pop() {
        // A process that moves while its parent ends may be seen twice.
        open.extend(
            children_of(parent).into_iter().filter(|child| found.insert(child.as_raw_pid())),
        );
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// The children of all threads of a process. None if it has ended meanwhile.
fn children_of(parent: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", parent.as_raw_pid());
    let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = |text: String| -> Vec<Pid> {
        text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    };
    texts.flat_map(pids).collect()
}

/// What ends a wait beside the pipes.
struct Wakeups {
    /// A child has ended, or somebody ends this process. `None` until the command was started.
    signals: Option<SignalFd>,
    changes: OwnedFd,
    /// The directory has changed.
    asked: bool,
    /// This process got SIGTERM.
    terminated: bool,
}

impl Wakeups {
    fn new(dir: &Path) -> io::Result<Self> {
        let changes =
            inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&changes, dir, inotify::WatchFlags::MOVED_TO)?;
        Ok(Self { signals: None, changes, asked: true, terminated: false })
    }

    /// Receives signals from now on. After the command was started, since it would inherit the
    /// mask.
    fn take_signals(&mut self) -> io::Result<()> {
        let mut mask = SigSet::empty();
        mask.add(NixSignal::SIGCHLD);
        mask.add(NixSignal::SIGTERM);
        mask.thread_block()?;
        self.signals =
            Some(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?);
        Ok(())
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.signals.iter().map(SignalFd::as_fd).chain([self.changes.as_fd()])
    }

    fn drain(&mut self, buffer: &mut [u8]) {
        while let Some(Ok(Some(signal))) = self.signals.as_ref().map(SignalFd::read_signal) {
            self.terminated |= signal.ssi_signo == NixSignal::SIGTERM as u32;
        }
        while rustix::io::read(&self.changes, &mut *buffer).is_ok_and(|n| n > 0) {
            self.asked = true;
        }
    }
}

/// A file that an output is copied to.
struct Output {
    file: File,
    limit: u64,
    /// Bytes that the command has written, up to the limit.
    accepted: u64,
    /// Bytes in the file, and their digest.
    len: u64,
    hash: Sha256,
    /// Bytes that could not be written yet.
    pending: Vec<u8>,
    exceeded: bool,
}

impl Output {
    fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self {
            file,
            limit,
            accepted: 0,
            len: 0,
            hash: Sha256::new(),
            pending: Vec::new(),
            exceeded: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.limit - self.accepted).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        self.exceeded |= kept.len() < bytes.len();
        self.accepted += kept.len() as u64;
        self.pending.extend_from_slice(kept);
        self.flush();
    }

    /// Writes what is pending. Returns whether all of it was written.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(n) => {
                    self.hash.update(&self.pending[..n]);
                    self.len += n as u64;
                    self.pending.drain(..n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A full disk slows the command down: its pipe is not read meanwhile.
                Err(_) => return false,
            }
        }
        true
    }

    fn is_stuck(&self) -> bool {
        !self.pending.is_empty()
    }

    fn finish(self) -> Channel {
        // What cannot be synced is found to be shorter than recorded, should the machine go down. A
        // file that is gone counts as empty.
        if self.len > 0 {
            let _ = self.file.sync_all();
        }
        Channel { len: self.len, sha256: self.hash.finalize().into() }
    }
}

/// A file with room for the `exit` record, so that a full disk does not keep it from being written.
struct Reserve {
    path: PathBuf,
    file: File,
}

impl Reserve {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, EXIT_RESERVE) {
            Ok(()) => {}
            // Where room cannot be reserved otherwise, it is written to.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                file.write_all(&[0; EXIT_RESERVE as usize])?;
                file.sync_all()?;
                file.rewind()?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(mut self, to: &Path, record: &ExitRecord) -> io::Result<()> {
        let bytes = rmp_serde::to_vec(record).map_err(io::Error::other)?;
        self.file.write_all(&bytes)?;
        self.file.set_len(bytes.len() as u64)?;
        self.file.sync_all()?;
        fs::rename(&self.path, to)?;
        sync_parent(to)
    }
}

/// What the processes that have ended have used.
fn usage_of_children() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
    let ms =
        |time: TimeVal| u64::try_from(time.tv_sec() * 1_000 + time.tv_usec() / 1_000).unwrap_or(0);
    Usage {
        user_ms: ms(usage.user_time()),
        system_ms: ms(usage.system_time()),
        max_rss_kib: u64::try_from(usage.max_rss()).unwrap_or(0),
    }
}

/// The clock of this process, which does not belong to a node.
#[allow(
    clippy::disallowed_methods,
    reason = "a process of its own, outside of a node and its clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
