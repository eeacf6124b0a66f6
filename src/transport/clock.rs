//! The wall clock: what certificates are judged by, in handshakes and afterwards.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use x509_cert::der::DateTime;

/// The time by the wall clock. Under tokio's paused clock it advances with virtual time, so that
/// certificates expire there as well; otherwise the two clocks agree and the difference is nothing.
#[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
pub(crate) fn system() -> SystemTime {
    let (tokio, machine) = (tokio::time::Instant::now().into_std(), Instant::now());
    let wall = SystemTime::now();
    match tokio.checked_duration_since(machine) {
        Some(ahead) => wall + ahead,
        None => wall - machine.saturating_duration_since(tokio),
    }
}

/// [`system`] in the type of rustls and webpki.
pub(crate) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Formats a time as RFC 3339.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since_epoch)
        .map_or_else(|_| "a time after 9999".to_owned(), |time| time.to_string())
}

/// Seconds in a day.
pub(super) const DAY: u64 = 24 * 60 * 60;

/// The clock of TLS handshakes.
#[derive(Debug)]
pub(super) struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(system()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_follows_virtual_time() {
        let before = system();
        tokio::time::advance(Duration::from_secs(90 * 24 * 3_600)).await;
        let passed = system().duration_since(before).unwrap().as_secs_f64();
        assert_eq!(passed.round(), 90.0 * 24.0 * 3_600.0);
    }
}
