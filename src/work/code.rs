//! The codes with which calls end. They go over the wire: never renumber.

use std::fmt;

/// How a call ended, as the executor says it in the last response.
///
/// The set is closed: handlers fail with [`Failed`](Self::Failed) and say the rest in the error
/// text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Code {
    /// The handler did its work.
    Success,
    /// The handler returned an error.
    Failed,
    /// The directive has no handler on that node.
    UnknownDirective,
    /// The handler panicked.
    Panicked,
    /// The node runs as many calls as it may. Nothing was started; try again later.
    Overloaded,
    /// The caller runs as many calls on the node as it may beside those of others. Nothing was
    /// started; try again when some of them have ended.
    CallerLimit,
    /// The node does not allow the call, or no longer does.
    NotAllowed,
    /// The call was cancelled.
    Cancelled,
    /// The call's deadline passed.
    Deadline,
    /// The node leaves: it takes no new calls, or did not want to wait longer for this one.
    Leaving,
    /// The call is of a version that the executor does not speak. Nothing was started.
    BadCall,
    /// The command does not exist on the executor. Nothing was started.
    CommandNotFound,
    /// The command could not be started for another reason. Nothing was started.
    CommandNotStarted,
    /// The command wrote more than it may. It was killed; what was sent before stands.
    CommandOutputTooLong,
    /// The command exited with this status, which is not 0.
    CommandFailed(u8),
    /// The command was killed by this signal.
    CommandKilled(u8),
    /// A code that this version does not know. It is a failure.
    Unknown(u32),
}

/// `CommandFailed(status)` is this plus the status.
const COMMAND_FAILED: u32 = 0x100;
/// `CommandKilled(signal)` is this plus the signal.
const COMMAND_KILLED: u32 = 0x200;

impl Code {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::UnknownDirective => 2,
            Self::Panicked => 3,
            Self::Overloaded => 4,
            Self::Cancelled => 5,
            Self::Deadline => 6,
            Self::Leaving => 7,
            Self::BadCall => 8,
            Self::CommandNotFound => 0x10,
            Self::CommandNotStarted => 0x11,
            Self::CommandOutputTooLong => 0x13,
            Self::CallerLimit => 0x38,
            Self::NotAllowed => 0x48,
            Self::CommandFailed(status) => COMMAND_FAILED + status as u32,
            Self::CommandKilled(signal) => COMMAND_KILLED + signal as u32,
            Self::Unknown(number) => number,
        }
    }

    /// The code of a number from the wire.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Success,
            1 => Self::Failed,
            2 => Self::UnknownDirective,
            3 => Self::Panicked,
            4 => Self::Overloaded,
            5 => Self::Cancelled,
            6 => Self::Deadline,
            7 => Self::Leaving,
            8 => Self::BadCall,
            0x10 => Self::CommandNotFound,
            0x11 => Self::CommandNotStarted,
            0x13 => Self::CommandOutputTooLong,
            0x38 => Self::CallerLimit,
            0x48 => Self::NotAllowed,
            0x101..=0x1ff => Self::CommandFailed((number - COMMAND_FAILED) as u8),
            0x201..=0x2ff => Self::CommandKilled((number - COMMAND_KILLED) as u8),
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Failed => f.write_str("the handler failed"),
            Self::UnknownDirective => f.write_str("unknown directive"),
            Self::Panicked => f.write_str("the handler panicked"),
            Self::Overloaded => f.write_str("too many calls are running"),
            Self::CallerLimit => f.write_str("too many calls of this caller are running"),
            Self::NotAllowed => f.write_str("not allowed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Deadline => f.write_str("the deadline passed"),
            Self::Leaving => f.write_str("the node is leaving"),
            Self::BadCall => f.write_str("the call is of an unknown version"),
            Self::CommandNotFound => f.write_str("the command was not found"),
            Self::CommandNotStarted => f.write_str("the command could not be started"),
            Self::CommandOutputTooLong => f.write_str("the command wrote too much"),
            Self::CommandFailed(status) => write!(f, "the command exited with status {status}"),
            Self::CommandKilled(signal) => write!(f, "the command was killed by signal {signal}"),
            Self::Unknown(number) => write!(f, "unknown code {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_code_and_comes_back_as_itself() {
        for number in (0..0x400).chain([u32::MAX]) {
            assert_eq!(Code::from_number(number).number(), number);
        }
    }

    #[test]
    fn the_table_on_the_protocol_page_is_whole() {
        let (_, page) = include_str!("../../docs/protocol.md").split_once("## 10. Calls").unwrap();
        for number in 0..0x100 {
            let code = Code::from_number(number);
            let row = match number {
                0..0x10 => format!("| {number} | {code} |"),
                _ => format!("| `{number:#04x}` | {code} |"),
            };
            assert!(code == Code::Unknown(number) || page.contains(&row), "not on the page: {row}");
        }
    }

    #[test]
    fn a_status_of_0_is_not_a_failure_of_a_command() {
        assert_eq!(Code::from_number(0x100), Code::Unknown(0x100));
        assert_eq!(Code::from_number(0x103), Code::CommandFailed(3));
        assert_eq!(Code::from_number(0x209), Code::CommandKilled(9));
    }
}
