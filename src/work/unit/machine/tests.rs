//! What the machines of both ends do, one rule a test. Their interplay under crashes is in `world`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::entry::{Answer, DamagedJournal, ExecutorChange, ExecutorEntry, StoreId};
use super::executor::{
    ExecutorEffect, ExecutorInput, ExecutorUnit, Exit, ExitKind, Found, RunFile,
};
use super::submitter::{Request, SubmitterEffect, SubmitterInput, SubmitterUnit};
use super::time::UnitTime;
use crate::work::unit::outcome::{Failure, Outcome, Report, ReportState, UnitRefusal};
use crate::work::unit::spec::{InvalidSpec, SpecHash, UnitSpec};

const T0: UnitTime = UnitTime(1_000);
const START_BY: u64 = 500;
const STORE: StoreId = StoreId(Uuid::from_u128(1));
const OTHER_STORE: StoreId = StoreId(Uuid::from_u128(2));

#[test]
fn a_unit_is_accepted_once_its_payload_is_complete_and_starts_in_its_turn() {
    let mut unit = offered(spec());
    let _ = unit.handle(ExecutorInput::Stored { offset: 9 }, T0);
    assert_eq!(unit.status().state, ReportState::Receiving { offset: 9 });
    let step = unit.handle(ExecutorInput::Complete, T0);
    assert_eq!(changes(&step.entries), [&ExecutorChange::Accepted]);
    assert!(step.effects.contains(&ExecutorEffect::Enqueue));
    let step = unit.handle(ExecutorInput::Turn, T0);
    assert_eq!(changes(&step.entries), [&ExecutorChange::Starting { attempt: 1 }]);
    assert!(step.effects.contains(&ExecutorEffect::Start { attempt: 1 }));
    let _ = unit.handle(ExecutorInput::Started { attempt: 1 }, T0);
    assert_eq!(unit.status().state, ReportState::Running);
    let _ = unit.handle(exited(ExitKind::Status(0), false), T0);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Succeeded));
}

#[test]
fn the_same_offer_is_the_same_unit_and_another_one_a_conflict() {
    let mut unit = offered(spec());
    let step = unit.handle(ExecutorInput::Offer { hash: spec().hash() }, T0);
    assert_eq!(step.effects, [ExecutorEffect::Answer(Answer::Have { offset: 0 })]);
    let step = unit.handle(ExecutorInput::Offer { hash: SpecHash([1; 32]) }, T0);
    assert_eq!(step.effects, [ExecutorEffect::Answer(Answer::Refused(UnitRefusal::Conflict))]);
    assert_ne!(spec().hash(), UnitSpec { payload_len: 11, ..spec() }.hash());
}

#[test]
fn a_unit_that_did_not_start_in_time_expires_and_never_starts() {
    for input in [ExecutorInput::Tick, ExecutorInput::Turn] {
        let mut unit = accepted(spec());
        assert_eq!(unit.deadline(), Some(T0.plus(START_BY)));
        let step = unit.handle(input, T0.plus(START_BY));
        assert!(step.effects.contains(&ExecutorEffect::Dequeue));
        assert_eq!(unit.status().outcome(), Some(&Outcome::Expired));
        assert!(unit.handle(ExecutorInput::Turn, T0).entries.is_empty());
    }
    let mut unit = offered(spec());
    let _ = unit.handle(ExecutorInput::Complete, T0.plus(START_BY));
    assert_eq!(unit.status().outcome(), Some(&Outcome::Expired));
}

#[test]
fn an_executor_never_grants_more_time_than_the_spec() {
    let (unit, _) = ExecutorUnit::offered(spec(), u64::MAX, T0);
    assert_eq!(unit.deadline(), Some(T0.plus(START_BY)));
}

#[test]
fn a_cancelled_unit_that_has_not_started_ends_at_once() {
    for mut unit in [offered(spec()), accepted(spec())] {
        let step = unit.handle(ExecutorInput::Cancel { grace_ms: 5 }, T0);
        assert_eq!(unit.status().outcome(), Some(&Outcome::Cancelled));
        let answer = ExecutorEffect::Answer(Answer::Status(unit.status()));
        assert!(step.effects.contains(&answer), "{step:?}");
        assert!(!unit.status().started);
    }
}

