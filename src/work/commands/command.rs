//! External commands as handlers: payload on stdin, stdout streamed back, exit status in the last
//! response.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::future::poll_fn;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::process::{Process, SharedStdin};
use crate::id::NodeId;
use crate::mesh::StreamError;
use crate::mesh::report::log::{LogKind, LogLimits};
use crate::work::Directive;
use crate::work::code::Code;
use crate::work::frame::{MAX_ERROR_TEXT, MAX_RESPONSE};
use crate::work::handler::{HandlerError, Request};
use crate::work::payload::Payload;
use crate::work::responder::Responder;
use crate::work::running::inflight::Inflight;
use crate::work::unit::{Job, UnitKey, UnitLimits, UnitSpec};

/// How much of stderr is kept for the error text, which leaves room for the status before it.
const LAST_WORDS: usize = MAX_ERROR_TEXT - 128;

/// How long the pipes of a command that has exited are read at least, whatever its grace: what it
/// wrote is already there.
const MIN_DRAIN: Duration = Duration::from_millis(100);

/// How much is read from each pipe once the grace is over: a pipe holds no more than this unless
/// root has raised `fs.pipe-max-size`, so all of it that the command itself wrote is read.
const MAX_LATE: usize = 1024 * 1024;

/// Lines of stderr that one call may log.
const MAX_LOGGED_LINES: u32 = 1_000;
/// Bytes of a logged line. A longer one is logged in pieces.
const MAX_LOGGED_LINE: usize = 4 * 1024;

/// The variables of the node's environment that a command inherits by default: where programs are
/// and how text and time are formatted, and nothing that could be a secret.
const MINIMAL: [&str; 17] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];
/// Those among them that describe the node's user, and are wrong for another one.
const OF_THE_USER: [&str; 4] = ["HOME", "LOGNAME", "SHELL", "USER"];

/// Which variables of the node's environment a command inherits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum InheritEnv {
    /// `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `TERM`, `TMPDIR`, `TZ`, `LANG`, `LANGUAGE` and
    /// `LC_…`, as far as they are set. With [`Command::user`], without those that describe the
    /// node's user.
    #[default]
    Minimal,
    /// All of them, secrets included.
    All,
    /// These, as far as they are set. An empty list is a valid choice: the system then looks
    /// programs up in its default path.
    Only(Vec<OsString>),
}

/// What becomes of a command's stderr while it runs. Its last 4 KiB are a part of the error text in
/// any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CommandStderr {
    /// It is dropped.
    #[default]
    Drop,
    /// Each line is logged by the node, at level INFO: at most 1,000 lines per call, of at most 4
    /// KiB each.
    Log,
    /// It is sent to the caller among the output, in the order in which the node reads the two, as
    /// `2>&1` would.
    Stream,
}

/// An external command that handles a directive: a new process for each call, without a shell.
///
/// The payload goes to its stdin, and its stdout comes back as it is written, in responses of at
/// most 64 KiB. It need not read its stdin. Its environment is what it
/// [inherits](Self::inherit_env), what [`env`](Self::env) adds, and `RECEPTOR_CALLER`,
/// `RECEPTOR_CALL_ID` and `RECEPTOR_DIRECTIVE`; its working directory is the node's, unless
/// [`dir`](Self::dir) sets another.
///
/// The call succeeds when the command exits with status 0, with or without output. Otherwise the
/// caller gets the status or the signal, and the last 4 KiB of stderr.
///
/// The command leads a process group of its own. When the call is over before the command is, the
/// whole group gets SIGTERM, and SIGKILL after the [grace](Self::kill_grace). When the command has
/// exited, processes that it left behind have the grace to close its stdout and stderr, which ends
/// the call at once. After the grace the call ends even if they still write, and those that are
/// left get SIGTERM, and SIGKILL after the grace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    inherit_env: InheritEnv,
    dir: Option<PathBuf>,
    /// The uid and the gid.
    user: Option<(u32, u32)>,
    stderr: CommandStderr,
    max_output: Option<u64>,
    kill_grace: Duration,
}

impl Command {
    /// Runs `program`: a path, or a name that is looked up in `PATH`.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            inherit_env: InheritEnv::default(),
            dir: None,
            user: None,
            stderr: CommandStderr::default(),
            max_output: None,
            kill_grace: Duration::from_secs(2),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, over one that is inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets what the command inherits of the node's environment: [`InheritEnv::Minimal`] by
    /// default, since the environment of a service often holds secrets.
    #[must_use]
    pub fn inherit_env(mut self, inherit: InheritEnv) -> Self {
        self.inherit_env = inherit;
        self
    }

