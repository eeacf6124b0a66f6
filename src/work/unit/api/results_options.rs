//! What is read of a unit's output.

use super::super::unit_output::UnitOutput;

/// What is read of a unit's output: all of stdout as it is written, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultsOptions {
    /// Which output.
    pub output: UnitOutput,
    /// The first byte.
    pub from: u64,
    /// Whether to wait for more until the unit has ended.
    pub follow: bool,
}

impl Default for ResultsOptions {
    fn default() -> Self {
        Self { output: UnitOutput::Stdout, from: 0, follow: true }
    }
}

impl ResultsOptions {
    /// Reads stderr instead of stdout.
    #[must_use]
    pub fn stderr(mut self) -> Self {
        self.output = UnitOutput::Stderr;
        self
    }

    /// Begins at this byte.
    #[must_use]
    pub fn from(mut self, offset: u64) -> Self {
        self.from = offset;
        self
    }

    /// Whether to wait for more until the unit has ended.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }
}
