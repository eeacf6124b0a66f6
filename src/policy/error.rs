//! Why a policy was not accepted.

use std::fmt;

/// Why a policy was not accepted: the author's fault. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyError {
    line: Option<usize>,
    text: String,
}

impl PolicyError {
    pub(crate) fn new(line: Option<usize>, text: impl fmt::Display) -> Self {
        Self { line, text: text.to_string() }
    }

    /// The line of the file, counted from 1; `None` if the policy was not read from one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong and what to do, without the line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for PolicyError {}