#[test]
fn a_cancelled_attempt_is_terminated_and_again_once_its_supervisor_is_there() {
    let mut unit = starting(spec());
    let terminate = ExecutorEffect::Terminate { attempt: 1, grace_ms: 5 };
    assert!(unit.handle(ExecutorInput::Cancel { grace_ms: 5 }, T0).effects.contains(&terminate));
    assert!(unit.handle(ExecutorInput::Started { attempt: 1 }, T0).effects.contains(&terminate));
    let _ = unit.handle(exited(ExitKind::Signal(15), true), T0);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Cancelled));
    assert!(unit.status().started);
}

#[test]
fn a_command_that_ends_well_has_succeeded_although_it_was_cancelled() {
    let mut unit = starting(spec());
    let _ = unit.handle(ExecutorInput::Cancel { grace_ms: 5 }, T0);
    let _ = unit.handle(exited(ExitKind::Status(0), true), T0);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Succeeded));
}

#[test]
fn a_supervisor_that_vanishes_makes_the_unit_lost() {
    let mut unit = starting(spec());
    let _ = unit.handle(ExecutorInput::Vanished { attempt: 1 }, T0);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Lost));
}

#[test]
fn an_idempotent_unit_is_attempted_again_a_bounded_number_of_times() {
    let mut unit = starting(UnitSpec { idempotent: true, ..spec() });
    let mut attempts = 1;
    while let Some(attempt) = unit.attempt() {
        attempts = attempt;
        let stale = unit.handle(ExecutorInput::Vanished { attempt: attempt + 1 }, T0);
        assert!(stale.entries.is_empty());
        let _ = unit.handle(ExecutorInput::Vanished { attempt }, T0);
    }
    assert_eq!(attempts, crate::work::unit::limits::MAX_ATTEMPTS);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Lost));
}

#[test]
fn a_supervisor_that_did_not_start_is_fenced_before_the_unit_fails() {
    let mut unit = starting(spec());
    let failed = ExecutorInput::SpawnFailed { attempt: 1, text: "no memory".into() };
    let step = unit.handle(failed, T0);
    assert_eq!((step.entries.len(), step.effects), (0, vec![ExecutorEffect::Fence { attempt: 1 }]));
    let mut late = unit.clone();
    let step = late.handle(ExecutorInput::Fenced { attempt: 1, void: false }, T0);
    assert_eq!(step.effects, [ExecutorEffect::Adopt { attempt: 1 }]);
    let _ = unit.handle(ExecutorInput::Fenced { attempt: 1, void: true }, T0);
    let failure = Failure::NotStarted("no memory".into());
    assert_eq!(unit.status().outcome(), Some(&Outcome::Failed(failure)));
    assert!(!unit.status().started);
}

#[test]
fn a_restarted_executor_goes_by_what_is_on_disk() {
    let exit = Exit { end: ExitKind::Status(3), terminated: false };
    let found = |run, locked| Found { run, locked, exit: None };
    let resume = |found: &Found| {
        let mut unit = starting(spec());
        let step = unit.resume(10, found, T0);
        (step.effects, unit.status().state)
    };
    let (effects, state) = resume(&found(RunFile::Absent, false));
    assert_eq!(
        (effects, state),
        (vec![ExecutorEffect::Start { attempt: 1 }], ReportState::Starting)
    );
    let (effects, state) = resume(&found(RunFile::Supervisor, true));
    assert!(effects.contains(&ExecutorEffect::Adopt { attempt: 1 }));
    assert_eq!(state, ReportState::Running);
    let (_, state) = resume(&found(RunFile::Supervisor, false));
    assert_eq!(state, ReportState::Final(Outcome::Lost));
    let (_, state) = resume(&Found { exit: Some(exit), ..found(RunFile::Supervisor, false) });
    assert_eq!(state, ReportState::Final(Outcome::Failed(Failure::Exit(3))));
    let (_, state) = resume(&found(RunFile::Fence, false));
    assert!(
        matches!(state, ReportState::Final(Outcome::Failed(Failure::NotStarted(_)))),
        "{state:?}"
    );
}

