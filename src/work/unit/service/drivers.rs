//! What hands units over: one task for each executor.

use std::sync::Arc;

use super::super::submitter::Request;
use super::out_unit::OutUnit;
use super::shared::Shared;

/// What hands units over: one task for each executor with units that are not settled.
#[derive(Debug, Default)]
pub(super) struct Drivers {}

impl Drivers {
    /// Notes whether something is left to ask the unit's executor.
    pub(super) fn note(&self, _shared: &Arc<Shared>, _unit: &Arc<OutUnit>, _live: bool) {}

    /// Forgets a unit that is removed.
    pub(super) fn forget(&self, _unit: &Arc<OutUnit>) {}

    /// Has a request sent.
    pub(super) fn request(&self, _unit: &Arc<OutUnit>, _request: Request) {}
}
