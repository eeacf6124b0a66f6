//! A terminal line that shows the state of a unit.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::table::progress;
use crate::cli::output::flow::Sink;
use crate::cli::output::progress::{ERASE, say};
use crate::cli::process::exit::Failure;
use crate::cli::work::unit::UnitView;
use crate::sync::lock;

/// The line, on standard error. Clones share it; the last one that is dropped erases it.
#[derive(Clone, Debug)]
pub(in crate::cli::work) struct StateLine(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    on: bool,
    shown: bool,
}

impl StateLine {
    /// Shows the line if standard error is a terminal, unless `quiet`.
    pub(in crate::cli::work) fn new(quiet: bool) -> Self {
        let on = !quiet && io::stderr().is_terminal();
        Self(Arc::new(Mutex::new(Line { on, shown: false })))
    }

    pub(in crate::cli::work) fn update(&self, unit: &UnitView) {
        let mut line = self.line();
        if line.on {
            line.shown = true;
            say(&format!("{ERASE}{}", progress(unit)));
        }
    }

    /// An output. If it goes to a terminal, its first piece ends the line.
    pub(in crate::cli::work) fn beside<S: Sink>(&self, output: S, on_terminal: bool) -> impl Sink {
        Beside { output, line: on_terminal.then(|| self.clone()) }
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

/// An output, and the line if it goes to a terminal.
struct Beside<S> {
    output: S,
    line: Option<StateLine>,
}

impl<S: Sink> Sink for Beside<S> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        if let Some(line) = &self.line {
            let mut line = line.line();
            line.erase();
            line.on = false;
        }
        self.output.put(body).await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.output.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Discard;

    impl Sink for Discard {
        async fn put(&mut self, _: Bytes) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn output_ends_the_line_only_on_a_terminal() {
        let line = StateLine(Arc::new(Mutex::new(Line { on: true, shown: false })));
        let piece = Bytes::from_static(b"output");
        line.beside(Discard, false).put(piece.clone()).await.unwrap();
        assert!(line.line().on);
        line.beside(Discard, true).put(piece).await.unwrap();
        assert!(!line.line().on);
    }
}
