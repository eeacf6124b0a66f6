//! What programs see of units.

mod config;
mod filter;
mod handle;
mod id;
mod payload;
mod results;
mod status;
mod submit;
mod units;

pub use config::{UnitLimits, UnitsConfig};
pub use filter::UnitFilter;
pub use handle::{UnitHandle, UnitWatch};
pub use id::UnitId;
pub use payload::UnitPayload;
pub use results::{ResultsError, ResultsOptions, UnitOutput, UnitResults};
pub use status::{UnitState, UnitStatus};
pub use submit::{Submit, SubmitError};
pub use units::{FindError, QuarantinedUnit, Units};

pub(crate) use payload::Source as PayloadSource;
pub(crate) use submit::Submission;
