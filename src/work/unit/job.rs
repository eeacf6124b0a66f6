//! The files by which the node and a supervisor communicate.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::work::unit::machine::executor::Exit;

/// What a supervisor is to execute: the content of the attempt's `job` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    /// All of the command's environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) dir: Option<PathBuf>,
    /// The uid and the gid.
    pub(crate) user: Option<(u32, u32)>,
    /// What each of stdout and stderr may hold, in bytes.
    pub(crate) output_limit: u64,
    /// How long the command may run, in milliseconds.
    pub(crate) run_for_ms: Option<u64>,
    /// The grace between SIGTERM and SIGKILL at the end of that time, in milliseconds.
    pub(crate) grace_ms: u64,
}

/// The content of the `exit` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) exit: Exit,
    pub(crate) stdout: Channel,
    pub(crate) stderr: Channel,
    pub(crate) usage: Usage,
}

/// One output of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// In bytes.
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
}

/// What the command and its descendants have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
    /// The largest resident set of any of them, in KiB.
    pub(crate) max_rss_kib: u64,
}
