//! Whether and how a node keeps units: `--units`, and the table `[units]`.

use std::path::PathBuf;

use super::file::units::UnitsSetting;
use super::settings::{DATA_DIR, Sourced, bytes, duration};
use crate::cli::process::exit::Failure;
use crate::work::unit::{UnitLimits, UnitsConfig};

/// The checked settings of units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct UnitSettings {
    execute: bool,
    dir: Option<PathBuf>,
    supervisor: Option<PathBuf>,
    limits: UnitLimits,
}

impl UnitSettings {
    /// Brings the switch and the table together. `None` if the node keeps no units: neither is
    /// there, or the switch is off.
    ///
    /// # Errors
    /// A value is out of its bounds, or there is no directory for them.
    pub(in crate::cli) fn resolve(
        switch: Option<bool>,
        table: Option<UnitsSetting>,
        has_data_dir: bool,
    ) -> Result<Option<Self>, Failure> {
        if !switch.unwrap_or_else(|| table.is_some()) {
            return Ok(None);
        }
        let table = table.unwrap_or_default();
        if !has_data_dir && table.dir.is_none() {
            return Err(DATA_DIR.missing("units are kept in the data directory, which"));
        }
        let default = UnitLimits::default();
        let limits = UnitLimits {
            max_units: count(table.max_units)?.unwrap_or(default.max_units),
            max_units_per_submitter: count(table.max_units_per_submitter)?
                .unwrap_or(default.max_units_per_submitter),
            max_submitted: count(table.max_submitted)?.unwrap_or(default.max_submitted),
            max_running: count(table.max_running)?.unwrap_or(default.max_running),
            max_payload: size(table.max_payload)?.unwrap_or(default.max_payload),
            max_output: size(table.max_output)?.unwrap_or(default.max_output),
            max_bytes_per_submitter: size(table.max_bytes_per_submitter)?
                .unwrap_or(default.max_bytes_per_submitter),
            max_bytes: size(table.max_bytes)?.unwrap_or(default.max_bytes),
            max_run_for: time(table.max_run_for)?.or(default.max_run_for),
            max_keep_for: time(table.max_keep_for)?.unwrap_or(default.max_keep_for),
            reserve_percent: percent(table.reserve_percent)?.unwrap_or(default.reserve_percent),
            max_released_ids: count(table.max_released_ids)?.unwrap_or(default.max_released_ids),
        };
        Ok(Some(Self {
            execute: table.execute.is_none_or(|on| on.value),
            dir: table.dir.map(|dir| dir.value),
            supervisor: table.supervisor.map(|program| program.value),
            limits,
        }))
    }

    /// As the builder of a node takes them.
    pub(in crate::cli) fn config(&self) -> UnitsConfig {
        let mut config = UnitsConfig::new().execute(self.execute).limits(self.limits.clone());
        if let Some(dir) = &self.dir {
            config = config.dir(dir);
        }
        match &self.supervisor {
            Some(program) => config.supervisor(program),
            None => config,
        }
    }
}

fn checked<T>(
    value: Option<Sourced<String>>,
    check: impl FnOnce(&str) -> Option<T>,
    wanted: &str,
) -> Result<Option<T>, Failure> {
    let check = |text: String| check(&text).ok_or_else(|| format!("{text:?}: {wanted}"));
    value.map(|value| value.and_then(check)).transpose()
}

fn count(value: Option<Sourced<String>>) -> Result<Option<usize>, Failure> {
    checked(value, |text| text.parse().ok().filter(|n| *n > 0), "a whole number from 1")
}

fn size(value: Option<Sourced<String>>) -> Result<Option<u64>, Failure> {
    let wanted = "a number of bytes, from 1, such as 500k or 10M";
    checked(value, |text| bytes(text).map(|size| size.get()), wanted)
}

fn time(value: Option<Sourced<String>>) -> Result<Option<std::time::Duration>, Failure> {
    let positive = |text: &str| duration(text).ok().filter(|time| !time.is_zero());
    checked(value, positive, "a duration longer than 0, such as 90s, 2h or 7d")
}

fn percent(value: Option<Sourced<String>>) -> Result<Option<u8>, Failure> {
    checked(value, |text| text.parse().ok().filter(|n| *n <= 100), "a percentage from 0 to 100")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::setup::settings::Source;

    fn setting(text: &str) -> Option<Sourced<String>> {
        Some(Sourced::new(text.to_owned(), Source::File { path: "r.toml".into(), line: 7 }))
    }

    fn resolve(table: UnitsSetting) -> Result<Option<UnitSettings>, Failure> {
        UnitSettings::resolve(None, Some(table), true)
    }

    #[test]
    fn the_table_or_the_switch_turns_units_on() {
        let on = |switch, table: bool| {
            let table = table.then(UnitsSetting::default);
            UnitSettings::resolve(switch, table, true).unwrap().is_some()
        };
        assert_eq!(
            [on(None, false), on(Some(true), false), on(None, true), on(Some(false), true)],
            [false, true, true, false]
        );
    }

    #[test]
    fn limits_are_read_with_their_units() {
        let table = UnitsSetting {
            max_running: setting("4"),
            max_payload: setting("500M"),
            max_run_for: setting("2h"),
            reserve_percent: setting("10"),
            ..UnitsSetting::default()
        };
        let limits = resolve(table).unwrap().unwrap().limits;
        assert_eq!((limits.max_running, limits.max_payload), (4, 500_000_000));
        assert_eq!(limits.max_run_for, Some(std::time::Duration::from_secs(7_200)));
        assert_eq!(limits.reserve_percent, 10);
        assert_eq!(limits.max_units, UnitLimits::default().max_units);
    }

    #[test]
    fn what_is_out_of_bounds_is_rejected_with_its_line() {
        let bad = [
            UnitsSetting { max_running: setting("0"), ..UnitsSetting::default() },
            UnitsSetting { max_bytes: setting("lots"), ..UnitsSetting::default() },
            UnitsSetting { max_keep_for: setting("0"), ..UnitsSetting::default() },
            UnitsSetting { reserve_percent: setting("101"), ..UnitsSetting::default() },
        ];
        for table in bad {
            let text = resolve(table).unwrap_err().text;
            assert!(text.starts_with("r.toml, line 7: "), "{text}");
        }
    }

    #[test]
    fn units_need_a_directory() {
        let error = UnitSettings::resolve(Some(true), None, false).unwrap_err().text;
        assert!(error.contains("--data-dir"), "{error}");
        let source = Source::File { path: "r.toml".into(), line: 7 };
        let dir = Some(Sourced::new("/srv/units".into(), source));
        let own = UnitsSetting { dir, ..UnitsSetting::default() };
        assert!(UnitSettings::resolve(None, Some(own), false).is_ok());
    }
}
