//! A smaller history that fails too.

use super::play::Case;
use super::seeds::fails;

/// Histories that are tried at most.
const TRIES: u32 = 2_000;

/// Leaves out steps, pauses and nodes as long as the case fails.
pub(super) fn shrink(case: &Case) -> Case {
    let mut small = case.clone();
    let mut tries = 0;
    let mut still_fails = |case: &Case| {
        tries += 1;
        tries <= TRIES && fails(case).is_some()
    };
    loop {
        let before = (small.steps.len(), small.ways.nodes);
        leave_out_steps(&mut small, &mut still_fails);
        while small.ways.nodes > 2 {
            let mut fewer = small.clone();
            fewer.ways.nodes -= 1;
            if !still_fails(&fewer) {
                break;
            }
            small = fewer;
        }
        if (small.steps.len(), small.ways.nodes) == before {
            return small;
        }
    }
}

fn leave_out_steps(small: &mut Case, still_fails: &mut impl FnMut(&Case) -> bool) {
    let mut chunk = small.steps.len();
    while chunk > 0 {
        let mut at = 0;
        while at < small.steps.len() {
            let mut fewer = small.clone();
            fewer.steps.drain(at..(at + chunk).min(small.steps.len()));
            if still_fails(&fewer) {
                *small = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
}
