//! Output of the demo.

use std::io::Write as _;

use crate::cli::output::text::{Colour, Paint};
use crate::cli::process::exit::Failure;

/// Prints the steps of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) paint: Paint,
}

impl Screen {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint }
    }

    /// Prints a completed step.
    pub(super) fn step(&self, name: &str, what: &str) -> Result<(), Failure> {
        self.print(&format!("{} {what}\n", self.paint.paint(Colour::Green, &format!("{name:<11}"))))
    }

    /// Prints a detail of the previous step.
    pub(super) fn detail(&self, what: &str) -> Result<(), Failure> {
        self.print(&format!("            {what}\n"))
    }

    pub(super) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Failure::output(&error))
    }
}
