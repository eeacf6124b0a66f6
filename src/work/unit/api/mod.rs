//! What programs see of units.

mod config;
mod filter;
mod handle;
mod id;
mod payload;
mod results;
mod results_error;
mod results_options;
mod status;
mod submit;
mod units;

pub use super::unit_output::UnitOutput;
pub use config::{UnitLimits, UnitsConfig};
pub use filter::UnitFilter;
pub use handle::{UnitHandle, UnitWatch};
pub use id::UnitId;
pub use payload::UnitPayload;
pub use results::UnitResults;
pub use results_error::ResultsError;
pub use results_options::ResultsOptions;
pub use status::{UnitState, UnitStatus};
pub use submit::{Submit, SubmitError};
pub use units::{FindError, QuarantinedUnit, Units};

pub(crate) use payload::Source as PayloadSource;
pub(crate) use submit::Submission;
