//! Units of work: jobs that outlive the processes that take part in them.
//!
//! A call lives as long as its stream. A **unit** is submitted to a node by name, also while that
//! node is unreachable; it starts at most once, and its status and output can be read, resumed,
//! cancelled and released until it is no longer kept.
//!
//! ```no_run
//! # async fn example(node: receptor_quic::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use receptor_quic::work::unit::ResultsOptions;
//!
//! let unit = node.submit("edge-17", "backup:run", "/srv").label("job", "17").await?;
//! let mut output = unit.results(ResultsOptions::default());
//! while let Some(piece) = output.next().await? {
//!     print!("{}", String::from_utf8_lossy(&piece));
//! }
//! println!("{}", unit.wait().await?);
//! # Ok(())
//! # }
//! ```
//!
//! Both nodes need [units](crate::NodeBuilder::units) and a data directory. The executor handles
//! the directive by a command or a function, as for a call:
//!
//! - A **command** runs under a supervisor, a small process of its own, and outlives the node. A
//!   node that restarts finds it again.
//! - A **function** ends with the node. A unit that was running is then [lost](Outcome::Lost),
//!   unless it was submitted as [idempotent](Submit::idempotent): then it runs again.
//!
//! # Between the nodes
//!
//! ```text
//! submitter   Queued ─▶ Handing ─▶ Accepted ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶ final ─▶ released
//!                          │ OFFER, payload ▲ ACCEPTED            ▲ STATUS
//!                          ▼                │                     │
//! executor             Receiving ─▶ Accepted ─▶ Starting ─▶ Running ─▶ final ─▶ tombstone
//! ```
//!
//! Before ACCEPTED the submitter's store is authoritative, afterwards the executor's. A final state
//! (an [`Outcome`]) is absorbing.
//!
//! **Machines without I/O** (`submitter`, `executor`) take an input and return a step: entries for
//! the unit's journal, and effects. The service appends the entries, syncs them to disk if anything
//! was promised by them, and performs the effects only then. After a crash a machine is rebuilt
//! from its journal. Whatever the point of the crash, the files on disk say at least as much as
//! anybody else was told.
//!
//! | synced | before | protects |
//! |---|---|---|
//! | payload, first entry, names at the submitter | the submission returns | the unit is not lost |
//! | first entry and names at the executor | HAVE | an offer is known when it is repeated |
//! | `Handing` at the submitter | the payload ends | no second store is offered the unit |
//! | payload and `Accepted` at the executor | STATUS accepted | the payload may be deleted |
//! | `run` and its names | the command is executed | at most one start |
//! | `Called` | the handler is called | at most one start |
//! | output, then `exit` | the supervisor ends | the outcome is not lost with the node's next run |
//! | wishes, and `Final` at either end | anybody hears of them | a final state never changes |
//!
//! **Starting at most once.** The executor journals that it starts a unit before it starts a
//! supervisor process, and the supervisor creates the attempt's `run` file exclusively before it
//! executes the command. Only the creator of that file runs anything. An executor that wants to
//! declare an attempt dead creates the file itself: if it succeeds, no supervisor can run the
//! command. A handler runs in the executor's own process, so its attempts have no such file: the
//! executor journals `Called` before it calls the handler.

mod api;
mod busy;
mod job;
mod kept_spec;
mod key;
mod limits;
mod machine;
mod outcome;
mod service;
mod spec;
mod store;
#[cfg(target_os = "linux")]
pub(super) mod supervisor;
mod unit_output;
pub(crate) mod wire;

pub use api::{
    FindError, QuarantinedUnit, ResultsError, ResultsOptions, Submit, SubmitError, UnitFilter,
    UnitHandle, UnitId, UnitLimits, UnitOutput, UnitPayload, UnitResults, UnitState, UnitStatus,
    UnitWatch, Units, UnitsConfig,
};
pub use busy::BusyReason;
pub(crate) use job::Job;
pub(crate) use key::UnitKey;
pub use outcome::{Failure, Outcome, UnitRefusal};
pub use service::UnitError;
pub(crate) use service::{Engine, OpenUnitsError, OpenedUnits, SharedRef};
pub use spec::InvalidSpec;
pub(crate) use spec::UnitSpec;
