//! Systems that do not report changes of files as Linux does: they are polled.

use std::path::Path;
use std::sync::Arc;

use super::pulse::Pulse;
use crate::work::unit::service::tasks::Tasks;

/// Reports nothing.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Growth;

/// A directory whose changes are reported.
#[derive(Debug)]
pub(in crate::work::unit::service) struct DirWatch;

impl Growth {
    /// Has the files of a directory polled.
    pub(in crate::work::unit::service) fn watch(
        &self,
        _: &Tasks,
        _: &Path,
        pulse: &Arc<Pulse>,
    ) -> Option<DirWatch> {
        pulse.set_blind();
        None
    }
}