#[test]
fn a_running_unit_is_released_by_force_alone() {
    let mut unit = starting(spec());
    assert!(unit.handle(ExecutorInput::Release { force: false }, T0).entries.is_empty());
    let step = unit.handle(ExecutorInput::Release { force: true }, T0);
    assert!(step.effects.contains(&ExecutorEffect::Terminate { attempt: 1, grace_ms: 0 }));
    let step = unit.handle(exited(ExitKind::Signal(9), true), T0);
    assert!(step.effects.iter().any(|effect| matches!(effect, ExecutorEffect::Remove { .. })));
}

#[test]
fn a_unit_is_removed_when_it_is_not_kept_any_more() {
    let mut unit = starting(spec());
    let _ = unit.handle(exited(ExitKind::Status(0), false), T0);
    let due = unit.deadline().unwrap();
    assert_eq!(due, T0.plus(spec().keep_for_ms));
    assert!(unit.handle(ExecutorInput::Tick, UnitTime(due.0 - 1)).effects.is_empty());
    let step = unit.handle(ExecutorInput::Tick, due);
    // Longer than an offer can be under way.
    let until = due.plus(crate::work::unit::limits::TOMBSTONE_MARGIN_MS);
    assert_eq!(step.effects, [ExecutorEffect::Remove { tombstone_until: until }]);
}

#[test]
fn a_journal_that_breaks_the_rules_is_not_replayed() {
    let entry = |change| ExecutorEntry { at: T0, change };
    let first = entry(ExecutorChange::Offered { spec: spec(), start_by: T0 });
    assert_eq!(ExecutorUnit::replay(&[]), Err(DamagedJournal::Empty));
    let accepted = entry(ExecutorChange::Accepted);
    assert_eq!(
        ExecutorUnit::replay(std::slice::from_ref(&accepted)),
        Err(DamagedJournal::OutOfOrder { index: 0 })
    );
    let twice = [first.clone(), accepted.clone(), accepted];
    assert_eq!(ExecutorUnit::replay(&twice), Err(DamagedJournal::OutOfOrder { index: 2 }));
    let jump = [first, entry(ExecutorChange::Running { attempt: 1 })];
    assert_eq!(ExecutorUnit::replay(&jump), Err(DamagedJournal::OutOfOrder { index: 1 }));
}

#[test]
fn a_submitter_journals_before_it_finishes_the_payload() {
    let mut unit = queued();
    let step = unit.handle(SubmitterInput::Up, T0.plus(100));
    let offer = Request::Offer { start_within_ms: START_BY - 100 };
    assert_eq!(step.effects, [SubmitterEffect::Request(offer)]);
    let step = answer(&mut unit, STORE, Answer::Have { offset: 4 });
    assert_eq!(step, [SubmitterEffect::SendPayload { offset: 4, store: STORE }]);
    let step = unit.handle(SubmitterInput::PayloadSent { store: STORE }, T0);
    assert_eq!(step.entries.len(), 1);
    assert_eq!(step.effects.last(), Some(&SubmitterEffect::Finish));
}

#[test]
fn a_unit_whose_payload_is_not_finished_ends_without_asking_anybody() {
    let mut unit = queued();
    let _ = unit.handle(SubmitterInput::Cancel { grace_ms: 0 }, T0);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Cancelled));
    let mut unit = queued();
    let _ = unit.handle(SubmitterInput::Up, T0);
    answer(&mut unit, STORE, Answer::Have { offset: 0 });
    let _ = unit.handle(SubmitterInput::Tick, T0.plus(START_BY));
    assert_eq!(unit.status().outcome(), Some(&Outcome::Expired));
    let step = unit.handle(SubmitterInput::PayloadSent { store: STORE }, T0.plus(START_BY));
    assert!(!step.effects.contains(&SubmitterEffect::Finish));
}

