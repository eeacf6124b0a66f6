//! Which refusals of links are worth a line in the log.
//!
//! A misconfigured node dials for ever, and anybody can knock: each address is logged with its
//! first refusal and then once a minute, with the number of those in between. Addresses beyond a
//! bound share one line a minute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mesh::clock;
use crate::sync::lock;

/// The shortest time between two lines about one address.
const PERIOD: Duration = Duration::from_secs(60);
/// The number of addresses that are distinguished within a period.
const MAX_ADDRESSES: usize = 64;

/// The refusals of the last minute.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    by_address: BTreeMap<IpAddr, Recent>,
    /// Of the addresses that did not fit.
    others: Option<Recent>,
}

#[derive(Debug)]
struct Recent {
    logged: Instant,
    suppressed: u64,
}

impl RefusalLog {
    /// Counts a refusal. `Some` if it is to be logged, with the number of those that were not since
    /// the last one.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        let is_new = !self.by_address.contains_key(&address);
        if is_new && self.by_address.len() >= MAX_ADDRESSES {
            self.by_address.retain(|_, recent| !recent.is_over(now));
        }
        if is_new && self.by_address.len() >= MAX_ADDRESSES {
            return Recent::admit(&mut self.others, now);
        }
        let mut recent = self.by_address.remove(&address);
        let admitted = Recent::admit(&mut recent, now);
        self.by_address.extend(recent.map(|recent| (address, recent)));
        admitted
    }
}

/// A log that tasks share.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedRefusalLog(Arc<Mutex<RefusalLog>>);

impl SharedRefusalLog {
    /// As [`RefusalLog::admit`], now.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<u64> {
        lock(&self.0).admit(address, clock::now())
    }
}

impl Recent {
    fn admit(recent: &mut Option<Self>, now: Instant) -> Option<u64> {
        match recent {
            Some(recent) if !recent.is_over(now) => {
                recent.suppressed += 1;
                None
            }
            other => {
                let suppressed = other.as_ref().map_or(0, |recent| recent.suppressed);
                *other = Some(Self { logged: now, suppressed: 0 });
                Some(suppressed)
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.logged) >= PERIOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_logged_once_a_minute_with_what_was_left_out() {
        let mut log = RefusalLog::default();
        let (a, b, start) =
            (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]), clock::now());
        assert_eq!(log.admit(a, start), Some(0));
        assert_eq!(log.admit(a, start + Duration::from_secs(1)), None);
        assert_eq!(log.admit(b, start + Duration::from_secs(1)), Some(0));
        assert_eq!(log.admit(a, start + Duration::from_secs(59)), None);
        assert_eq!(log.admit(a, start + Duration::from_secs(60)), Some(2));
        assert_eq!(log.admit(a, start + Duration::from_secs(61)), None);
    }

    #[test]
    fn many_addresses_at_once_share_a_line() {
        let mut log = RefusalLog::default();
        let start = clock::now();
        let address = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]);
        let admitted = |log: &mut RefusalLog, now| {
            (0..1_000).filter(|n| log.admit(address(*n), now).is_some()).count()
        };
        assert_eq!(admitted(&mut log, start), MAX_ADDRESSES + 1);
        assert_eq!(admitted(&mut log, start + PERIOD), MAX_ADDRESSES + 1);
        assert!(log.by_address.len() <= MAX_ADDRESSES);
    }
}
