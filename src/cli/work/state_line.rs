//! One line on a terminal that shows how a unit gets on.

use std::io::{self, IsTerminal as _, Write as _};

use super::table::progress;
use super::unit::UnitView;

/// Moves to the start of the line and erases it.
const ERASE: &str = "\r\x1b[K";

/// The line, on standard error. Dropped, it is erased.
#[derive(Debug)]
pub(super) struct StateLine {
    on: bool,
    shown: bool,
}

impl StateLine {
    /// Shows the line if standard error is a terminal, unless `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self { on: !quiet && io::stderr().is_terminal(), shown: false }
    }

    pub(super) fn update(&mut self, unit: &UnitView) {
        if self.on {
            self.shown = true;
            say(&format!("{ERASE}{}", progress(unit)));
        }
    }
}

impl Drop for StateLine {
    fn drop(&mut self) {
        if self.shown {
            say(ERASE);
        }
    }
}

fn say(text: &str) {
    let mut terminal = io::stderr();
    // A terminal that is gone needs no progress.
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}
