//! The environment, as a value: what the settings read, and what tests make up.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// The environment variables of the process, taken once.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Env {
    variables: BTreeMap<OsString, OsString>,
}

impl Env {
    pub(in crate::cli) fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// The variable, unless it is unset or empty.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}
