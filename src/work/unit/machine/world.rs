//! Histories of one submitter and one executor in which every process may die between any two
//! writes, a power failure may undo what was not synced, and any message may be lost. Whatever
//! happens, a unit runs at most once, and once everything is up again each reaches a final state,
//! on which both ends agree.

mod attempt;
mod executor;
mod submitter;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::entry::{
    Answer, ExecutorChange, ExecutorEntry, JournalEntry, Step, StoreId, SubmitterChange,
    SubmitterEntry,
};
use super::executor::{
    ExecutorEffect, ExecutorInput, ExecutorUnit, Exit, ExitKind, Found, RunFile,
};
use super::queue::StartQueue;
use super::submitter::{Request, SubmitterEffect, SubmitterInput, SubmitterUnit};
use super::time::UnitTime;
use super::tombstones::{Death, Tombstones};
use crate::rng::SplitMix64;
use crate::work::unit::key::UnitKey;
use crate::work::unit::outcome::{Failure, Outcome, ReportState, UnitRefusal};
use crate::work::unit::spec::UnitSpec;

/// Histories that `cargo test` plays. `RECEPTOR_UNIT_SEEDS=FIRST..END` plays others.
const SEEDS: std::ops::Range<u64> = 0..10_000;

/// Units of one history.
const UNITS: u128 = 4;

/// Length of each payload, in pieces of one byte.
const PAYLOAD: u64 = 3;

/// How long everything has to settle once it is up again, in milliseconds.
const SETTLES_IN: u64 = 10_000;

/// A crash: the process that was about to act is gone.
struct Crashed;

enum ToExecutor {
    Request(Request, Box<UnitSpec>),
    Piece { offset: u64 },
    Finish,
}

/// A process of a supervisor, and how far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Forked,
    Locked,
    RunCreated,
    Executing,
}

struct Supervisor {
    unit: u128,
    attempt: u32,
    phase: Phase,
    terminate: bool,
}

/// The executor's data directory.
struct ExecutorDisk {
    store: StoreId,
    journals: BTreeMap<u128, Vec<ExecutorEntry>>,
    payloads: BTreeMap<u128, u64>,
    runs: BTreeMap<(u128, u32), RunFile>,
    exits: BTreeMap<(u128, u32), Exit>,
    tombstones: Tombstones,
}

#[derive(Default)]
struct ExecutorProcess {
    units: BTreeMap<u128, ExecutorUnit>,
    queue: StartQueue,
    /// Attempts whose supervisors this process has started.
    spawned: BTreeSet<(u128, u32)>,
}

