//! The units that this node has submitted.

pub(super) mod claim;
pub(super) mod drivers;
pub(super) mod driving;
pub(super) mod feeding_out;
pub(super) mod handing;
pub(super) mod out_unit;
pub(super) mod outgoing;
pub(super) mod reading;
pub(super) mod session;
pub(super) mod submitting;