    /// Sets the working directory: the node's by default. A program with a relative path is looked
    /// up there.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Runs the command as another user, without supplementary groups: as the node's user by
    /// default. The system permits this to root alone; without the privilege each call fails with
    /// [`Code::CommandNotStarted`].
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Sets what becomes of stderr while the command runs: [`CommandStderr::Drop`] by default.
    #[must_use]
    pub fn stderr(mut self, stderr: CommandStderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Limits what the command may send to the caller, in bytes: no limit by default. A command
    /// that writes more is killed, and the call fails with [`Code::CommandOutputTooLong`].
    #[must_use]
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.max_output = Some(bytes);
        self
    }

    /// Sets how long the process group has between SIGTERM and SIGKILL, and how long what a command
    /// leaves behind may hold its output open: 2 s by default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace;
        self
    }

    pub(in crate::work) async fn run(
        self,
        request: Request,
        responder: Responder,
        inflight: Inflight,
    ) -> Result<(), HandlerError> {
        let command = self.to_process(&request);
        let (mut process, pipes) =
            Process::start(command, self.user.is_some(), self.kill_grace, inflight.enter())
                .await
                .map_err(|error| self.not_started(&error))?;
        let Request { caller, directive, payload, logs, .. } = request;
        let (exited, has_exited) = watch::channel(None);
        let drain = Drain { over_at: has_exited, late: 0 };
        let output =
            Output { responder: &responder, max: self.max_output, sent: AtomicU64::new(0) };
        let feed = feed(payload, pipes.stdin);
        let stdout = output.stream(pipes.stdout, drain.clone());
        let stderr = self.read_stderr(
            pipes.stderr,
            &output,
            LineLog::new(&caller, &directive, &logs),
            drain,
        );
        let exit = async {
            let status = process.wait().await?;
            exited.send_replace(Some(Instant::now() + self.kill_grace.max(MIN_DRAIN)));
            Ok(status)
        };
        let ((), words, status) = {
            let done = pin!(async { tokio::try_join!(stdout, stderr, exit) });
            run_beside(feed, done).await?
        };
        // Ends what is left of the group.
        drop(process);
        verdict(status).map_err(|code| {
            let words = String::from_utf8_lossy(&words);
            let words = tail(words.trim(), LAST_WORDS);
            tracing::debug!(program = ?self.program, %code, stderr = words, "the command failed");
            let text = if words.is_empty() { code.to_string() } else { format!("{code}: {words}") };
            HandlerError::with_code(code, text)
        })
    }

    fn to_process(&self, request: &Request) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.inherited());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("RECEPTOR_CALLER", OsStr::new(request.caller.as_str()));
        command.env("RECEPTOR_CALL_ID", request.id.to_string());
        command.env("RECEPTOR_DIRECTIVE", OsStr::new(request.directive.as_str()));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// What a supervisor executes for a unit.
    pub(in crate::work) fn unit_job(
        &self,
        key: &UnitKey,
        spec: &UnitSpec,
        limits: &UnitLimits,
        extra: [(OsString, OsString); 1],
    ) -> Job {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut env = self.inherited();
        env.extend(self.env.iter().cloned());
        env.push(("RECEPTOR_CALLER".into(), key.submitter.as_str().into()));
        env.push(("RECEPTOR_CALL_ID".into(), key.id.to_string().into()));
        env.push(("RECEPTOR_DIRECTIVE".into(), spec.directive.as_str().into()));
        env.extend(extra);
        Job {
            program: self.program.clone(),
            args: self.args.clone(),
            env,
            dir: self.dir.clone(),
            user: self.user,
            output_limit: self
                .max_output
                .map_or(limits.max_output, |max| max.min(limits.max_output)),
            run_for_ms: spec.run_for_ms.into_iter().chain(limits.max_run_for.map(ms)).min(),
            grace_ms: ms(self.kill_grace),
        }
    }

    fn inherited(&self) -> Vec<(OsString, OsString)> {
        let set = |name: &OsStr| Some((name.to_owned(), std::env::var_os(name)?));
        match &self.inherit_env {
            InheritEnv::All => std::env::vars_os().collect(),
            InheritEnv::Only(names) => names.iter().filter_map(|name| set(name)).collect(),
            InheritEnv::Minimal => {
                let fits = |name: &&&str| self.user.is_none() || !OF_THE_USER.contains(name);
                MINIMAL.iter().filter(fits).filter_map(|name| set(OsStr::new(name))).collect()
            }
        }
    }

    fn not_started(&self, error: &io::Error) -> HandlerError {
        let code = Code::CommandNotStarted;
        let (code, text) = match (error.kind(), &self.dir, self.user) {
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Some(dir), _)
                if !dir.is_dir() =>
            {
                (code, format!("{code}: there is no working directory {}", dir.display()))
            }
            (io::ErrorKind::NotFound, ..) => {
                let code = Code::CommandNotFound;
                (code, format!("{code}: {}: {error}", self.program.display()))
            }
            (io::ErrorKind::PermissionDenied, _, Some((uid, gid))) => (
                code,
                format!(
                    "{code}: {}: {error}; it is to run as user {uid}, group {gid}: the node needs the privilege to change \
                     users, and that user the permission to run it",
                    self.program.display()
                ),
            ),
            _ => (code, format!("{code}: {}: {error}", self.program.display())),
        };
        tracing::debug!(program = ?self.program, %error, "the command was not started");
        HandlerError::with_code(code, text)
    }

    /// Reads stderr to its end, does with it what is configured, and returns the last of it.
    async fn read_stderr(
        &self,
        mut stderr: ChildStderr,
        output: &Output<'_>,
        mut log: LineLog<'_>,
        mut drain: Drain,
    ) -> Result<Vec<u8>, HandlerError> {
        let mut words = Vec::new();
        loop {
            let piece = drain.read(&mut stderr, LAST_WORDS).await?;
            if piece.is_empty() {
                log.finish();
                return Ok(words);
            }
            words.extend_from_slice(&piece);
            words.drain(..words.len().saturating_sub(LAST_WORDS));
            match self.stderr {
                CommandStderr::Drop => {}
                CommandStderr::Log => log.push(&piece),
                CommandStderr::Stream => output.send(piece).await?,
            }
        }
    }
}

