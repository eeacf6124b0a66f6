//! Places of a pool that callers share, without a fixed part for each.

/// How many times the free places a caller may hold.
const FACTOR: usize = 3;

/// Whether a caller that holds `own` of the `taken` places in a pool of `all` may take another one:
/// only if it holds less than three times as many as are free.
///
/// Alone it gets three quarters of the pool, rounded up. With others it gets less: `n` greedy
/// callers leave one place in `3n + 1` free, so a caller that holds nothing finds a place however
/// many greedy ones there are, up to a third of the pool. This is the dynamic threshold of
/// Choudhury and Hahne (IEEE/ACM Transactions on Networking 6, 1998).
pub(crate) const fn admits(own: usize, taken: usize, all: usize) -> bool {
    own < FACTOR * all.saturating_sub(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places each of `callers` gets if all of them take what they can, in turn.
    fn shares(callers: usize, all: usize) -> Vec<usize> {
        let mut held = vec![0; callers];
        loop {
            let before: usize = held.iter().sum();
            for own in 0..callers {
                if admits(held[own], held.iter().sum(), all) {
                    held[own] += 1;
                }
            }
            if before == held.iter().sum::<usize>() {
                return held;
            }
        }
    }

    #[test]
    fn one_caller_alone_gets_three_quarters_rounded_up() {
        for all in 0..2_000 {
            assert_eq!(shares(1, all), [all - all / 4], "{all}");
        }
    }

    #[test]
    fn greedy_callers_leave_places_for_those_who_hold_none() {
        for callers in [2, 3, 5, 20, 100, 300] {
            let held = shares(callers, 1_024);
            let taken: usize = held.iter().sum();
            assert!(admits(0, taken, 1_024), "{callers}: {taken} are taken");
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= FACTOR, "{callers}: {held:?}");
        }
    }
}
