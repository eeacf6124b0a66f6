//! How much of a node's forwarding each neighbour may use.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use crate::id::NodeAddr;

/// A token bucket per neighbour (RFC 2697 in its simplest form: one rate, one burst).
///
/// It has no clock: the owner calls [`tick`](Self::tick) every [`TICK_MILLIS`](Self::TICK_MILLIS)
/// milliseconds. A neighbour that was silent may burst what its rate permits in two ticks, and does
/// not exceed its rate in the long run. Only neighbours that have used tokens have a bucket, so
/// there are no more buckets than links.
#[derive(Debug)]
pub struct Meter {
    /// Bytes added per tick.
    per_tick: u64,
    /// Bytes that neighbours have used of their buckets.
    used: BTreeMap<NodeAddr, u64>,
}

impl Meter {
    /// The time between two ticks, in milliseconds.
    pub const TICK_MILLIS: u64 = 500;

    /// A meter that lets each neighbour use this many bytes a second.
    #[must_use]
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        let per_tick = (bytes_per_second.get() / 1_000).saturating_mul(Self::TICK_MILLIS)
            + bytes_per_second.get() % 1_000 * Self::TICK_MILLIS / 1_000;
        Self { per_tick: per_tick.max(1), used: BTreeMap::new() }
    }

    /// Takes tokens for packets of a neighbour with `bytes` in total, and returns whether there
    /// were enough. The packets of a run belong to one flow and pass or drop together.
    #[must_use]
    pub fn take(&mut self, neighbour: NodeAddr, bytes: usize) -> bool {
        let used = self.used.get(&neighbour).copied().unwrap_or_default();
        // The last run may overdraw, so that a rate below a run's length does not let nothing
        // through.
        if used >= self.burst() {
            return false;
        }
        self.used.insert(neighbour, used.saturating_add(bytes as u64));
        true
    }

    /// Says that a tick has passed.
    pub fn tick(&mut self) {
        let per_tick = self.per_tick;
        self.used.retain(|_, used| {
            *used = used.saturating_sub(per_tick);
            *used > 0
        });
    }

    fn burst(&self) -> u64 {
        self.per_tick.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: NodeAddr = NodeAddr([1; 8]);
    const MODEST: NodeAddr = NodeAddr([2; 8]);

    fn meter(rate: u64) -> Meter {
        Meter::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn a_greedy_neighbour_gets_its_rate_and_a_modest_one_all_it_asks_for() {
        let mut meter = meter(100_000);
        let mut through = [0; 2];
        for _ in 0..20 {
            for _ in 0..200 {
                through[0] += if meter.take(GREEDY, 1_000) { 1_000 } else { 0 };
            }
            through[1] += if meter.take(MODEST, 40_000) { 40_000 } else { 0 };
            meter.tick();
        }
        // Ten seconds, and the burst.
        assert_eq!(through, [100_000 + 19 * 50_000, 20 * 40_000]);
    }

    #[test]
    fn a_rate_below_one_run_lets_a_run_through_now_and_then() {
        let mut meter = meter(1_000);
        let mut runs = 0;
        // Two minutes allow for 120 kB.
        for _ in 0..240 {
            runs += u32::from(meter.take(GREEDY, 60_000));
            meter.tick();
        }
        assert_eq!(runs, 3, "one at once, for the burst, and one a minute");
    }

    #[test]
    fn who_has_used_nothing_lately_takes_no_memory() {
        let mut meter = meter(1_000_000);
        for neighbour in 0..=255 {
            assert!(meter.take(NodeAddr([neighbour; 8]), 1_000_000));
        }
        assert_eq!(meter.used.len(), 256);
        meter.tick();
        meter.tick();
        assert!(meter.used.is_empty());
    }
}