/// What goes to the caller.
#[derive(Debug)]
struct Output<'a> {
    responder: &'a Responder,
    max: Option<u64>,
    sent: AtomicU64,
}

impl Output<'_> {
    /// Sends stdout as it comes.
    async fn stream(&self, mut stdout: ChildStdout, mut drain: Drain) -> Result<(), HandlerError> {
        loop {
            let piece = drain.read(&mut stdout, self.responder.piece()).await?;
            if piece.is_empty() {
                return Ok(());
            }
            self.send(piece).await?;
        }
    }

    async fn send(&self, piece: Bytes) -> Result<(), HandlerError> {
        let len = piece.len() as u64;
        let sent = self.sent.fetch_add(len, Ordering::Relaxed) + len;
        if self.max.is_some_and(|max| sent > max) {
            let code = Code::CommandOutputTooLong;
            return Err(HandlerError::with_code(code, code.to_string()));
        }
        Ok(self.responder.send(piece).await?)
    }
}

/// When the reading of a command's pipe ends, even if a process still holds its other end.
#[derive(Clone, Debug)]
struct Drain {
    /// Set when the command has exited.
    over_at: watch::Receiver<Option<Instant>>,
    /// Bytes that were read after that.
    late: usize,
}

impl Drain {
    /// Reads at most `max` bytes. The result is empty at the end of the pipe, and after the grace
    /// once everything that the command wrote has been read. Cancel safe.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Bytes> {
        if self.late >= MAX_LATE {
            return Ok(Bytes::new());
        }
        let piece = tokio::select! {
            biased;
            piece = poll_fn(|cx| poll_read(Pin::new(pipe), cx, max)) => piece?,
            () = over(&mut self.over_at) => Bytes::new(),
        };
        if self.over_at.borrow().is_some_and(|at| at <= Instant::now()) {
            self.late += piece.len();
        }
        Ok(piece)
    }
}

thread_local! {
    /// Scratch buffer for reading pipes. A silent command needs no buffer of its own, and a
    /// response occupies only the memory of its bytes.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_RESPONSE].into());
}

/// Reads what is available, up to the smaller of `max` and [`MAX_RESPONSE`] bytes.
fn poll_read(
    pipe: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    max: usize,
) -> Poll<io::Result<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(&mut scratch[..max.min(MAX_RESPONSE)]);
        ready!(pipe.poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
}

