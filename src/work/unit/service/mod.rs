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
mod drivers;
mod engine;
mod out_unit;
mod outgoing;
mod progress;
mod reading;
mod shared;
mod submitting;

pub(crate) use engine::{Engine, OpenUnitsError, OpenedUnits};
pub(crate) use out_unit::OutUnit;
pub(crate) use reading::Reading;
pub(crate) use shared::SharedRef;
pub use shared::UnitError;