struct World {
    rng: SplitMix64,
    now: UnitTime,
    /// One crash in so many chances. 0: none.
    crash_one_in: u64,
    specs: BTreeMap<u128, UnitSpec>,
    /// The units that a handler of the executor's process runs, one bit each.
    handlers: u64,
    submitter: Option<BTreeMap<u128, SubmitterUnit>>,
    submitter_disk: BTreeMap<u128, Vec<SubmitterEntry>>,
    executor: Option<ExecutorProcess>,
    disk: ExecutorDisk,
    supervisors: Vec<Supervisor>,
    link_up: bool,
    to_executor: VecDeque<(u128, ToExecutor)>,
    to_submitter: VecDeque<(u128, StoreId, Answer)>,
    /// What really happened.
    executed: BTreeMap<u128, u32>,
    succeeded: BTreeSet<u128>,
    /// Units of which a supervisor was killed, or whose executor lost its disk.
    hurt: BTreeSet<u128>,
    ends: BTreeMap<u128, (Outcome, bool)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        Self {
            handlers: rng.below(1 << UNITS),
            rng,
            now: UnitTime(1_000_000),
            crash_one_in: 0,
            specs: BTreeMap::new(),
            submitter: Some(BTreeMap::new()),
            submitter_disk: BTreeMap::new(),
            executor: Some(ExecutorProcess::default()),
            disk: ExecutorDisk::new(1),
            supervisors: Vec::new(),
            link_up: false,
            to_executor: VecDeque::new(),
            to_submitter: VecDeque::new(),
            executed: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            hurt: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Plays a history to its end, and returns how its units ended and how often they ran.
    fn play(mut self) -> Vec<(Outcome, bool, u32)> {
        self.crash_one_in = self.rng.pick(&[0, 200, 40, 15]);
        let steps = 100 + self.rng.below(300);
        for _ in 0..steps {
            self.chaos();
            self.step();
        }
        self.heal();
        let executed = |n| self.executed.get(n).copied().unwrap_or(0);
        self.ends
            .iter()
            .map(|(n, (outcome, started))| (outcome.clone(), *started, executed(n)))
            .collect()
    }

    /// Something that users, operators or fate do.
    fn chaos(&mut self) {
        let unit = u128::from(self.rng.below(UNITS as u64));
        match self.rng.below(60) {
            0..=3 => self.submit(unit),
            4 => self.user(unit, SubmitterInput::Cancel { grace_ms: self.now.0 % 3 }),
            5 if self.rng.one_in(2) => {
                self.user(unit, SubmitterInput::Release { force: self.now.0.is_multiple_of(2) })
            }
            6..=12 => self.set_link(true),
            13 => self.set_link(false),
            14 => self.kill_submitter(),
            15 => self.kill_executor(),
            16..=17 => self.start_submitter(),
            18..=19 => self.start_executor(),
            20 if self.rng.one_in(4) => self.kill_supervisor(),
            21 if self.rng.one_in(4) => self.lose_power(),
            22 if self.rng.one_in(40) => self.lose_disk(),
            23 => self.now = self.now.plus(self.rng.below(4_000)),
            24 => self.set_crash_rate(),
            25 if self.rng.one_in(4) => self.lose_submitter_power(),
            _ => self.now = self.now.plus(self.rng.below(20)),
        }
    }

    fn set_crash_rate(&mut self) {
        self.crash_one_in = self.rng.pick(&[0, 200, 40, 15]);
    }

    /// One of the things that can happen by themselves does.
    fn step(&mut self) {
        match self.rng.below(5) {
            0 => self.deliver_to_executor(),
            1 => self.deliver_to_submitter(),
            2 => self.run_supervisor(),
            3 => self.watch_supervisors(),
            _ => {
                self.tick();
                self.give_turns();
            }
        }
    }

    /// Everything is up, nothing crashes any more, and all units come to an end.
    fn heal(&mut self) {
        self.crash_one_in = 0;
        self.start_executor();
        self.start_submitter();
        self.set_link(false);
        self.set_link(true);
        // Units that wait for a time of day are not what is to settle.
        let from = self.now;
        while self.now < from.plus(SETTLES_IN) {
            for _ in 0..8 {
                self.step();
            }
            self.now = self.now.plus(50);
        }
        let submitter = self.submitter.as_ref().expect("it is up");
        for (n, unit) in submitter {
            assert!(unit.is_final(), "unit {n} has no final state: {unit:?}");
        }
        let submitter: BTreeSet<u128> = submitter.keys().copied().collect();
        let executor = self.executor.as_ref().expect("it is up");
        for (n, unit) in &executor.units {
            let waits = matches!(unit.status().state, ReportState::Receiving { .. });
            assert!(unit.is_final() || waits, "unit {n} at the executor: {unit:?}");
        }
        for (n, (outcome, started)) in &self.ends {
            let executed = self.executed.get(n).copied().unwrap_or(0);
            let text = format!(
                "unit {n} ended as {outcome:?}, started: {started}, executed {executed} times"
            );
            assert!(*started || executed == 0, "{text}");
            assert!(*outcome != Outcome::Succeeded || self.succeeded.contains(n), "{text}");
            assert!(*outcome != Outcome::Lost || self.hurt.contains(n), "{text}");
            assert!(
                !matches!(outcome, Outcome::Expired | Outcome::Refused(_)) || executed == 0,
                "{text}"
            );
            assert!(*outcome != Outcome::Refused(UnitRefusal::Conflict), "{text}");
        }
        let ended: BTreeSet<u128> = self.ends.keys().copied().collect();
        assert!(submitter.is_subset(&ended));
        self.both_ends_agree();
    }

    /// What the executor says of a unit that it accepted is what the submitter has recorded.
    fn both_ends_agree(&self) {
        let executor = self.executor.as_ref().expect("it is up");
        for (n, unit) in &executor.units {
            let accepted = |entry: &ExecutorEntry| entry.change == ExecutorChange::Accepted;
            let Some(end) = self.ends.get(n) else { continue };
            if self.disk.journals[n].iter().any(accepted) {
                let status = unit.status();
                let there = status.outcome().cloned().map(|outcome| (outcome, status.started));
                assert_eq!(there.as_ref(), Some(end), "the two ends of unit {n} disagree");
            }
        }
    }

    fn tick(&mut self) {
        let due = |at: Option<UnitTime>, now| at.is_some_and(|at| at <= now);
        let now = self.now;
        let submitter = self.submitter.iter().flatten();
        let late: Vec<u128> =
            submitter.filter(|(_, it)| due(it.deadline(), now)).map(|(n, _)| *n).collect();
        late.into_iter().for_each(|n| self.user(n, SubmitterInput::Tick));
        let executor = self.executor.iter().flat_map(|executor| &executor.units);
        let late: Vec<u128> =
            executor.filter(|(_, it)| due(it.deadline(), now)).map(|(n, _)| *n).collect();
        late.into_iter().for_each(|n| self.executor_input(n, ExecutorInput::Tick));
    }

    fn set_link(&mut self, up: bool) {
        let up = up && self.submitter.is_some() && self.executor.is_some();
        if up == self.link_up {
            return;
        }
        self.link_up = up;
        self.to_executor.clear();
        self.to_submitter.clear();
        let input = if up { SubmitterInput::Up } else { SubmitterInput::Down };
        let units: Vec<u128> = self.submitter.iter().flat_map(BTreeMap::keys).copied().collect();
        units.into_iter().for_each(|n| self.user(n, input.clone()));
    }

    fn maybe_crash(&mut self, kill: fn(&mut Self)) -> Result<(), Crashed> {
        if self.crash_one_in > 0 && self.rng.one_in(self.crash_one_in) {
            kill(self);
            return Err(Crashed);
        }
        Ok(())
    }
}

impl ExecutorDisk {
    fn new(store: u128) -> Self {
        Self {
            store: StoreId(Uuid::from_u128(store)),
            journals: BTreeMap::new(),
            payloads: BTreeMap::new(),
            runs: BTreeMap::new(),
            exits: BTreeMap::new(),
            tombstones: Tombstones::default(),
        }
    }