async fn over(at: &mut watch::Receiver<Option<Instant>>) {
    let at = at.wait_for(Option::is_some).await.map(|at| *at);
    // An error means that the whole run is being dropped.
    if let Ok(Some(at)) = at {
        sleep_until(at).await;
    }
}

/// Logs stderr line by line.
#[derive(Debug)]
struct LineLog<'a> {
    caller: &'a NodeId,
    directive: &'a Directive,
    logs: &'a LogLimits,
    line: Vec<u8>,
    lines: u32,
}

impl<'a> LineLog<'a> {
    fn new(caller: &'a NodeId, directive: &'a Directive, logs: &'a LogLimits) -> Self {
        Self { caller, directive, logs, line: Vec::new(), lines: 0 }
    }

    fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = MAX_LOGGED_LINE - self.line.len();
            let end = piece.iter().take(room).position(|byte| *byte == b'\n');
            let len = end.unwrap_or_else(|| room.min(piece.len()));
            let (text, rest) = piece.split_at(len);
            self.line.extend_from_slice(text);
            piece = if end.is_some() { &rest[1..] } else { rest };
            if end.is_some() || self.line.len() == MAX_LOGGED_LINE {
                self.log();
            }
        }
    }

    fn finish(&mut self) {
        if !self.line.is_empty() {
            self.log();
        }
    }

    fn log(&mut self) {
        let Self { caller, directive, logs, .. } = self;
        match self.lines {
            ..MAX_LOGGED_LINES if logs.admit(LogKind::CommandOutput, caller) => {
                let stderr = &*String::from_utf8_lossy(&self.line);
                tracing::info!(%directive, %caller, stderr, "command output");
            }
            MAX_LOGGED_LINES if logs.admit(LogKind::CommandOutput, caller) => {
                tracing::warn!(%directive, %caller, max = MAX_LOGGED_LINES, "the command's further output is not logged");
            }
            _ => {}
        }
        self.lines = self.lines.saturating_add(1);
        self.line.clear();
    }
}

/// Exit status 0 is success, whatever was written.
fn verdict(status: ExitStatus) -> Result<(), Code> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(status), _) => Err(Code::CommandFailed(u8::try_from(status).unwrap_or(u8::MAX))),
        (None, signal) => {
            let signal = signal.and_then(|signal| u8::try_from(signal).ok());
            Err(Code::CommandKilled(signal.unwrap_or_default()))
        }
    }
}

/// Waits for `done`, and feeds meanwhile. Feeding may end before, or never; its failure is the
/// failure of all.
async fn run_beside<T>(
    feed: impl Future<Output = Result<(), StreamError>>,
    mut done: impl Future<Output = Result<T, HandlerError>> + Unpin,
) -> Result<T, HandlerError> {
    tokio::select! {
        biased;
        done = &mut done => return done,
        fed = feed => fed.map_err(|error| HandlerError::new(format!("the payload was cut off: {error}")))?,
    }
    done.await
}

/// Copies the payload to stdin, and closes it at the end. A command that does not want all of it is
/// right to do so.
///
/// Where the payload was cut off, stdin stays open: it must not look as if this had been all.
async fn feed(mut payload: Payload, stdin: SharedStdin) -> Result<(), StreamError> {
    let mut open = stdin.lock().await;
    while let Some(pipe) = open.as_mut() {
        match payload.read_chunk(MAX_RESPONSE).await? {
            Some(chunk) if pipe.write_all(&chunk).await.is_ok() => {}
            _ => *open = None,
        }
    }
    Ok(())
}

