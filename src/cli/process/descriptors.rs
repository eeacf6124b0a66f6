//! The limit on open files.
//!
//! A control client takes one descriptor and a running command four, so the soft limit of 1,024
//! that shells start with is too low for a node's own bounds. The hard limit is the administrator's
//! decision; the soft one exists for programs that use select(2), and this is not one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many as the units in `deploy/` permit. Commands inherit the limit, and some close every
/// descriptor up to it at start.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit to the hard one, but not beyond [`ENOUGH`]. A system that refuses keeps
/// its limit.
pub(in crate::cli) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
