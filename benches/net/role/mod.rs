//! What a process of the bench does: it starts, says where it listens, and obeys lines until its
//! input ends.

mod console;
mod many;
mod ours;
mod raw;
mod remote;
mod splice;
mod tls;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Result;

/// The hidden first argument of a process in a role; the role, and `key=value` for its settings,
/// follow.
pub(crate) const FLAG: &str = "--role";

/// The settings of a role.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn get(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).ok_or_else(|| format!("{key} is not set").into())
    }

    fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        Ok(self.0.get(key).map(|value| value.parse()).transpose()?)
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Where the certificates are.
    fn dir(&self) -> Result<PathBuf> {
        Ok(self.get("dir")?.into())
    }
}

/// Runs as what the arguments say.
pub(crate) fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let role = args.next().ok_or("no role")?;
    let settings = args
        .map(|arg| arg.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .map(Settings)
        .ok_or("a setting is key=value")?;
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match role.as_str() {
            "ours" => ours::run(&settings).await,
            "raw" => raw::run(&settings).await,
            "splice" => splice::run(&settings).await,
            role => Err(format!("no role is called {role}").into()),
        }
    })
}
