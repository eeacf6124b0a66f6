//! Logging to standard error by a dedicated thread.
//!
//! ```text
//!   threads of the runtime ──▶ queue: 1 MiB, overflow is dropped ──▶ writer thread ──▶ standard error
//! ```
//!
//! A stopped terminal or a blocked log collector would otherwise block the node at its next line,
//! its signal handlers included. When the reader resumes, a line reports the number of lines
//! dropped.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Log lines that wait for the reader of standard error, in bytes: seconds of a busy node at
/// `debug`.
const MAX_QUEUE: usize = 1024 * 1024;
/// Maximum time that process exit waits for a reader of standard error.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// The queue to standard error, once logging has started.
static STDERR: OnceLock<Queue> = OnceLock::new();

use super::log_fields;
use crate::sync::lock;

/// Log format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::cli) enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?}: a log format is `text` or `json`")),
        }
    }
}

/// Filters by `RUST_LOG`; by default, events that affect users of a node.
pub(in crate::cli) fn init(format: LogFormat) {
    start(format, "info");
}

/// Filters by `RUST_LOG`; by default only fatal errors, because commands print everything else
/// themselves.
pub(in crate::cli) fn init_quiet() {
    start(LogFormat::Text, "off");
}

/// Queues a line for standard error behind the log lines. It is dropped if nothing reads them.
pub(in crate::cli) fn say(line: &str) {
    match STDERR.get() {
        Some(queue) => queue.push(format!("{line}\n").into_bytes()),
        // Standard error is the last resort: its failure cannot be reported.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Waits until everything is written, but not for a reader that does not read.
pub(in crate::cli) fn flush() {
    if let Some(queue) = STDERR.get() {
        queue.wait_empty(FLUSH_WAIT);
    }
}

fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let queue = STDERR.get_or_init(|| Queue::spawn(format, io::stderr())).clone();
    // The default hook writes to standard error itself, and would wait for its reader.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => say(&format!("receptor: {panic}\n{backtrace}")),
            _ => say(&format!("receptor: {panic}")),
        }
    }));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue)
        .with_ansi(ansi)
        // If standard error is gone, complaining about it there would panic.
        .log_internal_errors(false);
    // Somebody else's subscriber may be there already: then that one logs.
    let _ = match format {
        LogFormat::Text => builder.fmt_fields(log_fields::escaped()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Lines on their way to a writer that may block; clones share them.
#[derive(Clone)]
struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something was queued.
    queued: Condvar,
    /// Everything was written.
    written: Condvar,
    format: LogFormat,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were dropped, and not reported yet.
    dropped: u64,
    /// Whether the writer holds lines that are not written yet.
    writing: bool,
}

impl Queue {
    /// Starts the thread that writes. Without one, nothing is written: a process that cannot start
    /// a thread starts no node either.
    fn spawn(format: LogFormat, out: impl Write + Send + 'static) -> Self {
        let queue = Self::new(format);
        let writer = queue.clone();
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write(out));
        queue
    }

    fn new(format: LogFormat) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { state, queued: Condvar::new(), written: Condvar::new(), format }))
    }

    /// Queues a line, or drops it if the queue is full. Never waits for the writer.
    fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.bytes + line.len() > MAX_QUEUE {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.0.queued.notify_one();
    }

    /// Writes queued lines forever. Lines that cannot be written are lost.
    fn write(&self, mut out: impl Write) {
        loop {
            let (lines, dropped) = self.take();
            for line in lines {
                let _ = out.write_all(&line);
                self.lock().bytes -= line.len();
            }
            if dropped > 0 {
                let _ = out.write_all(self.summary(dropped).as_bytes());
            }
            let _ = out.flush();
        }
    }

    /// Waits for lines, and returns them with the number of lines dropped after them.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut state = self.lock();
        state.writing = false;
        while state.lines.is_empty() && state.dropped == 0 {
            self.0.written.notify_all();
            state = self.0.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped))
    }

    fn summary(&self, dropped: u64) -> String {
        let text = format!("{dropped} log lines dropped: standard error was not read in time");
        match self.0.format {
            LogFormat::Text => format!("receptor: {text}\n"),
            LogFormat::Json => {
                let fields = serde_json::json!({ "message": text, "dropped": dropped });
                format!(
                    "{}\n",
                    serde_json::json!({ "level": "WARN", "fields": fields, "target": "receptor" })
                )
            }
        }
    }

    fn wait_empty(&self, within: Duration) {
        let busy =
            |state: &mut State| state.writing || !state.lines.is_empty() || state.dropped > 0;
        drop(self.0.written.wait_timeout_while(self.lock(), within, busy));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, bytes: Vec::new() }
    }
}

/// One event, queued as a whole when it is dropped.
struct Line<'a> {
    queue: &'a Queue,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A reader that reads when it is asked to.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe(format: LogFormat) -> (Queue, Receiver<Vec<u8>>) {
        let (pipe, reader) = sync_channel(0);
        (Queue::spawn(format, Pipe(pipe)), reader)
    }

    fn read(reader: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(reader.recv_timeout(LIMIT).unwrap()).unwrap()
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_is_told_how_many() {
        let (queue, reader) = pipe(LogFormat::Text);
        let line = |n: usize| format!("{n:>99}\n");
        let room = MAX_QUEUE / 100;
        for n in 0..room + 50 {
            write!(queue.make_writer(), "{}", line(n)).unwrap();
        }
        for n in 0..room {
            assert_eq!(read(&reader), line(n));
        }
        assert_eq!(
            read(&reader),
            "receptor: 50 log lines dropped: standard error was not read in time\n"
        );
        write!(queue.make_writer(), "again").unwrap();
        assert_eq!(read(&reader), "again");
        queue.wait_empty(LIMIT);
        assert!(queue.lock().lines.is_empty());
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_stopped() {
        let (queue, reader) = pipe(LogFormat::Json);
        write!(queue.make_writer(), "never read").unwrap();
        queue.wait_empty(Duration::from_millis(1));
        drop(reader);
        queue.wait_empty(LIMIT);
    }

    #[test]
    fn a_dropped_line_is_reported_as_json_where_lines_are() {
        let summary = Queue::new(LogFormat::Json).summary(3);
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!((&summary["level"], &summary["fields"]["dropped"]), (&"WARN".into(), &3.into()));
    }
}
