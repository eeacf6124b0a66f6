//! The only place where the mesh asks what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations. It follows tokio's clock, so that tests can run in virtual time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Now by the wall clock: for epochs, expiry and people. Nothing depends on its being right.
pub(crate) fn system() -> SystemTime {
    crate::transport::clock::system()
}

/// Now, as milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = system().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Now, as seconds since the Unix epoch.
pub(crate) fn unix_secs() -> u64 {
    unix_ms() / 1_000
}