#[test]
fn a_unit_that_may_have_been_accepted_is_decided_by_the_executor() {
    let mut unit = handed();
    let _ = unit.handle(SubmitterInput::Down, T0);
    let _ = unit.handle(SubmitterInput::Cancel { grace_ms: 7 }, T0);
    let _ = unit.handle(SubmitterInput::Tick, T0.plus(START_BY));
    assert!(!unit.is_final());
    let step = unit.handle(SubmitterInput::Up, T0.plus(START_BY));
    let cancel = Request::Cancel { grace_ms: 7, start_within_ms: 0 };
    assert_eq!(step.effects, [SubmitterEffect::Request(cancel)]);
    answer(&mut unit, STORE, Answer::NeverAccepted);
    assert_eq!(unit.status().outcome(), Some(&Outcome::Cancelled));
    assert!(!unit.status().started);
}

#[test]
fn an_executor_with_another_store_is_not_offered_a_unit_that_was_handed_over() {
    for reply in [Answer::Have { offset: 0 }, Answer::NeverAccepted, Answer::Unknown] {
        let mut unit = handed();
        let _ = unit.handle(SubmitterInput::Down, T0);
        let _ = unit.handle(SubmitterInput::Up, T0);
        answer(&mut unit, OTHER_STORE, reply);
        assert_eq!(unit.status().outcome(), Some(&Outcome::Lost));
    }
}

#[test]
fn an_older_status_changes_nothing() {
    let mut unit = handed();
    answer(&mut unit, STORE, Answer::Status(status(5, ReportState::Running)));
    answer(&mut unit, STORE, Answer::Status(status(4, ReportState::Accepted)));
    assert_eq!(unit.status().state, ReportState::Running);
}

#[test]
fn a_busy_executor_is_asked_again_when_the_caller_says_so() {
    let mut unit = queued();
    let _ = unit.handle(SubmitterInput::Up, T0);
    assert_eq!(answer(&mut unit, STORE, Answer::Busy), []);
    let step = unit.handle(SubmitterInput::Up, T0);
    assert!(matches!(step.effects[..], [SubmitterEffect::Request(Request::Offer { .. })]));
}

#[test]
fn a_release_is_passed_on_and_then_the_unit_is_gone() {
    let mut unit = handed();
    answer(&mut unit, STORE, Answer::Status(status(9, ReportState::Final(Outcome::Succeeded))));
    let step = unit.handle(SubmitterInput::Release { force: false }, T0);
    let release = SubmitterEffect::Request(Request::Release { force: false });
    assert_eq!(step.effects.last(), Some(&release));
    assert_eq!(answer(&mut unit, STORE, Answer::Released), [SubmitterEffect::Remove]);
}

#[test]
fn a_start_that_is_not_in_the_journal_is_known_by_its_run_file() {
    let found = |run, exit| Found { run, locked: false, exit };
    let late = T0.plus(START_BY);
    let resume = |cancelled: bool, found: &Found| {
        let mut unit = accepted(spec());
        if cancelled {
            // As if the cancellation had been recorded, and the node had died before the end.
            unit = ExecutorUnit::replay(&journal(&[
                ExecutorChange::Offered { spec: spec(), start_by: late },
                ExecutorChange::Accepted,
                ExecutorChange::CancelWanted { grace_ms: 0 },
            ]))
            .unwrap();
        }
        let step = unit.resume(10, found, late);
        assert_eq!(changes(&step.entries)[0], &ExecutorChange::Starting { attempt: 1 });
        assert!(!step.effects.iter().any(|effect| matches!(effect, ExecutorEffect::Start { .. })));
        (unit.status().outcome().cloned(), unit.status().started)
    };
    // Its time is over, and it was cancelled: without the file it would count as never started.
    for cancelled in [false, true] {
        let ended = Some(Exit { end: ExitKind::Status(0), terminated: false });
        assert_eq!(
            resume(cancelled, &found(RunFile::Supervisor, None)),
            (Some(Outcome::Lost), true)
        );
        assert_eq!(
            resume(cancelled, &found(RunFile::Supervisor, ended)),
            (Some(Outcome::Succeeded), true)
        );
    }
    assert!(!resume(false, &found(RunFile::Fence, None)).1);
}

