//! Limits in time.

use std::time::{Duration, Instant};

/// A token bucket: `burst` at once, then one per `interval`.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    burst: u32,
    interval: Duration,
    /// When the bucket is full again; `None` if it is full.
    full_at: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, full_at: None }
    }

    /// When the next token is available; not before `now`.
    pub(crate) fn ready_at(&self, now: Instant) -> Instant {
        let spare = self.interval * (self.burst - 1);
        self.full_at.and_then(|at| at.checked_sub(spare)).map_or(now, |at| at.max(now))
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let ready = self.ready_at(now) <= now;
        if ready {
            self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + self.interval);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::start;

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_per_interval() {
        let mut bucket = Bucket::new(3, Duration::from_secs(1));
        let now = start();
        assert!(bucket.take(now) && bucket.take(now) && bucket.take(now));
        assert!(!bucket.take(now));
        assert_eq!(bucket.ready_at(now), now + Duration::from_secs(1));
        assert!(bucket.take(now + Duration::from_secs(1)));
        assert!(!bucket.take(now + Duration::from_millis(1_900)));
    }
}
