//! One line on a terminal that shows how a unit gets on.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::table::progress;
use super::unit::UnitView;
use crate::cli::exit::Failure;
use crate::cli::flow::Sink;
use crate::sync::lock;

/// Moves to the start of the line and erases it.
const ERASE: &str = "\r\x1b[K";

/// The line, on standard error. Clones share it; the last one that is dropped erases it.
#[derive(Clone, Debug)]
pub(super) struct StateLine(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    on: bool,
    shown: bool,
}

impl StateLine {
    /// Shows the line if standard error is a terminal, unless `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        let on = !quiet && io::stderr().is_terminal();
        Self(Arc::new(Mutex::new(Line { on, shown: false })))
    }

    pub(super) fn update(&self, unit: &UnitView) {
        let mut line = self.line();
        if line.on {
            line.shown = true;
            say(&format!("{ERASE}{}", progress(unit)));
        }
    }

    /// An output on the same terminal. Its first piece ends the line.
    pub(super) fn beside<S: Sink>(&self, output: S) -> impl Sink {
        Beside { output, line: self.clone() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.0)
    }
}

impl Line {
    fn erase(&mut self) {
        if std::mem::take(&mut self.shown) {
            say(ERASE);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.erase();
    }
}

fn say(text: &str) {
    let mut terminal = io::stderr();
    // A terminal that is gone needs no progress.
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

/// An output on the terminal that shows the line.
struct Beside<S> {
    output: S,
    line: StateLine,
}

impl<S: Sink> Sink for Beside<S> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        {
            let mut line = self.line.line();
            line.erase();
            line.on = false;
        }
        self.output.put(body).await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.output.end().await
    }
}
