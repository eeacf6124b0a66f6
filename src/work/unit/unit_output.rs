//! The two outputs of a unit.

/// Which output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnitOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}
