//! Units as people read them.

use std::fmt::Write as _;

use crate::cli::output::progress::bytes;
use crate::cli::output::text::{Cell, Colour, Paint, Table, escape, escape_lines, span};
use crate::cli::work::id::ShortIds;
use crate::cli::work::request::UnitQuery;
use crate::cli::work::unit::{State, UnitView};

/// A table of the units that match, the newest last.
pub(in crate::cli::work) fn table(
    units: &[UnitView],
    query: &UnitQuery,
    now_ms: u64,
    paint: Paint,
) -> String {
    // A prefix has to be unique among all units, of which a query may leave some out.
    let ids = if query.selects_all() {
        ShortIds::of(units.iter().map(|unit| &unit.id))
    } else {
        ShortIds::whole()
    };
    let other_end = if query.here { "FROM" } else { "NODE" };
    let mut table = Table::new(["ID", other_end, "DIRECTIVE", "STATE", "AGE", "OUT", "LABELS"]);
    for unit in units {
        let labels: Vec<String> =
            unit.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let releasing = if unit.releasing { ", releasing" } else { "" };
        let state = Cell::plain(unit.verdict() + releasing);
        table.row([
            Cell::plain(ids.show(&unit.id)),
            Cell::plain(if query.here { &unit.submitter } else { &unit.node }),
            Cell::plain(&unit.directive),
            match colour(unit.state) {
                Some(colour) => state.coloured(colour),
                None => state,
            },
            Cell::plain(span(now_ms.saturating_sub(unit.created_ms))),
            Cell::plain(size(unit.stdout_bytes)),
            Cell::plain(labels.join(" ")),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render(paint) }
}

/// All that is known of a unit, a line each.
pub(in crate::cli::work) fn details(unit: &UnitView, now_ms: u64, paint: Paint) -> String {
    let mut text = format!("unit {}\n", unit.id);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {} {value}", paint.paint(Colour::Dim, &format!("{name:9}")));
    };
    let verdict = unit.verdict();
    let verdict = match colour(unit.state) {
        Some(colour) => paint.paint(colour, &verdict),
        None => verdict,
    };
    line("node", &escape(&unit.node));
    line("submitter", &escape(&unit.submitter));
    line("directive", &escape(&unit.directive));
    line("state", &verdict);
    if let Some(reason) = unit.reason.as_ref().filter(|_| unit.state.is_final()) {
        line("reason", &escape_lines(reason));
    }
    line("submitted", &ago(unit.created_ms, now_ms));
    if let Some(started) = unit.started_ms {
        line("started", &ago(started, now_ms));
    }
    if let Some(ended) = unit.ended_ms {
        let ran = unit
            .started_ms
            .map(|started| format!(", after {}", span(ended.saturating_sub(started))));
        line("ended", &format!("{}{}", ago(ended, now_ms), ran.unwrap_or_default()));
    }
    let payload = bytes(unit.payload_bytes as f64);
    if unit.handed_bytes < unit.payload_bytes {
        line(
            "payload",
            &format!("{payload}, {} of it handed over", bytes(unit.handed_bytes as f64)),
        );
    } else {
        line("payload", &payload);
    }
    line("stdout", &size(unit.stdout_bytes));
    line("stderr", &size(unit.stderr_bytes));
    for (name, value) in &unit.labels {
        line("label", &format!("{}={}", escape(name), escape(value)));
    }
    if unit.releasing {
        line("release", "under way");
    }
    text
}

/// A number of bytes. A dash if it is not known.
fn size(bytes_so_far: Option<u64>) -> String {
    bytes_so_far.map_or_else(|| "-".to_owned(), |len| bytes(len as f64))
}

/// The line that shows how a unit gets on.
pub(in crate::cli::work) fn progress(unit: &UnitView) -> String {
    let mut line = format!("{}: {}", escape(&unit.node), unit.verdict());
    if unit.handed_bytes < unit.payload_bytes {
        let (handed, all) = (bytes(unit.handed_bytes as f64), bytes(unit.payload_bytes as f64));
        let _ = write!(line, ", {handed} of {all} handed over");
    }
    if let Some(written) = unit.stdout_bytes.filter(|written| *written > 0) {
        let _ = write!(line, ", {} written", bytes(written as f64));
    }
    line
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", span(now_ms.saturating_sub(at_ms)))
}

fn colour(state: State) -> Option<Colour> {
    match state {
        State::Running | State::Succeeded => Some(Colour::Green),
        State::Failed | State::Lost | State::Refused => Some(Colour::Red),
        State::Expired | State::Cancelled => Some(Colour::Yellow),
        State::Queued | State::Handing | State::Accepted | State::Starting | State::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cli::work::unit::tests::unit;

    #[test]
    fn a_table_has_short_ids_states_and_ages() {
        let failed = UnitView {
            id: Uuid::from_u128(0x0193_a5b2_7d00_7000_8000_0000_0000_0002),
            exit: Some(3),
            stdout_bytes: Some(1_500),
            labels: [("job".to_owned(), "7".to_owned()), ("by".to_owned(), "\x1b[2J".to_owned())]
                .into(),
            ..unit(State::Failed)
        };
        let all = UnitQuery::default();
        let units = [unit(State::Running), failed];
        let text = table(&units, &all, 62_000, Paint::off());
        let lines = [
            "  ID           NODE    DIRECTIVE   STATE                   AGE        OUT     LABELS",
            "  0193a5b2-7c  edge-1  text:upper  running                 1 min 1 s  -",
            "  0193a5b2-7d  edge-1  text:upper  failed (exit status 3)  1 min 1 s  1.5 kB  by=\\u{1b}[2J job=7",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(table(&[], &all, 0, Paint::off()), "");
        let here = UnitQuery { here: true, ..all };
        assert!(table(&units[..1], &here, 0, Paint::off()).contains("FROM"));
    }

    #[test]
    fn a_table_of_some_units_has_whole_ids() {
        let units = [unit(State::Running)];
        let some = UnitQuery { states: vec![State::Running], ..UnitQuery::default() };
        let id = units[0].id.to_string();
        assert!(table(&units, &some, 0, Paint::off()).contains(&id));
        assert!(!table(&units, &UnitQuery::default(), 0, Paint::off()).contains(&id));
    }

    #[test]
    fn details_are_lines_that_cannot_steer_a_terminal() {
        let unit = UnitView {
            reason: Some("no such directive\nunit \x1b[2J".to_owned()),
            started_ms: Some(3_000),
            ended_ms: Some(5_000),
            payload_bytes: 2_000,
            handed_bytes: 500,
            ..unit(State::Refused)
        };
        let text = details(&unit, 6_000, Paint::off());
        assert!(
            text.starts_with("unit 0193a5b2-7c4d-7000-8000-000000000001\n  node      edge-1\n"),
            "{text}"
        );
        assert!(text.contains("\n  reason    no such directive\n  | unit \\u{1b}[2J\n"), "{text}");
        assert!(text.contains("\n  ended     1 s ago, after 2 s\n"), "{text}");
        assert!(text.contains("\n  payload   2.0 kB, 500 B of it handed over\n"), "{text}");
    }

    #[test]
    fn progress_has_bytes_in_state_and_bytes_out() {
        let unit = UnitView { payload_bytes: 100, handed_bytes: 20, ..unit(State::Handing) };
        assert_eq!(progress(&unit), "edge-1: handing (20 %), 20 B of 100 B handed over");
        let running =
            UnitView { state: State::Running, handed_bytes: 100, stdout_bytes: Some(9), ..unit };
        assert_eq!(progress(&running), "edge-1: running, 9 B written");
    }
}
