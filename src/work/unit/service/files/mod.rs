//! What happens to the files of units, as the system reports it.

#[cfg_attr(not(target_os = "linux"), path = "growth_unreported.rs")]
pub(super) mod growth;
pub(super) mod pulse;
pub(super) mod store_lock;
