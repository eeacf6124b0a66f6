//! The executor's process: its units, its disk and what it starts.

use super::*;

impl World {
    pub(super) fn deliver_to_executor(&mut self) {
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

    pub(super) fn on_request(&mut self, n: u128, request: Request, spec: UnitSpec) {
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

    pub(super) fn answer(&mut self, n: u128, answer: Answer) {
        if self.link_up {
            self.to_submitter.push_back((n, self.disk.store, answer));
        }
    }

    pub(super) fn executor_input(&mut self, n: u128, input: ExecutorInput) {
        let Some(unit) = self.executor.as_mut().and_then(|executor| executor.units.get_mut(&n))
        else {
            return;
        };
        let step = unit.handle(input, self.now);
        self.perform_executor(n, step);
    }

    pub(super) fn perform_executor(&mut self, n: u128, step: Step<ExecutorEntry, ExecutorEffect>) {
        let _ = self.try_perform_executor(n, step);
    }

    pub(super) fn try_perform_executor(
        &mut self,
        n: u128,
        step: Step<ExecutorEntry, ExecutorEffect>,
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

    pub(super) fn give_turns(&mut self) {
        let directive = "test:run".parse().expect("valid");
        let Some(executor) = &mut self.executor else { return };
        if let Some(key) = executor.queue.next(&directive, 2) {
            self.executor_input(key.id.as_u128(), ExecutorInput::Turn);
        }
    }

    /// The executor looks after the attempts that it is in charge of.
    pub(super) fn watch_supervisors(&mut self) {
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

    pub(super) fn start_executor(&mut self) {
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

    pub(super) fn kill_executor(&mut self) {
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

    /// The executor's host goes down. What was synced remains.
    pub(super) fn lose_power(&mut self) {
        self.kill_executor();
        while !self.supervisors.is_empty() {
            self.kill_supervisor();
        }
        let journals = self.disk.journals.values_mut();
        journals.for_each(|journal| lose_unsynced(journal, &mut self.rng));
    }

    pub(super) fn lose_disk(&mut self) {
        self.lose_power();
        let units: Vec<u128> = self.specs.keys().copied().collect();
        self.hurt.extend(units);
        self.disk = ExecutorDisk::new(self.disk.store.0.as_u128() + 1);
    }
}
