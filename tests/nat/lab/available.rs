//! Whether this machine can have a lab.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::namespace::{self, Namespace};

/// Set to 1, a test that cannot run fails instead of being skipped.
const REQUIRE: &str = "RECEPTOR_REQUIRE_LAB";
/// The same for the tools that few machines have, those of [`skipped_without`].
#[cfg(feature = "portmap")]
const REQUIRE_TOOLS: &str = "RECEPTOR_REQUIRE_LAB_TOOLS";

/// Whether the test cannot run here. Says so in one line, where the test runner does not swallow
/// it.
///
/// # Panics
/// It cannot, and `RECEPTOR_REQUIRE_LAB` is 1.
pub(crate) fn skipped(test: &str) -> bool {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    match WHY.get_or_init(|| lacking().err()) {
        Some(why) => skip(test, why, REQUIRE),
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
        skip(test, &format!("{tool} is not installed"), REQUIRE_TOOLS);
        return true;
    }
    false
}

fn skip(test: &str, why: &str, require: &str) {
    let required = std::env::var(require).is_ok_and(|value| value == "1");
    assert!(!required, "{test} cannot run: {why}; unset {require} to skip it");
    say(test, why);
}

/// The macros' output is shown only for tests that fail. In one piece, so that no other line gets
/// into it.
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
