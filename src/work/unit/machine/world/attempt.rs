//! Attempts: supervisors, which outlive the executor's process, and handlers, which do not.

use super::*;

impl World {
    /// A supervisor takes its next step.
    pub(super) fn run_supervisor(&mut self) {
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
    pub(super) fn run_handler(&mut self, index: usize, unit: u128, attempt: u32) {
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

    pub(super) fn execute(&mut self, n: u128) {
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

    pub(super) fn found(&self, n: u128, attempt: u32) -> Found {
        Found {
            run: self.disk.runs.get(&(n, attempt)).copied().unwrap_or(RunFile::Absent),
            locked: self.is_locked(n),
            exit: self.disk.exits.get(&(n, attempt)).cloned(),
        }
    }

    pub(super) fn is_locked(&self, n: u128) -> bool {
        self.supervisors.iter().any(|it| it.unit == n && it.phase != Phase::Forked)
    }

    pub(super) fn kill_supervisor(&mut self) {
        if !self.supervisors.is_empty() {
            let index = self.rng.below(self.supervisors.len() as u64) as usize;
            // A handler ends with its process only.
            if self.handlers >> self.supervisors[index].unit & 1 == 0 {
                self.hurt.insert(self.supervisors.remove(index).unit);
            }
        }
    }
}
