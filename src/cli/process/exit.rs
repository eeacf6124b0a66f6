//! Exit statuses and final messages of commands.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::cli::output::text::escape_lines;

/// The meaning of each exit status, as printed by `receptor --help`. docs/cli.md has the same
/// table.
pub(in crate::cli) const EXIT_STATUS: &str = "\
Exit status:
  0  success; for `send`, the work succeeded, with or without output
  1  the work failed
  2  usage or configuration error
  3  no route, unreachable, connection lost, or not converged in time
  4  refused: not trusted or not allowed
  5  the node yielded its id to another live process with the same id
  6  busy: nothing was started, try again later";

/// The exit status of a failed command. The control socket sends it by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Exit {
    /// The work failed.
    Failed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// No route, unreachable, lost, or not converged in time.
    Unreachable = 3,
    /// Refused: not trusted or not allowed.
    Refused = 4,
    /// The node yielded its id to another live process.
    Yielded = 5,
    /// A limit on concurrent work was reached; nothing was started.
    Busy = 6,
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Failure {
    /// The exit status.
    pub(in crate::cli) exit: Exit,
    /// The message for the user; empty if standard output is closed.
    pub(in crate::cli) text: String,
}

impl Failure {
    pub(in crate::cli) fn failed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: text.to_string() }
    }

    pub(in crate::cli) fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    pub(in crate::cli) fn unreachable(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, text: text.to_string() }
    }

    pub(in crate::cli) fn refused(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Refused, text: text.to_string() }
    }

    pub(in crate::cli) fn yielded(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Yielded, text: text.to_string() }
    }

    pub(in crate::cli) fn busy(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Busy, text: text.to_string() }
    }

    /// A write to standard output failed. A closed pipe is not reported.
    pub(in crate::cli) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Failed, text: String::new() },
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// Whether standard output is closed: the command ends silently.
    pub(in crate::cli) fn is_quiet(&self) -> bool {
        self.text.is_empty()
    }

    /// Says why on standard error, and makes the exit status of it. The quiet failure is a success:
    /// the reader had enough.
    pub(in crate::cli) fn report(&self) -> ExitCode {
        if self.is_quiet() {
            return ExitCode::SUCCESS;
        }
        complain(&self.text);
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Prints the error to standard error. The text may come from the network: control characters are
/// escaped, and further lines are marked as such.
pub(in crate::cli) fn complain(text: &str) {
    super::log::say(&format!("receptor: {}", escape_lines(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_exit_status() {
        let all = [
            Exit::Failed,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Refused,
            Exit::Yielded,
            Exit::Busy,
        ];
        for exit in all {
            assert!(EXIT_STATUS.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
        assert_eq!(EXIT_STATUS.lines().count(), 2 + all.len());
        let page = include_str!("../../../docs/cli.md");
        for row in EXIT_STATUS.lines().skip(1) {
            let (status, meaning) = row.trim().split_once("  ").unwrap();
            assert!(page.contains(&format!("\n| {status} | {meaning} |")), "{row}");
        }
    }

    #[test]
    fn a_reader_that_went_away_ends_the_command_without_a_word() {
        let failure = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert!(failure.is_quiet());
        assert!(!Failure::output(&io::ErrorKind::StorageFull.into()).is_quiet());
    }
}