    /// Creates a file exclusively, as `link` does.
    fn create_run(&mut self, attempt: (u128, u32), by: RunFile) -> bool {
        let created = !self.runs.contains_key(&attempt);
        if created {
            self.runs.insert(attempt, by);
        }
        created
    }

    fn remove(&mut self, n: u128) {
        self.journals.remove(&n);
        self.payloads.remove(&n);
        self.runs.retain(|(unit, _), _| *unit != n);
        self.exits.retain(|(unit, _), _| *unit != n);
    }
}

/// Cuts a journal somewhere behind the last entry that was synced.
fn lose_unsynced<E: JournalEntry>(journal: &mut Vec<E>, rng: &mut SplitMix64) {
    let synced = journal.iter().rposition(JournalEntry::is_promise).map_or(0, |last| last + 1);
    let unsynced = journal.len() - synced;
    journal.truncate(synced + rng.below(unsynced as u64 + 1) as usize);
}

fn key(n: u128) -> UnitKey {
    UnitKey::new(&"submitter".parse().expect("valid"), Uuid::from_u128(n))
}

#[test]
fn a_unit_runs_at_most_once_and_always_ends_whatever_dies() {
    let seeds = std::env::var("RECEPTOR_UNIT_SEEDS").ok().and_then(|text| {
        let (first, end) = text.split_once("..")?;
        Some(first.parse().ok()?..end.parse().ok()?)
    });
    let all = seeds.is_none();
    let mut ends = Vec::new();
    for seed in seeds.unwrap_or(SEEDS) {
        match std::panic::catch_unwind(|| World::new(seed).play()) {
            Ok(ended) => ends.extend(ended),
            Err(_) => {
                panic!("seed {seed}: RECEPTOR_UNIT_SEEDS={seed}..{} plays it alone", seed + 1)
            }
        }
    }
    // The histories reach every end that there is.
    let count = |is: fn(&(Outcome, bool, u32)) -> bool| ends.iter().filter(|end| is(end)).count();
    let reached = [
        ("succeeded", count(|(outcome, ..)| *outcome == Outcome::Succeeded)),
        ("failed", count(|(outcome, ..)| matches!(outcome, Outcome::Failed(Failure::Exit(_))))),
        (
            "not started",
            count(|(outcome, ..)| matches!(outcome, Outcome::Failed(Failure::NotStarted(_)))),
        ),
        (
            "cancelled before",
            count(|(outcome, started, _)| *outcome == Outcome::Cancelled && !started),
        ),
        (
            "cancelled while running",
            count(|(outcome, _, runs)| *outcome == Outcome::Cancelled && *runs > 0),
        ),
        ("expired", count(|(outcome, ..)| *outcome == Outcome::Expired)),
        ("lost", count(|(outcome, ..)| *outcome == Outcome::Lost)),
        ("run again", count(|(_, _, runs)| *runs > 1)),
    ];
    println!("{reached:?}");
    assert!(!all || reached.iter().all(|(_, count)| *count > 0), "{reached:?}");
}
