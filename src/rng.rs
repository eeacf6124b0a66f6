//! The only source of chance in tests, and in the virtual network.

use std::time::Duration;

/// SplitMix64: a small generator with full period 2⁶⁴, good enough for dice and no good for
/// secrets.
#[derive(Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Whether an event of this probability happens. Draws nothing when it is certain either way.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        if probability >= 1.0 {
            return true;
        }
        probability > 0.0 && self.next_unit() < probability
    }

    /// A duration from zero to `max`. Draws nothing when that is zero.
    pub(crate) fn up_to(&mut self, max: Duration) -> Duration {
        if max.is_zero() { Duration::ZERO } else { max.mul_f64(self.next_unit()) }
    }

    /// Uniform enough from `least` to `most`, for spans far below 2⁶⁴.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Uniform enough from zero to less than `bound`, which is far below 2⁶⁴ and not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Uniform in `[0, 1)`, with the 53 bits that an `f64` holds.
    fn next_unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether an event that happens once in `n` times happens.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these, of which there is at least one.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// The next of the sequence.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut rng = SplitMix64::new(1_234_567);
        let drawn = [rng.next(), rng.next(), rng.next()];
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_chance_of_one_in_ten_happens_about_as_often() {
        let mut rng = SplitMix64::new(1);
        let hits = (0..10_000).filter(|_| rng.chance(0.1)).count();
        assert!((900..1_100).contains(&hits), "{hits} hits");
    }

    #[test]
    fn certain_and_impossible_events_draw_nothing() {
        let mut rng = SplitMix64::new(1);
        assert!(rng.chance(1.0) && rng.chance(7.0));
        assert!(!rng.chance(0.0) && !rng.chance(-1.0) && !rng.chance(f64::NAN));
        assert_eq!(rng.up_to(Duration::ZERO), Duration::ZERO);
        assert_eq!(rng.next(), SplitMix64::new(1).next());
    }
}
