//! What the commands print, and how they exit.

use crate::cli::output::text;
use crate::cli::process::exit::{Exit, Failure};
use crate::cli::work::unit::{State, UnitView};

/// How a command that waited for a unit ends: as the unit's command did, or with the reason why
/// that has no exit status.
pub(in crate::cli::work) fn end_as(unit: &UnitView) -> Result<u8, Failure> {
    if let Some(status) = unit.exit_status() {
        return Ok(status);
    }
    let exit = match unit.state {
        State::Expired => Exit::Unreachable,
        State::Refused => Exit::Refused,
        _ => Exit::Failed,
    };
    let reason = unit.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Failure {
        exit,
        text: format!("unit {} on {}: {}{reason}", unit.id, unit.node, unit.verdict()),
    })
}

/// Writes text to standard output.
pub(in crate::cli::work) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// A unit as a line of JSON.
pub(in crate::cli::work) fn json_line(unit: &UnitView) -> String {
    let json = serde_json::to_string(unit).expect("plain data is JSON");
    format!("{}\n", text::escape_json(&json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::work::unit::tests::unit;

    #[test]
    fn a_unit_without_an_exit_status_ends_with_the_reason() {
        assert_eq!(end_as(&UnitView { exit: Some(7), ..unit(State::Failed) }), Ok(7));
        let lost = end_as(&unit(State::Lost)).unwrap_err();
        assert_eq!((lost.exit, lost.text.ends_with("on edge-1: lost")), (Exit::Failed, true));
        let refused =
            UnitView { reason: Some("no such directive".to_owned()), ..unit(State::Refused) };
        let refused = end_as(&refused).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.text.ends_with("refused: no such directive"), "{}", refused.text);
        assert_eq!(end_as(&unit(State::Expired)).unwrap_err().exit, Exit::Unreachable);
    }
}
