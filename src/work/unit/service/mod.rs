//! The service of units: the stores of both ends, the streams between them, and the supervisors.
//!
//! ```text
//!  api ──▶ Shared ─┬─ Outgoing ── OutUnit: machine, journal, published status
//!                  │      ▲ answers            │ requests
//!                  │      └──── Drivers: one per executor ◀──▶ streams to the service `unit`
//!                  └─ Incoming ── InUnit: machine, journal, published status
//!                         ▲ requests           │ attempts
//!                     Serving ◀──▶ streams     └──▶ supervisors: pidfd, inotify
//! ```
//!
//! Each unit is behind a lock of its own. An input is fed to its machine, the entries are synced on
//! a blocking thread, and the effects follow there: what has begun is finished even if nobody waits
//! for it. Units do not wait for each other, so that the file system commits many of them together.

mod clock;
mod deadlines;
mod engine;
mod error;
mod executor;
#[cfg(all(test, feature = "testing"))]
mod fault_tests;
mod files;
mod found_units;
#[cfg(all(test, feature = "testing"))]
mod hostile_tests;
mod progress;
mod shared;
mod streams;
mod submitter;
mod sweeping;
mod tasks;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod unit_table;

use std::time::Duration;

pub(crate) use crate::work::unit::service::submitter::out_unit::OutUnit;
pub(crate) use crate::work::unit::service::submitter::reading::Reading;
pub(crate) use engine::{Engine, OpenUnitsError, OpenedUnits};
pub use error::UnitError;
pub(crate) use shared::SharedRef;

/// How long to wait before a failed write is repeated.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// The same in milliseconds.
const DISK_RETRY_MS: u64 = 1_000;