#[test]
fn a_handler_that_may_have_been_called_is_not_called_again() {
    let journal = |last: &[ExecutorChange]| {
        let first = [
            ExecutorChange::Offered { spec: spec(), start_by: T0.plus(START_BY) },
            ExecutorChange::Accepted,
            ExecutorChange::Starting { attempt: 1 },
        ];
        journal(&[&first, last].concat())
    };
    let nothing = Found { run: RunFile::Absent, locked: false, exit: None };
    let resume = |last: &[ExecutorChange], found: &Found| {
        let mut unit = ExecutorUnit::replay(&journal(last)).unwrap();
        let step = unit.resume(10, found, T0);
        let starts = step.effects.contains(&ExecutorEffect::Start { attempt: 1 });
        (starts, unit.status().outcome().cloned())
    };
    let (called, not_called) =
        (ExecutorChange::Called { attempt: 1 }, ExecutorChange::NotCalled { attempt: 1 });
    assert_eq!(resume(&[], &nothing), (true, None));
    assert_eq!(resume(std::slice::from_ref(&called), &nothing), (false, Some(Outcome::Lost)));
    let cancelled = [called.clone(), ExecutorChange::CancelWanted { grace_ms: 0 }];
    assert_eq!(resume(&cancelled, &nothing), (false, Some(Outcome::Lost)));
    // Its task goes on after a failed write.
    let locked = Found { locked: true, ..nothing.clone() };
    assert_eq!(resume(std::slice::from_ref(&called), &locked), (false, None));
    assert_eq!(resume(&[called, not_called.clone()], &nothing), (true, None));
    let damaged = ExecutorUnit::replay(&journal(&[not_called]));
    assert_eq!(damaged, Err(DamagedJournal::OutOfOrder { index: 3 }));
}

#[test]
fn a_handler_that_was_not_called_is_due_again() {
    let mut unit = starting(spec());
    let step = unit.handle(ExecutorInput::Calling { attempt: 1 }, T0);
    assert_eq!(changes(&step.entries), [&ExecutorChange::Called { attempt: 1 }]);
    assert_eq!(unit.status().state, ReportState::Running);
    assert_eq!(unit.handle(ExecutorInput::Calling { attempt: 1 }, T0).entries, []);
    let step = unit.handle(ExecutorInput::NotCalled { attempt: 1 }, T0);
    assert_eq!(changes(&step.entries), [&ExecutorChange::NotCalled { attempt: 1 }]);
    assert_eq!(unit.status().state, ReportState::Starting);
    // A command that runs is not undone.
    let mut unit = starting(spec());
    let _ = unit.handle(ExecutorInput::Started { attempt: 1 }, T0);
    assert_eq!(unit.handle(ExecutorInput::NotCalled { attempt: 1 }, T0).entries, []);
}

#[test]
fn a_machine_that_has_ended_is_rebuilt_from_what_is_kept() {
    let spec = UnitSpec { labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..spec() };
    let executor = ExecutorUnit::replay(&journal(&[
        ExecutorChange::Offered { spec: spec.clone(), start_by: T0.plus(START_BY) },
        ExecutorChange::Accepted,
        ExecutorChange::Starting { attempt: 1 },
        ExecutorChange::CancelWanted { grace_ms: 7 },
        ExecutorChange::Final { outcome: Outcome::Cancelled, started: true },
    ]))
    .unwrap();
    let kept = executor.ended().expect("it has ended");
    assert_eq!((kept.report(), Some(kept.deadline())), (executor.status(), executor.deadline()));
    assert_eq!(ExecutorUnit::from(kept), executor);
    assert!(starting(spec).ended().is_none());

    let mut unit = handed();
    assert!(unit.ended().is_none());
    answer(&mut unit, STORE, Answer::Status(status(9, ReportState::Final(Outcome::Succeeded))));
    let kept = unit.ended().expect("it has ended");
    assert_eq!((kept.created(), Some(kept.deadline())), (unit.created(), unit.deadline()));
    let rebuilt = SubmitterUnit::from(kept);
    assert_eq!((rebuilt.spec(), rebuilt.since()), (unit.spec(), unit.since()));
    assert_eq!(rebuilt.status().outcome(), Some(&Outcome::Succeeded));
    let _ = unit.handle(SubmitterInput::Release { force: false }, T0);
    assert!(unit.ended().is_none());
}

