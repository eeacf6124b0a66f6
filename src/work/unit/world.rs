//! Histories of one submitter and one executor in which every process may die between any two
//! writes, a power failure may undo what was not synced, and any message may be lost. Whatever
//! happens, a unit runs at most once, and once everything is up again each reaches a final state,
//! on which both ends agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::entry::{Answer, ExecutorChange, ExecutorEntry, JournalEntry, StoreId, SubmitterEntry};
use super::executor::{
    ExecutorEffect, ExecutorInput, ExecutorUnit, Exit, ExitKind, Found, RunFile,
};
use super::key::UnitKey;
use super::outcome::{Failure, Outcome, ReportState, UnitRefusal};
use super::queue::StartQueue;
use super::spec::UnitSpec;
use super::submitter::{Request, SubmitterEffect, SubmitterInput, SubmitterUnit};
use super::time::UnitTime;
use super::tombstones::{Death, Tombstones};
use crate::rng::SplitMix64;

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

    fn submit(&mut self, n: u128) {
        if self.specs.contains_key(&n) || self.submitter.is_none() {
            return;
        }
        let spec = UnitSpec {
            directive: "test:run".parse().expect("valid"),
            payload_len: if n == 0 { 0 } else { PAYLOAD },
            payload_sha256: [n as u8; 32],
            start_by_ms: 200 + self.rng.below(8_000),
            run_for_ms: None,
            keep_for_ms: 100_000,
            idempotent: n == 3,
            labels: BTreeMap::new(),
        };
        let (unit, step) =
            SubmitterUnit::queued("executor".parse().expect("valid"), spec.clone(), self.now);
        self.specs.insert(n, spec);
        self.submitter.as_mut().expect("it is up").insert(n, unit);
        let performed = self.perform_submitter(n, step);
        if performed.is_err() && !self.submitter_disk.contains_key(&n) {
            // The client learned that the submission failed.
            self.specs.remove(&n);
            return;
        }
        if self.link_up && performed.is_ok() {
            self.user(n, SubmitterInput::Up);
        }
    }

    fn user(&mut self, n: u128, input: SubmitterInput) {
        let Some(unit) = self.submitter.as_mut().and_then(|units| units.get_mut(&n)) else {
            return;
        };
        let step = unit.handle(input, self.now);
        let _ = self.perform_submitter(n, step);
    }

    fn perform_submitter(
        &mut self,
        n: u128,
        step: super::entry::Step<SubmitterEntry, SubmitterEffect>,
    ) -> Result<(), Crashed> {
        for entry in step.entries {
            self.maybe_crash(Self::kill_submitter)?;
            if let super::entry::SubmitterChange::Final { outcome, started } = &entry.change {
                let before = self.ends.insert(n, (outcome.clone(), *started));
                assert_eq!(before, None, "unit {n} ended twice");
            }
            self.submitter_disk.entry(n).or_default().push(entry);
        }
        for effect in step.effects {
            self.maybe_crash(Self::kill_submitter)?;
            match effect {
                SubmitterEffect::Request(request) => {
                    let spec = Box::new(self.specs[&n].clone());
                    self.to_executor.push_back((n, ToExecutor::Request(request, spec)));
                }
                SubmitterEffect::SendPayload { offset, store } => {
                    for offset in offset..self.specs[&n].payload_len {
                        self.to_executor.push_back((n, ToExecutor::Piece { offset }));
                    }
                    self.user(n, SubmitterInput::PayloadSent { store });
                }
                SubmitterEffect::Finish => self.to_executor.push_back((n, ToExecutor::Finish)),
                SubmitterEffect::Publish => {}
                SubmitterEffect::Remove => {
                    self.submitter_disk.remove(&n);
                    if let Some(units) = &mut self.submitter {
                        units.remove(&n);
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver_to_submitter(&mut self) {
        if self.submitter.is_none() {
            return;
        }
        if let Some((n, store, answer)) = self.to_submitter.pop_front() {
            self.user(n, SubmitterInput::Answer { store, answer });
        }
    }

    fn deliver_to_executor(&mut self) {
        if self.executor.is_none() {
            return;
        }
        let Some((n, message)) = self.to_executor.pop_front() else { return };
        match message {
            ToExecutor::Request(request, spec) => self.on_request(n, request, *spec),
            ToExecutor::Piece { offset } => {
                let Some(stored) = self.disk.payloads.get_mut(&n) else { return };
                assert!(offset <= *stored, "unit {n} has a gap in its payload");
                *stored = (*stored).max(offset + 1);
                let offset = *stored;
                self.executor_input(n, ExecutorInput::Stored { offset });
            }
            ToExecutor::Finish => {
                if self.disk.payloads.get(&n) == Some(&self.specs[&n].payload_len) {
                    self.executor_input(n, ExecutorInput::Complete);
                }
            }
        }
    }

    fn on_request(&mut self, n: u128, request: Request, spec: UnitSpec) {
        let known = self.executor.as_ref().is_some_and(|executor| executor.units.contains_key(&n));
        let death = self.disk.tombstones.get(&key(n));
        match request {
            _ if known => {
                let input = match request {
                    Request::Offer { .. } => ExecutorInput::Offer { hash: spec.hash() },
                    Request::Cancel { grace_ms, .. } => ExecutorInput::Cancel { grace_ms },
                    Request::Release { force } => ExecutorInput::Release { force },
                    Request::Watch => {
                        let unit = &self.executor.as_ref().expect("it is up").units[&n];
                        let status = unit.status();
                        self.answer(n, Answer::Status(status));
                        return;
                    }
                };
                self.executor_input(n, input);
            }
            Request::Offer { .. } | Request::Cancel { .. }
                if death == Some(Death::NeverAccepted) =>
            {
                self.answer(n, Answer::NeverAccepted);
            }
            Request::Offer { .. } if death.is_some() => {
                self.answer(n, Answer::Refused(UnitRefusal::Released));
            }
            Request::Offer { start_within_ms } => {
                let (unit, step) = ExecutorUnit::offered(spec, start_within_ms, self.now);
                self.executor.as_mut().expect("it is up").units.insert(n, unit);
                self.disk.payloads.insert(n, 0);
                self.perform_executor(n, step);
            }
            _ if death.is_some() => self.answer(n, Answer::Released),
            Request::Cancel { start_within_ms, .. } => {
                let until = self.now.plus(start_within_ms).plus(1_000);
                self.disk.tombstones.insert(key(n), until, Death::NeverAccepted);
                self.answer(n, Answer::NeverAccepted);
            }
            Request::Watch | Request::Release { .. } => self.answer(n, Answer::Unknown),
        }
    }

    fn answer(&mut self, n: u128, answer: Answer) {
        if self.link_up {
            self.to_submitter.push_back((n, self.disk.store, answer));
        }
    }

    fn executor_input(&mut self, n: u128, input: ExecutorInput) {
        let Some(unit) = self.executor.as_mut().and_then(|executor| executor.units.get_mut(&n))
        else {
            return;
        };
        let step = unit.handle(input, self.now);
        self.perform_executor(n, step);
    }

    fn perform_executor(
        &mut self,
        n: u128,
        step: super::entry::Step<ExecutorEntry, ExecutorEffect>,
    ) {
        let _ = self.try_perform_executor(n, step);
    }

    fn try_perform_executor(
        &mut self,
        n: u128,
        step: super::entry::Step<ExecutorEntry, ExecutorEffect>,
    ) -> Result<(), Crashed> {
        for entry in step.entries {
            self.maybe_crash(Self::kill_executor)?;
            self.disk.journals.entry(n).or_default().push(entry);
        }
        for effect in step.effects {
            self.maybe_crash(Self::kill_executor)?;
            let Some(executor) = &mut self.executor else { return Err(Crashed) };
            match effect {
                ExecutorEffect::Answer(answer) => self.answer(n, answer),
                ExecutorEffect::Publish => {
                    let status = executor.units[&n].status();
                    if status.outcome().is_some() {
                        executor.queue.remove(&self.specs[&n].directive, &key(n));
                    }
                    self.answer(n, Answer::Status(status));
                }
                ExecutorEffect::Enqueue => {
                    executor.queue.enqueue(&self.specs[&n].directive, key(n))
                }
                ExecutorEffect::Dequeue => {
                    executor.queue.remove(&self.specs[&n].directive, &key(n))
                }
                ExecutorEffect::Start { attempt } if self.handlers >> n & 1 == 1 => {
                    let phase = Phase::Locked;
                    self.supervisors.push(Supervisor { unit: n, attempt, phase, terminate: false });
                }
                ExecutorEffect::Start { attempt } => {
                    executor.spawned.insert((n, attempt));
                    if !self.rng.one_in(20) {
                        let phase = Phase::Forked;
                        self.supervisors.push(Supervisor {
                            unit: n,
                            attempt,
                            phase,
                            terminate: false,
                        });
                    }
                }
                ExecutorEffect::Adopt { attempt } => {
                    executor.spawned.insert((n, attempt));
                }
                ExecutorEffect::Fence { attempt } => {
                    let void = self.disk.create_run((n, attempt), RunFile::Fence);
                    // The node may die between the fence and what it makes of it.
                    self.maybe_crash(Self::kill_executor)?;
                    if !void || !self.disk.exits.contains_key(&(n, attempt)) {
                        self.executor_input(n, ExecutorInput::Fenced { attempt, void });
                    }
                }
                ExecutorEffect::Terminate { attempt, .. } => {
                    let of_attempt = |supervisor: &&mut Supervisor| {
                        supervisor.unit == n && supervisor.attempt == attempt
                    };
                    self.supervisors
                        .iter_mut()
                        .filter(of_attempt)
                        .for_each(|it| it.terminate = true);
                }
                ExecutorEffect::Remove { tombstone_until } => {
                    self.disk.tombstones.insert(key(n), tombstone_until, Death::Removed);
                    self.maybe_crash(Self::kill_executor)?;
                    self.disk.remove(n);
                    if let Some(executor) = &mut self.executor {
                        executor.units.remove(&n);
                    }
                }
            }
        }
        Ok(())
    }

    fn give_turns(&mut self) {
        let directive = "test:run".parse().expect("valid");
        let Some(executor) = &mut self.executor else { return };
        if let Some(key) = executor.queue.next(&directive, 2) {
            self.executor_input(key.id.as_u128(), ExecutorInput::Turn);
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

    /// A supervisor takes its next step.
    fn run_supervisor(&mut self) {
        if self.supervisors.is_empty() {
            return;
        }
        let index = self.rng.below(self.supervisors.len() as u64) as usize;
        let (unit, attempt) = (self.supervisors[index].unit, self.supervisors[index].attempt);
        if self.handlers >> unit & 1 == 1 {
            return self.run_handler(index, unit, attempt);
        }
        match self.supervisors[index].phase {
            Phase::Forked => {
                if self.is_locked(unit) || !self.disk.journals.contains_key(&unit) {
                    self.supervisors.remove(index);
                } else {
                    self.supervisors[index].phase = Phase::Locked;
                }
            }
            Phase::Locked => {
                if self.disk.create_run((unit, attempt), RunFile::Supervisor) {
                    self.supervisors[index].phase = Phase::RunCreated;
                } else {
                    self.supervisors.remove(index);
                }
            }
            Phase::RunCreated => {
                self.supervisors[index].phase = Phase::Executing;
                self.execute(unit);
            }
            Phase::Executing => {
                let terminated = self.supervisors[index].terminate;
                if !terminated && !self.rng.one_in(6) {
                    return;
                }
                let end = match (terminated, self.rng.below(3)) {
                    (_, 0) => ExitKind::Status(0),
                    (true, _) => ExitKind::Signal(15),
                    (false, _) => ExitKind::Status(7),
                };
                if end == ExitKind::Status(0) {
                    self.succeeded.insert(unit);
                }
                self.disk.exits.insert((unit, attempt), Exit { end, terminated });
                self.supervisors.remove(index);
            }
        }
    }

    /// A task that runs a handler takes its next step. It ends with the executor.
    fn run_handler(&mut self, index: usize, unit: u128, attempt: u32) {
        match self.supervisors[index].phase {
            Phase::Forked | Phase::Locked => {
                self.supervisors[index].phase = Phase::RunCreated;
                self.executor_input(unit, ExecutorInput::Calling { attempt });
            }
            Phase::RunCreated if self.crash_one_in > 0 && self.rng.one_in(10) => {
                // The node is shutting down.
                self.executor_input(unit, ExecutorInput::NotCalled { attempt });
                self.kill_executor();
            }
            Phase::RunCreated => {
                self.supervisors[index].phase = Phase::Executing;
                self.execute(unit);
            }
            Phase::Executing => {
                let terminated = self.supervisors[index].terminate;
                if !terminated && !self.rng.one_in(6) {
                    return;
                }
                let end = match (terminated, self.rng.below(3)) {
                    (_, 0) => ExitKind::Status(0),
                    (true, _) => ExitKind::Signal(15),
                    (false, _) => ExitKind::Handler("failed".into()),
                };
                if end == ExitKind::Status(0) {
                    self.succeeded.insert(unit);
                }
                let exit = Exit { end, terminated };
                self.executor_input(unit, ExecutorInput::Exited { attempt, exit });
                // It holds the lock until its end is recorded.
                self.supervisors.retain(|it| (it.unit, it.attempt) != (unit, attempt));
            }
        }
    }

    fn execute(&mut self, n: u128) {
        let executed = self.executed.entry(n).or_default();
        *executed += 1;
        assert!(*executed == 1 || self.specs[&n].idempotent, "unit {n} was started twice");
        let running =
            self.supervisors.iter().filter(|it| it.unit == n && it.phase == Phase::Executing);
        assert!(running.count() <= 1, "unit {n} runs twice at a time");
        if let Some((outcome, started)) = self.ends.get(&n) {
            assert!(*started, "unit {n} was started although it ended as {outcome:?}");
        }
    }

    /// The executor looks after the attempts that it is in charge of.
    fn watch_supervisors(&mut self) {
        let Some(executor) = &self.executor else { return };
        let attempts: Vec<(u128, u32)> = executor
            .units
            .iter()
            .filter_map(|(n, unit)| unit.attempt().map(|attempt| (*n, attempt)))
            .filter(|attempt| executor.spawned.contains(attempt))
            .collect();
        for (n, attempt) in attempts {
            let found = self.found(n, attempt);
            let alive = self.supervisors.iter().any(|it| it.unit == n && it.attempt == attempt);
            let input = match found {
                Found { exit: Some(exit), .. } => ExecutorInput::Exited { attempt, exit },
                Found { run: RunFile::Fence, .. } => ExecutorInput::Fenced { attempt, void: true },
                Found { run: RunFile::Supervisor, locked: true, .. } => {
                    ExecutorInput::Started { attempt }
                }
                Found { run: RunFile::Supervisor, .. } => ExecutorInput::Vanished { attempt },
                Found { run: RunFile::Absent, .. } if !alive => {
                    ExecutorInput::SpawnFailed { attempt, text: "no such file".into() }
                }
                Found { run: RunFile::Absent, .. } => continue,
            };
            self.executor_input(n, input);
        }
    }

    fn found(&self, n: u128, attempt: u32) -> Found {
        Found {
            run: self.disk.runs.get(&(n, attempt)).copied().unwrap_or(RunFile::Absent),
            locked: self.is_locked(n),
            exit: self.disk.exits.get(&(n, attempt)).cloned(),
        }
    }

    fn is_locked(&self, n: u128) -> bool {
        self.supervisors.iter().any(|it| it.unit == n && it.phase != Phase::Forked)
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

    fn start_submitter(&mut self) {
        if self.submitter.is_some() {
            return;
        }
        let replay =
            |entries: &Vec<SubmitterEntry>| SubmitterUnit::replay(entries).expect("it replays");
        let units = self.submitter_disk.iter().map(|(n, entries)| (*n, replay(entries)));
        self.submitter = Some(units.collect());
    }

    fn start_executor(&mut self) {
        if self.executor.is_some() {
            return;
        }
        self.executor = Some(ExecutorProcess::default());
        let units: Vec<u128> = self.disk.journals.keys().copied().collect();
        for n in units {
            if self.disk.tombstones.get(&key(n)) == Some(Death::Removed) {
                // It died between the tombstone and the removal.
                self.disk.remove(n);
                continue;
            }
            let mut unit = ExecutorUnit::replay(&self.disk.journals[&n]).expect("it replays");
            let found = unit
                .attempt_on_disk()
                .map_or(Found { run: RunFile::Absent, locked: false, exit: None }, |attempt| {
                    self.found(n, attempt)
                });
            let step = unit.resume(self.disk.payloads[&n], &found, self.now);
            let running = unit.attempt().is_some();
            let Some(executor) = &mut self.executor else { return };
            if running {
                executor.queue.resume(&self.specs[&n].directive, key(n));
            }
            executor.units.insert(n, unit);
            self.perform_executor(n, step);
        }
    }

    fn kill_submitter(&mut self) {
        self.set_link(false);
        self.submitter = None;
    }

    fn kill_executor(&mut self) {
        self.executor = None;
        self.set_link(false);
        for handler in self.supervisors.extract_if(.., |it| self.handlers >> it.unit & 1 == 1) {
            // Any other handler was not called, and is called by the next process.
            let journal = self.disk.journals.get(&handler.unit).into_iter().flatten();
            let last = journal.rev().find_map(|entry| match entry.change {
                ExecutorChange::Called { .. } => Some(true),
                ExecutorChange::Starting { .. } | ExecutorChange::NotCalled { .. } => Some(false),
                _ => None,
            });
            if last == Some(true) {
                self.hurt.insert(handler.unit);
            }
        }
    }

    fn kill_supervisor(&mut self) {
        if !self.supervisors.is_empty() {
            let index = self.rng.below(self.supervisors.len() as u64) as usize;
            // A handler ends with its process only.
            if self.handlers >> self.supervisors[index].unit & 1 == 0 {
                self.hurt.insert(self.supervisors.remove(index).unit);
            }
        }
    }

    /// The executor's host goes down. What was synced remains.
    fn lose_power(&mut self) {
        self.kill_executor();
        while !self.supervisors.is_empty() {
            self.kill_supervisor();
        }
        let journals = self.disk.journals.values_mut();
        journals.for_each(|journal| lose_unsynced(journal, &mut self.rng));
    }

    /// The submitter's host goes down. What was synced remains.
    fn lose_submitter_power(&mut self) {
        self.kill_submitter();
        let journals = self.submitter_disk.values_mut();
        journals.for_each(|journal| lose_unsynced(journal, &mut self.rng));
    }

    fn lose_disk(&mut self) {
        self.lose_power();
        let units: Vec<u128> = self.specs.keys().copied().collect();
        self.hurt.extend(units);
        self.disk = ExecutorDisk::new(self.disk.store.0.as_u128() + 1);
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
