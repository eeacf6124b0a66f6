//! The submitter's process: its units, its disk and what it sends.

use super::*;

impl World {
    pub(super) fn submit(&mut self, n: u128) {
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

    pub(super) fn user(&mut self, n: u128, input: SubmitterInput) {
        let Some(unit) = self.submitter.as_mut().and_then(|units| units.get_mut(&n)) else {
            return;
        };
        let step = unit.handle(input, self.now);
        let _ = self.perform_submitter(n, step);
    }

    pub(super) fn perform_submitter(
        &mut self,
        n: u128,
        step: Step<SubmitterEntry, SubmitterEffect>,
    ) -> Result<(), Crashed> {
        for entry in step.entries {
            self.maybe_crash(Self::kill_submitter)?;
            if let SubmitterChange::Final { outcome, started } = &entry.change {
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

    pub(super) fn deliver_to_submitter(&mut self) {
        if self.submitter.is_none() {
            return;
        }
        if let Some((n, store, answer)) = self.to_submitter.pop_front() {
            self.user(n, SubmitterInput::Answer { store, answer });
        }
    }

    pub(super) fn start_submitter(&mut self) {
        if self.submitter.is_some() {
            return;
        }
        let replay =
            |entries: &Vec<SubmitterEntry>| SubmitterUnit::replay(entries).expect("it replays");
        let units = self.submitter_disk.iter().map(|(n, entries)| (*n, replay(entries)));
        self.submitter = Some(units.collect());
    }

    pub(super) fn kill_submitter(&mut self) {
        self.set_link(false);
        self.submitter = None;
    }

    /// The submitter's host goes down. What was synced remains.
    pub(super) fn lose_submitter_power(&mut self) {
        self.kill_submitter();
        let journals = self.submitter_disk.values_mut();
        journals.for_each(|journal| lose_unsynced(journal, &mut self.rng));
    }
}
