//! One direction of a link: what it does to each datagram.

use crate::rng::SplitMix64;
use crate::testing::quality::LinkQuality;
use std::time::Duration;
use tokio::time::Instant;

/// One direction between two hosts, shared by all sockets of both.
#[derive(Debug, Default)]
pub(in crate::testing) struct Lane {
    /// When the last datagram will have been put on the wire; what lies ahead of it is the backlog.
    busy_until: Option<Instant>,
    /// When the latest datagram arrives; no later one arrives before, unless jitter may reorder.
    last_due: Option<Instant>,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Fate {
    Arrives(Instant),
    Lost,
    Oversized,
    QueueFull,
}

impl Lane {
    pub(in crate::testing) fn send(
        &mut self,
        len: usize,
        quality: &LinkQuality,
        rng: &mut SplitMix64,
        now: Instant,
    ) -> Fate {
        if len > quality.mtu {
            return Fate::Oversized;
        }
        let Some(sent) = self.put_on_the_wire(len, quality, now) else { return Fate::QueueFull };
        if rng.chance(quality.loss) {
            return Fate::Lost;
        }
        let delay = quality.latency.saturating_add(rng.up_to(quality.jitter));
        // A delay beyond what the clock can express is one that never ends.
        let Some(mut due) = sent.checked_add(delay) else { return Fate::Lost };
        if !quality.reorder {
            due = self.last_due.map_or(due, |last| due.max(last));
        }
        self.last_due = Some(self.last_due.map_or(due, |last| due.max(last)));
        Fate::Arrives(due)
    }

    /// When the last byte leaves, or `None` if the queue has no room.
    fn put_on_the_wire(
        &mut self,
        len: usize,
        quality: &LinkQuality,
        now: Instant,
    ) -> Option<Instant> {
        let Some(bandwidth) = quality.bandwidth else { return Some(now) };
        if bandwidth == 0 {
            return None;
        }
        let wait =
            self.busy_until.map_or(Duration::ZERO, |busy| busy.saturating_duration_since(now));
        let backlog = wait.as_nanos() * u128::from(bandwidth) / NANOS;
        if backlog > 0 && backlog + len as u128 > quality.queue as u128 {
            return None;
        }
        let nanos = u64::try_from(len as u128 * NANOS / u128::from(bandwidth)).unwrap_or(u64::MAX);
        let sent = now.checked_add(wait.saturating_add(Duration::from_nanos(nanos)))?;
        self.busy_until = Some(sent);
        Some(sent)
    }
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn arrivals(quality: &LinkQuality, seed: u64, count: usize) -> Vec<Fate> {
        let (mut lane, mut rng, now) = (Lane::default(), SplitMix64::new(seed), Instant::now());
        (0..count).map(|_| lane.send(1_000, quality, &mut rng, now)).collect()
    }

    fn dues(fates: &[Fate]) -> Vec<Instant> {
        fates
            .iter()
            .filter_map(|fate| if let Fate::Arrives(due) = fate { Some(*due) } else { None })
            .collect()
    }

    #[test]
    fn latency_alone_delays_all_alike() {
        let now = Instant::now();
        let fate =
            Lane::default().send(1_000, &LinkQuality::default(), &mut SplitMix64::new(0), now);
        assert_eq!(fate, Fate::Arrives(now + MS));
    }

    #[test]
    fn bandwidth_spaces_datagrams_and_the_queue_drops_its_tail() {
        let quality =
            LinkQuality { bandwidth: Some(1_000_000), queue: 3_000, ..LinkQuality::default() };
        let fates = arrivals(&quality, 0, 5);
        let dues = dues(&fates);
        assert_eq!(dues.len(), 3);
        assert_eq!(dues[1] - dues[0], MS);
        assert_eq!(dues[2] - dues[1], MS);
        assert_eq!(fates[3..], [Fate::QueueFull, Fate::QueueFull]);
    }

    #[test]
    fn the_queue_empties_as_time_passes() {
        let quality =
            LinkQuality { bandwidth: Some(1_000_000), queue: 1_000, ..LinkQuality::default() };
        let (mut lane, mut rng, now) = (Lane::default(), SplitMix64::new(0), Instant::now());
        assert_eq!(lane.send(1_000, &quality, &mut rng, now), Fate::Arrives(now + 2 * MS));
        assert_eq!(lane.send(1_000, &quality, &mut rng, now), Fate::QueueFull);
        assert_eq!(lane.send(1_000, &quality, &mut rng, now + MS), Fate::Arrives(now + 3 * MS));
    }

    #[test]
    fn jitter_keeps_the_order_unless_it_may_reorder() {
        let quality = LinkQuality { jitter: 50 * MS, ..LinkQuality::default() };
        assert!(dues(&arrivals(&quality, 3, 100)).is_sorted());
        let quality = LinkQuality { reorder: true, ..quality };
        assert!(!dues(&arrivals(&quality, 3, 100)).is_sorted());
    }

    #[test]
    fn what_is_too_long_never_arrives() {
        let quality = LinkQuality { mtu: 999, ..LinkQuality::default() };
        assert_eq!(arrivals(&quality, 0, 1), [Fate::Oversized]);
    }

    #[test]
    fn a_dead_or_endless_link_carries_nothing() {
        let dead = LinkQuality { bandwidth: Some(0), ..LinkQuality::default() };
        assert_eq!(arrivals(&dead, 0, 1), [Fate::QueueFull]);
        let endless = LinkQuality { latency: Duration::MAX, jitter: MS, ..LinkQuality::default() };
        assert_eq!(arrivals(&endless, 0, 1), [Fate::Lost]);
    }
}
