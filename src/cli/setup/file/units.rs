//! The table `[units]`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::value::{DurationValue, Location, RateValue};
use crate::cli::setup::settings::Sourced;

/// The table `[units]`, which turns units on. Every value knows its line.
#[derive(Debug, Default)]
pub(in crate::cli) struct UnitsSetting {
    pub(in crate::cli) execute: Option<Sourced<bool>>,
    pub(in crate::cli) dir: Option<Sourced<PathBuf>>,
    pub(in crate::cli) supervisor: Option<Sourced<PathBuf>>,
    pub(in crate::cli) max_running: Option<Sourced<String>>,
    pub(in crate::cli) max_units: Option<Sourced<String>>,
    pub(in crate::cli) max_units_per_submitter: Option<Sourced<String>>,
    pub(in crate::cli) max_submitted: Option<Sourced<String>>,
    pub(in crate::cli) max_payload: Option<Sourced<String>>,
    pub(in crate::cli) max_output: Option<Sourced<String>>,
    pub(in crate::cli) max_bytes: Option<Sourced<String>>,
    pub(in crate::cli) max_bytes_per_submitter: Option<Sourced<String>>,
    pub(in crate::cli) max_run_for: Option<Sourced<String>>,
    pub(in crate::cli) max_keep_for: Option<Sourced<String>>,
    pub(in crate::cli) reserve_percent: Option<Sourced<String>>,
    pub(in crate::cli) max_released_ids: Option<Sourced<String>>,
}

/// The table as TOML sees it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawUnits {
    execute: Option<Spanned<bool>>,
    dir: Option<Spanned<PathBuf>>,
    supervisor: Option<Spanned<PathBuf>>,
    max_running: Option<Spanned<i64>>,
    max_units: Option<Spanned<i64>>,
    max_units_per_submitter: Option<Spanned<i64>>,
    max_submitted: Option<Spanned<i64>>,
    max_payload: Option<Spanned<RateValue>>,
    max_output: Option<Spanned<RateValue>>,
    max_bytes: Option<Spanned<RateValue>>,
    max_bytes_per_submitter: Option<Spanned<RateValue>>,
    max_run_for: Option<Spanned<DurationValue>>,
    max_keep_for: Option<Spanned<DurationValue>>,
    reserve_percent: Option<Spanned<i64>>,
    max_released_ids: Option<Spanned<i64>>,
}

impl RawUnits {
    /// Relative paths start at `base`.
    pub(super) fn locate(self, at: &Location<'_>, base: &Path) -> UnitsSetting {
        let number = |value: Option<Spanned<i64>>| {
            value.map(|value| at.sourced_as(value, |n| n.to_string()))
        };
        let bytes = |value: Option<Spanned<RateValue>>| {
            value.map(|value| at.sourced_as(value, |n| n.to_string()))
        };
        let time = |value: Option<Spanned<DurationValue>>| {
            value.map(|value| at.sourced_as(value, |time| time.to_string()))
        };
        UnitsSetting {
            execute: self.execute.map(|on| at.sourced(on)),
            dir: self.dir.map(|dir| at.path(dir, base)),
            supervisor: self.supervisor.map(|program| at.path(program, base)),
            max_running: number(self.max_running),
            max_units: number(self.max_units),
            max_units_per_submitter: number(self.max_units_per_submitter),
            max_submitted: number(self.max_submitted),
            max_payload: bytes(self.max_payload),
            max_output: bytes(self.max_output),
            max_bytes: bytes(self.max_bytes),
            max_bytes_per_submitter: bytes(self.max_bytes_per_submitter),
            max_run_for: time(self.max_run_for),
            max_keep_for: time(self.max_keep_for),
            reserve_percent: number(self.reserve_percent),
            max_released_ids: number(self.max_released_ids),
        }
    }
}
