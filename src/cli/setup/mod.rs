//! From flags, environment and file to checked settings.

pub(super) mod config;
pub(super) mod env;
pub(super) mod file;
pub(super) mod identity;
pub(super) mod settings;
pub(super) mod units;
