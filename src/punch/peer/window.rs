//! Which counters were seen, so that no probe counts twice.

/// The replay window of RFC 4303 §3.4.3: a counter is accepted once, in any order, unless it is 64
/// or more behind the highest.
///
/// Probes to several addresses overtake each other all the time, so accepting only increasing
/// counters would starve the slow paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    highest: u32,
    /// Bit n: the counter n below the highest was seen.
    seen: u64,
}

impl Window {
    /// Whether the counter is new; then it is not any more.
    pub(crate) fn take(&mut self, counter: u32) -> bool {
        if counter > self.highest || self.seen == 0 {
            let ahead = counter.saturating_sub(self.highest);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = counter;
            return true;
        }
        let bit = 1_u64.checked_shl(self.highest - counter).unwrap_or(0);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_taken_once_in_any_order() {
        let mut window = Window::default();
        for counter in [3, 1, 2, 70, 7, 69, 0, u32::MAX, u32::MAX - 63] {
            let again = counter == 0;
            assert_eq!(window.take(counter), !again, "{counter}");
            assert!(!window.take(counter), "{counter} again");
        }
    }

    #[test]
    fn a_counter_that_is_too_old_to_tell_is_not_taken() {
        let mut window = Window::default();
        assert!(window.take(100));
        assert!(window.take(37));
        assert!(!window.take(36));
    }
}
