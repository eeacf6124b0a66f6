//! Which seeds are played, on how many threads, and the report on those that fail.

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use super::play::Case;
use super::shrink;

/// The seeds that `RECEPTOR_SEEDS` asks for: `N` for those below N, or `FROM..TO`.
pub(super) fn asked() -> Option<Range<u64>> {
    let text = std::env::var("RECEPTOR_SEEDS").ok()?;
    let number = |text: &str| text.trim().parse().expect("RECEPTOR_SEEDS is N or FROM..TO");
    Some(match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    })
}

/// Plays the case of each seed, on all cores. The lowest seed that fails is the one that is
/// reported, whatever the number of threads.
pub(super) fn each(name: &str, seeds: Range<u64>, case: impl Fn(u64) -> Case + Sync) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let first: Mutex<Option<u64>> = Mutex::new(None);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if fails(&case(seed)).is_some() {
                failed.store(true, Ordering::Relaxed);
                let mut first = first.lock().unwrap();
                *first = Some(first.map_or(seed, |other| other.min(seed)));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    if let Some(seed) = first.into_inner().unwrap() {
        report(name, &case(seed));
    }
}

/// Why the case fails, if it does.
pub(super) fn fails(case: &Case) -> Option<String> {
    let _quiet = Quiet::begin();
    catch_unwind(AssertUnwindSafe(|| drop(case.play(false)))).err().map(|panic| said(&*panic))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of this thread are not printed as they happen: the report tells of them.
struct Quiet;

impl Quiet {
    fn begin() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    print(info);
                }
            }));
        });
        QUIET.set(true);
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn report(name: &str, case: &Case) -> ! {
    let seed = case.seed;
    println!("seed {seed} fails: {:?}", case.ways);
    println!("{} steps; looking for a smaller history that fails too", case.steps.len());
    let small = shrink::shrink(case);
    println!("the smallest: {:?}", small.ways);
    for step in &small.steps {
        println!("    {step:?}");
    }
    println!("what happened last:");
    let why =
        catch_unwind(AssertUnwindSafe(|| drop(small.play(true)))).err().map(|panic| said(&*panic));
    panic!(
        "seed {seed} of {name} fails: {}\nRECEPTOR_SEEDS={seed}..{} cargo test --no-default-features --test router {name}",
        why.unwrap_or_default(),
        seed + 1,
    );
}
