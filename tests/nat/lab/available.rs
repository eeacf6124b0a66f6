//! Whether this machine can have a lab.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::namespace::{self, Namespace};

/// Whether the test cannot run here. Says so in one line, where the test runner does not swallow it.
pub(crate) fn skipped(test: &str) -> bool {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    match WHY.get_or_init(|| lacking().err()) {
        Some(why) => say(test, why),
        None => return false,
    }
    true
}

/// The same, for a test that takes a tool as well which few machines have.
#[cfg(feature = "portmap")]
pub(crate) fn skipped_without(tool: &str, test: &str) -> bool {
    let there = |dir: std::path::PathBuf| dir.join(tool).is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if skipped(test) {
        return true;
    }
    if !std::env::split_paths(&path).any(there) {
        say(test, &format!("{tool} is not installed"));
        return true;
    }
    false
}

/// The macros' output is shown only for tests that fail. In one piece, so that no other line gets into it.
fn say(test: &str, why: &str) {
    let _ = io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
}

/// Tries everything once that the lab needs of the machine.
fn lacking() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces take root".to_owned());
    }
    namespace::sweep();
    let namespace = Namespace::try_new("try")?;
    namespace.try_nft(
        "table ip try {
           chain postrouting {
             type nat hook postrouting priority srcnat
             masquerade fully-random
           }
           chain forward {
             type filter hook forward priority filter
             numgen random mod 100 < 10 drop
           }
         }",
    )
}
