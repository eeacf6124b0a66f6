//! States and reasons as numbers. They go over the wire: never renumber.

use super::super::outcome::{Failure, Outcome, ReportState, UnitRefusal};

/// A state as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StateFields {
    pub(super) state: u8,
    /// How it failed, or why it was refused. 0 in other states.
    pub(super) detail: u8,
    /// The exit status, the signal, or the offset of the payload; otherwise 0.
    pub(super) value: i64,
    pub(super) text: Option<String>,
}

const RECEIVING: u8 = 1;
const ACCEPTED: u8 = 2;
const STARTING: u8 = 3;
const RUNNING: u8 = 4;
const SUCCEEDED: u8 = 5;
const FAILED: u8 = 6;
const CANCELLED: u8 = 7;
const EXPIRED: u8 = 8;
const REFUSED: u8 = 9;
const LOST: u8 = 10;

const EXIT: u8 = 1;
const SIGNAL: u8 = 2;
const RUN_TIME: u8 = 3;
const OUTPUT_LIMIT: u8 = 4;
const NOT_STARTED: u8 = 5;
const HANDLER: u8 = 6;

/// The longest text about a failure, in bytes. A longer one is cut.
const MAX_TEXT: usize = 2 * 1024;

pub(super) fn fields(state: &ReportState) -> StateFields {
    let plain = |state| StateFields { state, ..StateFields::default() };
    match state {
        // An executor never reports the first two.
        ReportState::Queued | ReportState::Handing => plain(RECEIVING),
        ReportState::Receiving { offset } => {
            StateFields { value: i64::try_from(*offset).unwrap_or(i64::MAX), ..plain(RECEIVING) }
        }
        ReportState::Accepted => plain(ACCEPTED),
        ReportState::Starting => plain(STARTING),
        ReportState::Running => plain(RUNNING),
        ReportState::Final(outcome) => match outcome {
            Outcome::Succeeded => plain(SUCCEEDED),
            Outcome::Failed(failure) => failure_fields(failure),
            Outcome::Cancelled => plain(CANCELLED),
            Outcome::Expired => plain(EXPIRED),
            Outcome::Refused(refusal) => {
                StateFields { detail: refusal_number(*refusal), ..plain(REFUSED) }
            }
            Outcome::Lost => plain(LOST),
        },
    }
}

fn failure_fields(failure: &Failure) -> StateFields {
    let failed = |detail, value: i32, text: Option<&String>| {
        let text = text.map(|text| text[..boundary(text, MAX_TEXT)].to_owned());
        StateFields { state: FAILED, detail, value: value.into(), text }
    };
    match failure {
        Failure::Exit(status) => failed(EXIT, *status, None),
        Failure::Signal(signal) => failed(SIGNAL, *signal, None),
        Failure::RunTime => failed(RUN_TIME, 0, None),
        Failure::OutputLimit => failed(OUTPUT_LIMIT, 0, None),
        Failure::NotStarted(text) => failed(NOT_STARTED, 0, Some(text)),
        Failure::Handler(text) => failed(HANDLER, 0, Some(text)),
    }
}

pub(super) fn state(fields: &StateFields) -> Result<ReportState, &'static str> {
    let ended = |outcome| Ok(ReportState::Final(outcome));
    match fields.state {
        RECEIVING => {
            Ok(ReportState::Receiving { offset: u64::try_from(fields.value).unwrap_or(0) })
        }
        ACCEPTED => Ok(ReportState::Accepted),
        STARTING => Ok(ReportState::Starting),
        RUNNING => Ok(ReportState::Running),
        SUCCEEDED => ended(Outcome::Succeeded),
        FAILED => ended(Outcome::Failed(failure(fields))),
        CANCELLED => ended(Outcome::Cancelled),
        EXPIRED => ended(Outcome::Expired),
        REFUSED => ended(Outcome::Refused(refusal(fields.detail))),
        LOST => ended(Outcome::Lost),
        _ => Err("the state is of a later version"),
    }
}

/// A failure of a later version is one whose cause is not known.
fn failure(fields: &StateFields) -> Failure {
    let value = i32::try_from(fields.value).unwrap_or(i32::MAX);
    let text = || fields.text.clone().unwrap_or_default();
    match fields.detail {
        EXIT => Failure::Exit(value),
        SIGNAL => Failure::Signal(value),
        RUN_TIME => Failure::RunTime,
        OUTPUT_LIMIT => Failure::OutputLimit,
        NOT_STARTED => Failure::NotStarted(text()),
        _ => Failure::Handler(text()),
    }
}

pub(super) const fn refusal_number(refusal: UnitRefusal) -> u8 {
    match refusal {
        UnitRefusal::NoUnits => 1,
        UnitRefusal::UnknownDirective => 2,
        UnitRefusal::NotAllowed => 3,
        UnitRefusal::PayloadTooLarge => 4,
        UnitRefusal::TooLong => 5,
        UnitRefusal::Conflict => 6,
        UnitRefusal::Released => 7,
    }
}

/// A reason of a later version is not one of those that the submitter can do something about.
pub(super) const fn refusal(number: u8) -> UnitRefusal {
    match number {
        1 => UnitRefusal::NoUnits,
        2 => UnitRefusal::UnknownDirective,
        4 => UnitRefusal::PayloadTooLarge,
        5 => UnitRefusal::TooLong,
        6 => UnitRefusal::Conflict,
        7 => UnitRefusal::Released,
        _ => UnitRefusal::NotAllowed,
    }
}

/// The last boundary between characters that is not behind this byte.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
