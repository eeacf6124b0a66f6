//! Time, as the lab measures it, and waiting for what is to come about.

use std::thread;
use std::time::{Duration, Instant};

/// More than anything here takes on a slow machine that does other things as well.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long an answer stands before it is asked for anew: nodes are asked by processes, which want
/// the processor as well.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(30);

#[expect(clippy::disallowed_methods, reason = "the kernel's NATs run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Asks until the answer is there.
#[track_caller]
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, ask).unwrap_or_else(|| panic!("did not come about: {what}"))
}

/// Asks until the answer is there, or until this much time has passed.
pub(crate) fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = now();
    loop {
        // An answer that comes after the end of the time is one that was asked for within it.
        let last = begin.elapsed() >= limit;
        match ask() {
            Some(answer) => return Some(answer),
            None if last => return None,
            None => thread::sleep(ASK_AGAIN_AFTER),
        }
    }
}

/// How often a test is repeated that depends on luck: on the ports that a NAT chooses, on the
/// packets that are lost.
pub(crate) fn runs() -> usize {
    std::env::var("RECEPTOR_NAT_RUNS")
        .map_or(1, |runs| runs.parse().expect("RECEPTOR_NAT_RUNS is a number"))
}
