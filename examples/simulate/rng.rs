//! SplitMix64: small, seeded, the same everywhere.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound`, exclusive; 0 if there is nothing to choose from.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Anything from `least` to `most`.
    pub(crate) fn within(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let span = (most - least).as_nanos() as u64;
        least + Duration::from_nanos(self.next() % (span + 1))
    }

    /// Until the next of events that come at `rate` a second, each independent of the others.
    pub(crate) fn until_next(&mut self, rate: f64) -> Duration {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        Duration::from_secs_f64((-uniform.ln() / rate).min(3600.0))
    }
}
