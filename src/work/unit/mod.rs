//! Units of work: jobs that outlive the processes that take part in them. The state machines of
//! both ends.
//!
//! A call lives as long as its stream. A **unit** is submitted to a node by name, also while that
//! node is unreachable; it starts at most once, and its status and output can be read, resumed,
//! cancelled and released until it expires.
//!
//! ```text
//! submitter   Queued ─▶ Handing ─▶ Accepted ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶ final ─▶ released
//!                          │ OFFER, payload ▲ ACCEPTED            ▲ STATUS
//!                          ▼                │                     │
//! executor             Receiving ─▶ Accepted ─▶ Starting ─▶ Running ─▶ final ─▶ tombstone
//! ```
//!
//! Before ACCEPTED the submitter's store is authoritative, afterwards the executor's. A final state
//! ([`Outcome`](outcome::Outcome)) is absorbing.
//!
//! **Machines without I/O.** [`SubmitterUnit`](submitter::SubmitterUnit) and
//! [`ExecutorUnit`](executor::ExecutorUnit) take an input and return a [`Step`](entry::Step):
//! entries for the unit's journal, and effects. The caller appends the entries, syncs them to disk,
//! and performs the effects only then. After a crash [`replay`](executor::ExecutorUnit::replay)
//! rebuilds a machine from its journal. Whatever the point of the crash, the entries on disk say at
//! least as much as anybody else was told.
//!
//! **Starting at most once.** The executor journals `Starting` before it starts a supervisor
//! process, and the supervisor creates the attempt's `run` file exclusively before it executes the
//! command. Only the creator of that file runs anything. An executor that wants to declare an
//! attempt dead creates the file itself ([`Fence`](executor::ExecutorEffect::Fence)): if it
//! succeeds, no supervisor can run the command.

mod api;
mod entry;
mod executor;
mod job;
mod key;
mod limits;
mod outcome;
mod queue;
mod service;
mod spec;
mod store;
mod submitter;
#[cfg(target_os = "linux")]
pub(super) mod supervisor;
#[cfg(test)]
mod tests;
mod tombstones;
mod wire;
#[cfg(test)]
mod world;

pub use api::{
    FindError, QuarantinedUnit, ResultsError, ResultsOptions, Submit, SubmitError, UnitFilter, UnitHandle,
    UnitId, UnitLimits, UnitOutput, UnitPayload, UnitResults, UnitState, UnitStatus, UnitWatch, Units,
    UnitsConfig,
};
pub(crate) use job::Job;
pub(crate) use key::UnitKey;
pub use outcome::{Failure, Outcome, UnitRefusal};
pub use service::UnitError;
pub(crate) use service::{Engine, OpenUnitsError, OpenedUnits, SharedRef};
pub use spec::InvalidSpec;
pub(crate) use spec::UnitSpec;