#[test]
fn a_spec_is_bounded() {
    assert_eq!(spec().check(), Ok(()));
    let long = UnitSpec { keep_for_ms: 31 * 24 * 3_600_000, ..spec() };
    assert_eq!(long.check(), Err(InvalidSpec::TooLong { field: "keep-for" }));
    let label = |name: &str, value: usize| UnitSpec {
        labels: BTreeMap::from([(name.to_owned(), "v".repeat(value))]),
        ..spec()
    };
    assert_eq!(label("job.id", 256).check(), Ok(()));
    for bad in [label("job.id", 257), label("", 1), label("a b", 1)] {
        assert!(matches!(bad.check(), Err(InvalidSpec::BadLabel { .. })), "{bad:?}");
    }
    let many = (0..17).map(|n| (format!("l{n}"), String::new())).collect();
    let many = UnitSpec { labels: many, ..spec() };
    assert_eq!(many.check(), Err(InvalidSpec::TooManyLabels { found: 17 }));
}

fn spec() -> UnitSpec {
    UnitSpec {
        directive: "a:b".parse().unwrap(),
        payload_len: 10,
        payload_sha256: [0; 32],
        start_by_ms: START_BY,
        run_for_ms: None,
        keep_for_ms: 1_000,
        idempotent: false,
        labels: BTreeMap::new(),
    }
}

fn offered(spec: UnitSpec) -> ExecutorUnit {
    ExecutorUnit::offered(spec, START_BY, T0).0
}

fn accepted(spec: UnitSpec) -> ExecutorUnit {
    let mut unit = offered(spec);
    let _ = unit.handle(ExecutorInput::Complete, T0);
    unit
}

fn starting(spec: UnitSpec) -> ExecutorUnit {
    let mut unit = accepted(spec);
    let _ = unit.handle(ExecutorInput::Turn, T0);
    unit
}

fn journal(changes: &[ExecutorChange]) -> Vec<ExecutorEntry> {
    changes.iter().map(|change| ExecutorEntry { at: T0, change: change.clone() }).collect()
}

fn exited(end: ExitKind, terminated: bool) -> ExecutorInput {
    ExecutorInput::Exited { attempt: 1, exit: Exit { end, terminated } }
}

fn changes(entries: &[ExecutorEntry]) -> Vec<&ExecutorChange> {
    entries.iter().map(|entry| &entry.change).collect()
}

fn queued() -> SubmitterUnit {
    SubmitterUnit::queued("executor".parse().unwrap(), spec(), T0).0
}

/// The payload was finished, and the executor has not answered.
fn handed() -> SubmitterUnit {
    let mut unit = queued();
    let _ = unit.handle(SubmitterInput::Up, T0);
    answer(&mut unit, STORE, Answer::Have { offset: 0 });
    let _ = unit.handle(SubmitterInput::PayloadSent { store: STORE }, T0);
    unit
}

fn answer(unit: &mut SubmitterUnit, store: StoreId, answer: Answer) -> Vec<SubmitterEffect> {
    unit.handle(SubmitterInput::Answer { store, answer }, T0).effects
}

fn status(version: u64, state: ReportState) -> Report {
    Report { version, state, started: true, since: T0 }
}

#[test]
fn a_forced_release_shortens_the_grace_of_an_earlier_cancellation() {
    let mut unit = handed();
    answer(&mut unit, STORE, Answer::Status(status(5, ReportState::Running)));
    let _ = unit.handle(SubmitterInput::Cancel { grace_ms: 60_000 }, T0);
    answer(&mut unit, STORE, Answer::Status(status(6, ReportState::Running)));
    let step = unit.handle(SubmitterInput::Release { force: true }, T0);
    let is_cancel = |effect: &SubmitterEffect| {
        matches!(effect, SubmitterEffect::Request(Request::Cancel { grace_ms: 0, .. }))
    };
    assert!(step.effects.iter().any(is_cancel), "{step:?}");
}
