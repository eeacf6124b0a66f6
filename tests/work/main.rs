//! Units of work with real processes: a submitter, a relay and an executor, which are killed.
//!
//! ```text
//!   ctl ── relay ── edge ── supervisor ── sh
//! ```
//!
//! `RECEPTOR_CRASH_SEEDS=A..B` chooses the histories of [`crashes`], `0..3` by default.
//! `RECEPTOR_CRASH_LOG` is the nodes' `RUST_LOG`. What takes root is skipped without it, in one
//! line that says why; with `RECEPTOR_REQUIRE_LAB=1` it fails.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[cfg(test)]
mod commands;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod disk;
#[cfg(test)]
#[allow(dead_code, reason = "shared with the tests of the other commands")]
#[path = "../cli/harness.rs"]
mod harness;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod service_manager;
