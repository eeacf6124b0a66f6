//! The fault menu: everything that may happen to a mesh, drawn from a seed, and then the check that
//! all is as it should be.
//!
//! A seed gives a [`Case`]: the ways of the world ([`Ways`]) and a list of steps ([`Step`]). Each
//! seed stands alone. One that fails is played again with a journal, and made smaller as long as it
//! still fails; what is printed is the smallest.
//!
//! `RECEPTOR_SEEDS` says which seeds are played: `N` for those below N, `FROM..TO` for others. To
//! see one again:
//!
//! ```text
//! RECEPTOR_SEEDS=4711..4712 cargo test --no-default-features --test router fault_menu
//! ```

mod finds;
mod play;
mod seeds;
mod shrink;
mod step;
mod ways;

use play::Case;
use ways::Ways;

/// Seeds that are played if nothing else is asked for: about two minutes of one core, half of that
/// on two.
const SEEDS: u64 = 15_000;

#[test]
fn the_fault_menu_ends_in_agreement_for_every_seed() {
    seeds::each("fault_menu", seeds::asked().unwrap_or(0..SEEDS), |seed| {
        Case::of(seed, Ways::of(seed))
    });
}

/// Frames of old sessions reach newer ones, some twice. The router's contract does not allow that,
/// so sessions may end over it; still nothing panics or stays wrong.
#[test]
fn an_embedder_that_lets_old_frames_through_costs_sessions_and_nothing_else() {
    let seeds = seeds::asked().unwrap_or(0..SEEDS / 50);
    seeds::each("embedder", seeds, |seed| Case::of(seed, Ways::sloppy(seed)));
}
