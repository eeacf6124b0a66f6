//! How a node keeps and executes units.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::super::limits::TOMBSTONES;
use super::super::spec::UnitSpec;

/// How a node keeps units: those that it submits, and those that it executes for others.
///
/// Units need a directory: `units` in the node's [data directory](crate::NodeBuilder::data_dir), or
/// [one of their own](Self::dir()).
#[derive(Clone, Debug)]
pub struct UnitsConfig {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) execute: bool,
    pub(crate) supervisor: Option<PathBuf>,
    pub(crate) supervisor_args: Option<Vec<OsString>>,
    pub(crate) limits: UnitLimits,
}

/// The bounds of the units of one node. All are checked when a unit is offered or submitted; what
/// is beyond them waits at its submitter, or is refused with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitLimits {
    /// Maximum number of units that are kept for others, those that have ended included. 100,000 by
    /// default.
    pub max_units: usize,
    /// Maximum number of units that are kept for one submitter. 50,000 by default.
    pub max_units_per_submitter: usize,
    /// Maximum number of units that this node keeps of those that it has submitted. 100,000 by
    /// default.
    pub max_submitted: usize,
    /// Maximum number of units of one directive that run at a time. 64 by default.
    pub max_running: usize,
    /// Maximum size of a payload, in bytes. 16 GiB by default.
    pub max_payload: u64,
    /// Maximum size of each of a unit's stdout and stderr, in bytes. 1 GiB by default. A command
    /// that writes more is killed.
    pub max_output: u64,
    /// As [`max_bytes`](Self::max_bytes), for the units of one submitter. 64 GiB by default.
    pub max_bytes_per_submitter: u64,
    /// Maximum number of bytes that are kept for others: no unit is accepted whose payload would
    /// exceed this, beside the payloads of units that have not ended and the outputs of those that
    /// have. What running units write is bounded by [`max_output`](Self::max_output) alone. 256 GiB
    /// by default.
    pub max_bytes: u64,
    /// Maximum run time. `None`, the default, if only the unit's own limit holds.
    pub max_run_for: Option<Duration>,
    /// Maximum time for which a unit is kept after its end. 30 days by default.
    pub max_keep_for: Duration,
    /// The part of the file system that is kept free, in percent: no unit is accepted below it. 5
    /// by default, at most 100.
    pub reserve_percent: u8,
    /// Maximum number of ids of released, cancelled and kept units that an executor remembers, each
    /// until a day after the unit could last have started, so that no late offer runs it again.
    /// 262,144 by default, which is three units a second over a day; at most 2,097,152. Each takes
    /// about 60 bytes of memory and up to 170 bytes on disk.
    pub max_released_ids: usize,
}

impl Default for UnitLimits {
    fn default() -> Self {
        Self {
            max_units: 100_000,
            max_units_per_submitter: 50_000,
            max_submitted: 100_000,
            max_running: 64,
            max_payload: 16 << 30,
            max_output: 1 << 30,
            max_bytes_per_submitter: 64 << 30,
            max_bytes: 256 << 30,
            max_run_for: None,
            max_keep_for: UnitSpec::MAX_LIFE,
            reserve_percent: 5,
            max_released_ids: TOMBSTONES,
        }
    }
}

impl Default for UnitsConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl UnitsConfig {
    /// Keeps units in the node's data directory, and executes those that others submit.
    #[must_use]
    pub fn new() -> Self {
        Self {
            dir: None,
            execute: true,
            supervisor: None,
            supervisor_args: None,
            limits: UnitLimits::default(),
        }
    }

    /// Keeps units in this directory, which is made if it does not exist. It must be on a local
    /// file system, and no other node may use it.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Whether the node executes units that are submitted to it. On by default. Units that it has
    /// accepted before are finished in any case.
    #[must_use]
    pub fn execute(mut self, execute: bool) -> Self {
        self.execute = execute;
        self
    }

    /// The program that supervises commands: one that calls
    /// [`work::supervise`](crate::work::supervise()) first thing in `main`. By default it is this
    /// program itself, which must then do so; the binary `receptor` does.
    #[must_use]
    pub fn supervisor(mut self, program: impl Into<PathBuf>) -> Self {
        self.supervisor = Some(program.into());
        self
    }

    /// The arguments of the supervisor, for programs that parse theirs before they call
    /// [`work::supervise`](crate::work::supervise()).
    #[doc(hidden)]
    #[must_use]
    pub fn supervisor_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.supervisor_args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// The bounds of what is kept and executed.
    #[must_use]
    pub fn limits(mut self, limits: UnitLimits) -> Self {
        self.limits = limits;
        self
    }
}
