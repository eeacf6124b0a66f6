//! External commands as handlers: payload on stdin, stdout streamed back, exit status in the last response.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::time::sleep;

use super::code::Code;
use super::frame::{MAX_ERROR_TEXT, MAX_RESPONSE};
use super::handler::{HandlerError, Request};
use super::inflight::Inflight;
use super::payload::Payload;
use super::process::{Process, SharedStdin};
use super::responder::Responder;
use crate::mesh::StreamError;

/// How much of stderr is kept for the error text: what leaves room for the status before it.
const LAST_WORDS: usize = MAX_ERROR_TEXT - 128;

/// Below this room a fresh buffer is taken for stdout.
const MIN_READ: usize = 4 * 1024;

/// An external command that handles a directive, run anew for each call, without a shell.
///
/// The payload goes to its stdin, and its stdout comes back as it is written, in responses of at most 64 KiB. It need not
/// read its stdin. It gets the node's environment, what [`env`](Self::env) adds, and `RECEPTOR_CALLER`,
/// `RECEPTOR_CALL_ID` and `RECEPTOR_DIRECTIVE`; its working directory is the node's.
///
/// The call succeeds when the command exits with status 0, with or without output. Otherwise the caller gets the status or
/// the signal, and the last 4 KiB of stderr.
///
/// The command leads a process group of its own. When the call is over before the command is, the whole group gets SIGTERM,
/// and SIGKILL after the [grace](Self::kill_grace). What the command started and left behind is killed when it is done:
/// it has the grace to close the command's stdout, counted while it is silent.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
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

    /// Sets an environment variable, over the node's own.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Limits what the command may write to stdout, in bytes: no limit by default. A command that writes more is killed, and
    /// the call fails with [`Code::CommandOutputTooLong`].
    #[must_use]
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.max_output = Some(bytes);
        self
    }

    /// Sets how long the process group has between SIGTERM and SIGKILL: 2 s by default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace;
        self
    }

    pub(super) async fn run(
        self,
        request: Request,
        responder: Responder,
        inflight: Inflight,
    ) -> Result<(), HandlerError> {
        let mut command = self.to_process(&request);
        let (mut process, pipes) = Process::spawn(&mut command, self.kill_grace, inflight.enter())
            .map_err(|error| self.not_started(&error))?;
        let (exited, has_exited) = watch::channel(false);
        let feed = feed(request.payload, pipes.stdin);
        let output = self.stream_output(pipes.stdout, &responder, has_exited.clone());
        let words = self.last_words(pipes.stderr, has_exited);
        let exit = async {
            let status = process.wait().await?;
            exited.send_replace(true);
            Ok(status)
        };
        let ((), words, status) = {
            let done = pin!(async { tokio::try_join!(output, words, exit) });
            run_beside(feed, done).await?
        };
        process.finish();
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
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("RECEPTOR_CALLER", OsStr::new(request.caller.as_str()));
        command.env("RECEPTOR_CALL_ID", request.id.to_string());
        command.env("RECEPTOR_DIRECTIVE", OsStr::new(request.directive.as_str()));
        command
    }

    fn not_started(&self, error: &io::Error) -> HandlerError {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::CommandNotFound,
            _ => Code::CommandNotStarted,
        };
        tracing::debug!(program = ?self.program, %error, "the command was not started");
        HandlerError::with_code(code, format!("{code}: {}: {error}", self.program.display()))
    }

    /// Sends stdout as it comes.
    async fn stream_output(
        &self,
        mut stdout: ChildStdout,
        responder: &Responder,
        has_exited: watch::Receiver<bool>,
    ) -> Result<(), HandlerError> {
        let mut buffer = BytesMut::new();
        let mut written: u64 = 0;
        loop {
            if buffer.capacity() < MIN_READ {
                buffer.reserve(MAX_RESPONSE);
            }
            let mut room = (&mut buffer).limit(MAX_RESPONSE);
            let len = tokio::select! {
                biased;
                len = stdout.read_buf(&mut room) => len?,
                () = self.left_open(has_exited.clone()) => 0,
            };
            if len == 0 {
                return Ok(());
            }
            written += len as u64;
            if self.max_output.is_some_and(|max| written > max) {
                let code = Code::CommandOutputTooLong;
                return Err(HandlerError::with_code(code, code.to_string()));
            }
            responder.send(buffer.split().freeze()).await?;
        }
    }

    /// Reads stderr to its end, and keeps the last of it.
    async fn last_words(
        &self,
        mut stderr: ChildStderr,
        has_exited: watch::Receiver<bool>,
    ) -> Result<Vec<u8>, HandlerError> {
        let mut words = Vec::with_capacity(2 * LAST_WORDS);
        loop {
            let mut room = (&mut words).limit(LAST_WORDS);
            let len = tokio::select! {
                biased;
                len = stderr.read_buf(&mut room) => len?,
                () = self.left_open(has_exited.clone()) => 0,
            };
            if len == 0 {
                return Ok(words);
            }
            words.drain(..words.len().saturating_sub(LAST_WORDS));
        }
    }

    /// Waits until the command has exited and the grace has passed: whoever holds its pipes then will not close them.
    async fn left_open(&self, mut has_exited: watch::Receiver<bool>) {
        // An error means that the whole run is being dropped.
        let _ = has_exited.wait_for(|exited| *exited).await;
        sleep(self.kill_grace).await;
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

/// Waits for `done`, and feeds meanwhile. Feeding may end before, or never; its failure is the failure of all.
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

/// Copies the payload to stdin, and closes it at the end. A command that does not want all of it is right to do so.
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
        registry.command("test:run".parse().unwrap(), command).unwrap();
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
        let first = call.next().await.unwrap().unwrap();
        let text = std::str::from_utf8(&first.body).unwrap();
        let group = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        assert!(exists(group));
        group
    }

    /// Whether a process of the group runs. The dead that wait to be reaped by the system's first process do not count.
    fn exists(group: Pid) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else { return test_kill_process_group(group).is_ok() };
        let group = group.as_raw_nonzero().to_string();
        processes.flatten().any(|process| {
            // pid (name) state parent group …; a process that has ended meanwhile cannot be read.
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            matches!(fields[..], [state, _, of, ..] if of == group && !"ZX".contains(state))
        })
    }

    /// Waits until nothing of a group runs. No event tells of it.
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

        let Err(CallError::Failed { error, .. }) = run(sh("seq 10000 >&2; exit 1"), "").await else {
            panic!("exit 1 is a failure");
        };
        assert!(error.ends_with("\n9999\n10000") && error.len() <= MAX_ERROR_TEXT, "{}", error.len());
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_started_says_so() {
        let Err(CallError::Failed { code, error, .. }) = run(Command::new("/no/such/command"), "").await
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
        let Err(CallError::Failed { code, .. }) = run(Command::new("yes").max_output(100_000), "").await
        else {
            panic!("yes never ends");
        };
        assert_eq!(code, Code::CommandOutputTooLong);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_the_whole_process_group() {
        // The grace is longer than the wait: SIGTERM has to be enough.
        let pair = pair(sh("sleep 1000 & echo $$; wait").kill_grace(Duration::from_secs(1000))).await;
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
        let mut call = pair.call("test:run", CallOptions { deadline }).await;
        let group = group_of(&mut call).await;
        assert_eq!(call.next().await, Err(CallError::Deadline));
        gone(group).await;
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