/// The last of `text`, at most `max` bytes.
fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rustix::process::{Pid, test_kill_process_group};
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::work::loopback::Pair;
    use crate::work::{Call, CallError, CallOptions, Registry};

    const LIMIT: usize = 1 << 20;

    /// Registered as `test:run`.
    async fn pair(command: Command) -> Pair {
        let registry = Registry::new();
        registry.command("test:run", command).unwrap();
        Pair::new(registry).await
    }

    async fn call(pair: &Pair) -> Call {
        pair.call("test:run", CallOptions::default()).await
    }

    async fn run(command: Command, payload: impl Into<Bytes>) -> Result<Bytes, CallError> {
        let pair = pair(command).await;
        let result = call(&pair).await.exchange(payload.into(), LIMIT).await;
        pair.registry.idle().await;
        result
    }

    fn sh(script: &str) -> Command {
        Command::new("sh").arg("-c").arg(script)
    }

    fn failed(code: Code, error: &str, serial: u64) -> Result<Bytes, CallError> {
        Err(CallError::Failed { code, error: error.to_owned(), serial })
    }

    /// The process group of a script that began with `echo $$`, from its first response.
    async fn group_of(call: &mut Call) -> Pid {
        let group = announced_group(call).await;
        assert!(exists(group));
        group
    }

    async fn announced_group(call: &mut Call) -> Pid {
        let first = call.next().await.unwrap().unwrap();
        let text = std::str::from_utf8(&first.body).unwrap();
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Whether a process of the group runs. The dead that wait to be reaped by the system's first
    /// process do not count.
    fn exists(group: Pid) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return test_kill_process_group(group).is_ok();
        };
        let group = group.as_raw_nonzero().to_string();
        processes.flatten().any(|process| {
            // pid (name) state parent group …; a process that has ended meanwhile cannot be read.
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> =
                stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            matches!(fields[..], [state, _, of, ..] if of == group && !"ZX".contains(state))
        })
    }

    /// Waits until nothing of a group runs. The system does not report it, so it is polled.
    async fn gone(group: Pid) {
        let gone = async {
            while exists(group) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the group is gone");
    }

    #[tokio::test]
    async fn eight_mebibytes_go_through_a_command_and_come_back_whole() {
        let pair = pair(Command::new("cat")).await;
        let (mut payload, mut responses) = call(&pair).await.split();
        let writer = tokio::spawn(async move {
            let mut hash = Sha256::new();
            for n in 0..128u8 {
                let piece = Bytes::from(vec![n; 64 * 1024]);
                hash.update(&piece);
                payload.write_chunk(piece).await.unwrap();
            }
            payload.finish();
            hash.finalize()
        });
        let mut hash = Sha256::new();
        while let Some(response) = responses.next().await.unwrap() {
            hash.update(&response.body);
        }
        assert_eq!(hash.finalize(), writer.await.unwrap());
    }

    #[tokio::test]
    async fn output_comes_as_it_is_written() {
        let pair = pair(Command::new("cat")).await;
        let mut call = call(&pair).await;
        for word in ["one", "two"] {
            call.payload.write_chunk(word.into()).await.unwrap();
            assert_eq!(call.next().await.unwrap().unwrap().body, word);
        }
        assert_eq!(call.collect(LIMIT).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_command_need_not_read_its_input() {
        let payload = vec![0; 4 << 20];
        assert_eq!(run(sh("echo unread"), payload.clone()).await, Ok("unread\n".into()));
        assert_eq!(run(sh("exec <&-; echo closed"), payload.clone()).await, Ok("closed\n".into()));
        assert_eq!(run(sh("head -c 3"), payload).await, Ok(Bytes::from_static(&[0; 3])));
    }

    #[tokio::test]
    async fn a_command_that_fails_says_how_and_its_last_words() {
        let result = run(sh("echo out; echo no such thing >&2; exit 3"), "").await;
        let expected = "the command exited with status 3: no such thing";
        assert_eq!(result, failed(Code::CommandFailed(3), expected, 2));

        let result = run(sh("kill -9 $$"), "").await;
        assert_eq!(result, failed(Code::CommandKilled(9), "the command was killed by signal 9", 1));

        let Err(CallError::Failed { error, .. }) = run(sh("seq 10000 >&2; exit 1"), "").await
        else {
            panic!("exit 1 is a failure");
        };
        assert!(
            error.ends_with("\n9999\n10000") && error.len() <= MAX_ERROR_TEXT,
            "{}",
            error.len()
        );
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_started_says_so() {
        let Err(CallError::Failed { code, error, .. }) =
            run(Command::new("/no/such/command"), "").await
        else {
            panic!("there is no such command");
        };
        assert_eq!(code, Code::CommandNotFound);
        assert!(error.starts_with("the command was not found: /no/such/command"), "{error}");
        let Err(CallError::Failed { code, .. }) = run(Command::new("/"), "").await else {
            panic!("a directory is no command");
        };
        assert_eq!(code, Code::CommandNotStarted);
    }

    #[tokio::test]
    async fn a_script_without_an_interpreter_line_is_executed_by_a_shell() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "echo here\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let command = Command::new("script").env("PATH", dir.path());
        assert_eq!(run(command, "").await, Ok(Bytes::from_static(b"here\n")));
    }

    #[tokio::test]
    async fn exit_status_0_is_success_without_any_output() {
        assert_eq!(run(Command::new("true"), "").await, Ok(Bytes::new()));
        assert_eq!(run(Command::new("cat"), "").await, Ok(Bytes::new()));
        assert_eq!(run(sh("echo a warning >&2"), "").await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_command_learns_who_calls_and_gets_no_shell() {
        let script = "echo $RECEPTOR_CALLER $RECEPTOR_DIRECTIVE ${#RECEPTOR_CALL_ID} $MORE";
        let result = run(sh(script).env("MORE", "more").env("RECEPTOR_CALLER", "forged"), "").await;
        assert_eq!(result, Ok("caller test:run 36 more\n".into()));
        let result = run(Command::new("echo").args(["$HOME", ";", "ls *"]), "").await;
        assert_eq!(result, Ok("$HOME ; ls *\n".into()));
    }

    #[tokio::test]
    async fn a_command_that_writes_too_much_is_killed() {
        let Err(CallError::Failed { code, .. }) =
            run(Command::new("yes").max_output(100_000), "").await
        else {
            panic!("yes never ends");
        };
        assert_eq!(code, Code::CommandOutputTooLong);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_the_whole_process_group() {
        // The grace is longer than the wait: SIGTERM has to be enough.
        let pair =
            pair(sh("sleep 1000 & echo $$; wait").kill_grace(Duration::from_secs(1000))).await;
        let mut call = call(&pair).await;
        let group = group_of(&mut call).await;
        drop(call);
        gone(group).await;
    }

    #[tokio::test]
    async fn a_group_that_ignores_sigterm_is_killed_after_the_grace() {
        let script = "trap '' TERM; sleep 1000 & echo $$; wait";
        let pair = pair(sh(script).kill_grace(Duration::from_millis(50))).await;
        let mut call = call(&pair).await;
        let group = group_of(&mut call).await;
        call.cancel();
        gone(group).await;
    }

    #[tokio::test]
    async fn a_shutdown_ends_commands_too() {
        let pair = pair(sh("echo $$; sleep 1000")).await;
        let mut call = call(&pair).await;
        let group = group_of(&mut call).await;
        pair.registry.shutdown(Duration::ZERO).await;
        gone(group).await;
        assert_eq!(call.next().await, Err(CallError::Leaving { may_have_started: true }));
    }

    #[tokio::test]
    async fn a_deadline_ends_commands_too() {
        let pair = pair(sh("echo $$; sleep 1000")).await;
        let deadline = Some(Duration::from_millis(500));
        let mut call =
            pair.call("test:run", CallOptions { deadline, ..CallOptions::default() }).await;
        let group = group_of(&mut call).await;
        assert_eq!(call.next().await, Err(CallError::Deadline));
        gone(group).await;
    }

    #[tokio::test]
    async fn a_command_inherits_little_unless_it_is_to_have_more() {
        // Set by cargo for every test.
        let script = "echo ${CARGO_PKG_NAME-unset} ${PATH:+path}";
        assert_eq!(run(sh(script), "").await, Ok("unset path\n".into()));
        let all = run(sh(script).inherit_env(InheritEnv::All), "").await;
        assert_eq!(all, Ok("receptor-quic path\n".into()));
        let only = InheritEnv::Only(vec!["CARGO_PKG_NAME".into(), "NOT_SET_ANYWHERE".into()]);
        let named = Command::new("/bin/sh").args(["-c", script]).inherit_env(only);
        let named = String::from_utf8(run(named, "").await.unwrap().into()).unwrap();
        assert!(named.starts_with("receptor-quic"), "{named}");
        let nothing = Command::new("env").inherit_env(InheritEnv::Only(Vec::new()));
        let nothing = String::from_utf8(run(nothing, "").await.unwrap().into()).unwrap();
        assert!(nothing.lines().all(|line| line.starts_with("RECEPTOR_")), "{nothing}");
    }

    #[tokio::test]
    async fn a_command_runs_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let result = run(Command::new("pwd").dir(&path), "").await;
        assert_eq!(result, Ok(format!("{}\n", path.display()).into()));
        let Err(CallError::Failed { code, error, .. }) =
            run(Command::new("pwd").dir("/no/such"), "").await
        else {
            panic!("there is no such directory");
        };
        assert_eq!(code, Code::CommandNotStarted);
        assert!(error.contains("no working directory /no/such"), "{error}");
    }

    #[tokio::test]
    async fn a_command_runs_as_its_user_or_says_why_not() {
        let result =
            run(sh("id -u; id -g; id -G; echo ${HOME-none}").user(12_345, 12_346), "").await;
        if rustix::process::geteuid().is_root() {
            assert_eq!(result, Ok("12345\n12346\n12346\nnone\n".into()));
        } else {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("user 12345, group 12346"), "{error}");
        }
    }

    #[tokio::test]
    async fn stderr_is_streamed_where_that_is_asked_for() {
        let script = "echo out; echo err >&2";
        assert_eq!(run(sh(script), "").await, Ok("out\n".into()));
        let both = run(sh(script).stderr(CommandStderr::Stream), "").await.unwrap();
        assert!(both == "out\nerr\n" || both == "err\nout\n", "{both:?}");
        let much = sh("yes >&2").stderr(CommandStderr::Stream).max_output(100_000);
        assert!(matches!(
            run(much, "").await,
            Err(CallError::Failed { code: Code::CommandOutputTooLong, .. })
        ));
    }

    #[test]
    fn a_line_of_stderr_is_logged_whole_and_a_long_one_in_pieces() {
        let (caller, directive) = ("a".parse().unwrap(), "a:b".parse().unwrap());
        let logs = LogLimits::default();
        let mut log = LineLog::new(&caller, &directive, &logs);
        log.push(b"one\ntw");
        assert_eq!((log.lines, &log.line[..]), (1, &b"tw"[..]));
        log.push(b"o\n\n");
        assert_eq!((log.lines, log.line.len()), (3, 0));
        log.push(&[b'x'; MAX_LOGGED_LINE + 1]);
        assert_eq!((log.lines, log.line.len()), (4, 1));
        log.finish();
        assert_eq!(log.lines, 5);
    }

    #[tokio::test]
    async fn a_child_that_keeps_writing_does_not_keep_the_call() {
        for writes in ["while :; do echo tick; sleep 0.01; done", "yes"] {
            let script = format!("echo $$; ({writes}) &");
            let pair = pair(sh(&script).kill_grace(Duration::from_millis(50))).await;
            let mut call = call(&pair).await;
            let group = announced_group(&mut call).await;
            while call.next().await.unwrap().is_some() {}
            gone(group).await;
        }
    }

    #[tokio::test]
    async fn what_a_command_wrote_before_its_end_arrives_without_a_grace() {
        let command = sh("head -c 300000 /dev/zero").kill_grace(Duration::ZERO);
        assert_eq!(run(command, "").await.unwrap().len(), 300_000);
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed_when_it_is_done() {
        let pair = pair(sh("sleep 1000 & echo $$").kill_grace(Duration::from_millis(50))).await;
        let mut call = call(&pair).await;
        let group = group_of(&mut call).await;
        assert_eq!(call.collect(LIMIT).await, Ok(Bytes::new()));
        gone(group).await;
    }

    #[tokio::test]
    async fn input_that_was_cut_off_does_not_look_complete_to_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("complete");
        let script = "trap '' TERM; echo $$; cat >/dev/null; touch \"$MARKER\"";
        let command = sh(script).env("MARKER", &marker).kill_grace(Duration::from_millis(100));

        let pair = pair(command).await;
        let mut cut = call(&pair).await;
        let group = group_of(&mut cut).await;
        let (payload, mut responses) = cut.split();
        drop(payload);
        let error = responses.next().await.unwrap_err();
        assert!(error.to_string().contains("the payload was cut off"), "{error}");
        gone(group).await;
        assert!(!marker.exists());

        let mut cancelled = call(&pair).await;
        let group = group_of(&mut cancelled).await;
        drop(cancelled);
        gone(group).await;
        assert!(!marker.exists());

        call(&pair).await.collect(LIMIT).await.unwrap();
        assert!(marker.exists());
    }

    #[test]
    fn the_tail_of_a_text_begins_with_a_whole_character() {
        assert_eq!(tail("aäb", 2), "b");
        assert_eq!(tail("aäb", 3), "äb");
        assert_eq!(tail("ab", 9), "ab");
    }
}
