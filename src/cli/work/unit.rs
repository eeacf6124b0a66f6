//! A unit as the commands print it, and as it goes over the control socket.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::cli::output::text::escape;

/// What is known of a unit: what `--json` prints, one object a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct UnitView {
    /// The key that the submitter chose.
    pub(in crate::cli) id: Uuid,
    /// The node that executes it.
    pub(in crate::cli) node: String,
    /// The node that submitted it.
    pub(in crate::cli) submitter: String,
    /// What it does.
    pub(in crate::cli) directive: String,
    /// Where it stands.
    pub(in crate::cli) state: State,
    /// The exit status of its command, if that has exited.
    #[serde(default)]
    pub(in crate::cli) exit: Option<i32>,
    /// The signal that ended its command.
    #[serde(default)]
    pub(in crate::cli) signal: Option<i32>,
    /// Why it ended as it did, if there is more to say than the state; before its end, why its node
    /// does not accept it now.
    #[serde(default)]
    pub(in crate::cli) reason: Option<String>,
    /// Whether it may have been started.
    #[serde(default)]
    pub(in crate::cli) started: bool,
    /// When it was submitted, by the clock of the node that says so, in milliseconds since the Unix
    /// epoch. The others likewise.
    #[serde(default)]
    pub(in crate::cli) created_ms: u64,
    /// When it was started.
    #[serde(default)]
    pub(in crate::cli) started_ms: Option<u64>,
    /// When it ended.
    #[serde(default)]
    pub(in crate::cli) ended_ms: Option<u64>,
    /// The length of its payload, in bytes.
    #[serde(default)]
    pub(in crate::cli) payload_bytes: u64,
    /// How much of that its node has.
    #[serde(default)]
    pub(in crate::cli) handed_bytes: u64,
    /// What its command has written so far, in bytes. `None` if its node was not asked yet.
    #[serde(default)]
    pub(in crate::cli) stdout_bytes: Option<u64>,
    /// The same of standard error.
    #[serde(default)]
    pub(in crate::cli) stderr_bytes: Option<u64>,
    /// Labels that its submitter gave it.
    #[serde(default)]
    pub(in crate::cli) labels: BTreeMap<String, String>,
    /// Whether it was released, and is still to be removed.
    #[serde(default)]
    pub(in crate::cli) releasing: bool,
}

/// A unit of a list as it goes over the control socket: without what is absent, zero or false. That
/// is half of the text, for units that have ended well.
pub(super) struct Brief(pub(super) UnitView);

impl Serialize for Brief {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = &self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &unit.id)?;
        map.serialize_entry("node", &unit.node)?;
        map.serialize_entry("submitter", &unit.submitter)?;
        map.serialize_entry("directive", &unit.directive)?;
        map.serialize_entry("state", &unit.state)?;
        for (name, number) in [("exit", unit.exit), ("signal", unit.signal)] {
            if number.is_some() {
                map.serialize_entry(name, &number)?;
            }
        }
        if unit.reason.is_some() {
            map.serialize_entry("reason", &unit.reason)?;
        }
        for (name, flag) in [("started", unit.started), ("releasing", unit.releasing)] {
            if flag {
                map.serialize_entry(name, &flag)?;
            }
        }
        let numbers = [
            ("created_ms", Some(unit.created_ms)),
            ("started_ms", unit.started_ms),
            ("ended_ms", unit.ended_ms),
            ("payload_bytes", Some(unit.payload_bytes).filter(|bytes| *bytes > 0)),
            ("handed_bytes", Some(unit.handed_bytes).filter(|bytes| *bytes > 0)),
            ("stdout_bytes", unit.stdout_bytes),
            ("stderr_bytes", unit.stderr_bytes),
        ];
        for (name, number) in numbers {
            if number.is_some() {
                map.serialize_entry(name, &number)?;
            }
        }
        if !unit.labels.is_empty() {
            map.serialize_entry("labels", &unit.labels)?;
        }
        map.end()
    }
}

/// Where a unit stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum State {
    /// Stored at the submitter.
    Queued,
    /// On the way to its node, with its payload.
    Handing,
    /// Its node will start it when its turn comes.
    Accepted,
    /// A supervisor is being started.
    Starting,
    /// It runs.
    Running,
    /// It has ended with exit status 0.
    Succeeded,
    /// It has ended otherwise.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was not started in time.
    Expired,
    /// Its node has rejected it.
    Refused,
    /// It was started, and its end cannot be known.
    Lost,
    /// A state that a later version has added.
    #[serde(other)]
    Unknown,
}

impl State {
    /// All that can be asked for.
    pub(super) const ALL: [Self; 11] = [
        Self::Queued,
        Self::Handing,
        Self::Accepted,
        Self::Starting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
        Self::Refused,
        Self::Lost,
    ];

    /// Whether nothing follows.
    pub(in crate::cli) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::Failed
                | Self::Cancelled
                | Self::Expired
                | Self::Refused
                | Self::Lost
        )
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Handing => "handing",
            Self::Accepted => "accepted",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

impl UnitView {
    /// The state in a few words: `failed (exit status 3)`, or `queued: disk full`.
    pub(super) fn verdict(&self) -> String {
        let state = self.state;
        let verdict = match (state, self.exit, self.signal) {
            (State::Failed, Some(status), _) => format!("failed (exit status {status})"),
            (State::Failed, None, Some(signal)) => format!("failed (signal {signal})"),
            (State::Handing, ..) if self.payload_bytes > 0 => {
                format!(
                    "handing ({} %)",
                    self.handed_bytes.saturating_mul(100) / self.payload_bytes
                )
            }
            (State::Cancelled, ..) if !self.started => "cancelled (never started)".to_owned(),
            _ => state.name().to_owned(),
        };
        match &self.reason {
            Some(reason) if !state.is_final() => format!("{verdict}: {}", escape(reason)),
            _ => verdict,
        }
    }

    /// The exit status of a command that ends as the unit did: that of the job, or 128 and the
    /// signal, as a shell has it. `None` if there is no such status.
    pub(super) fn exit_status(&self) -> Option<u8> {
        match (self.state, self.exit, self.signal) {
            (State::Succeeded, ..) => Some(0),
            (State::Failed, Some(status), _) => {
                u8::try_from(status).ok().filter(|status| *status != 0)
            }
            (State::Failed, None, Some(signal)) => u8::try_from(signal.checked_add(128)?).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A unit in this state.
    pub(in crate::cli::work) fn unit(state: State) -> UnitView {
        UnitView {
            id: Uuid::from_u128(0x0193_a5b2_7c4d_7000_8000_0000_0000_0001),
            node: "edge-1".to_owned(),
            submitter: "ctl".to_owned(),
            directive: "text:upper".to_owned(),
            state,
            exit: None,
            signal: None,
            reason: None,
            started: false,
            created_ms: 1_000,
            started_ms: None,
            ended_ms: None,
            payload_bytes: 0,
            handed_bytes: 0,
            stdout_bytes: None,
            stderr_bytes: None,
            labels: BTreeMap::new(),
            releasing: false,
        }
    }

    #[test]
    fn every_state_has_the_name_that_json_has() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert_eq!(serde_json::from_str::<State>("\"paused\"").unwrap(), State::Unknown);
        assert!("unknown".parse::<State>().unwrap_err().contains("running, succeeded"));
    }

    #[test]
    fn a_unit_of_a_list_reads_as_it_was_and_is_short() {
        let empty = unit(State::Queued);
        let full = UnitView {
            exit: Some(1),
            signal: Some(2),
            reason: Some("why".to_owned()),
            started: true,
            created_ms: 3,
            started_ms: Some(4),
            ended_ms: Some(5),
            payload_bytes: 6,
            handed_bytes: 7,
            stdout_bytes: Some(0),
            stderr_bytes: Some(9),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            releasing: true,
            ..empty.clone()
        };
        let text = |unit: &UnitView| serde_json::to_string(&Brief(unit.clone())).unwrap();
        for unit in [&empty, &full] {
            assert_eq!(&serde_json::from_str::<UnitView>(&text(unit)).unwrap(), unit);
        }
        // Each field of a unit is one of the list, unless it is absent.
        let fields = |json: &str| {
            serde_json::from_str::<BTreeMap<String, serde_json::Value>>(json).unwrap().len()
        };
        assert_eq!(fields(&text(&full)), fields(&serde_json::to_string(&full).unwrap()));
        assert_eq!(fields(&text(&empty)), 6);
    }

    #[test]
    fn the_verdict_says_why() {
        assert_eq!(
            UnitView { exit: Some(3), ..unit(State::Failed) }.verdict(),
            "failed (exit status 3)"
        );
        assert_eq!(
            UnitView { signal: Some(9), ..unit(State::Failed) }.verdict(),
            "failed (signal 9)"
        );
        let handing = UnitView { payload_bytes: 200, handed_bytes: 90, ..unit(State::Handing) };
        assert_eq!(handing.verdict(), "handing (45 %)");
        assert_eq!(unit(State::Cancelled).verdict(), "cancelled (never started)");
        assert_eq!(unit(State::Lost).verdict(), "lost");
        let waiting = UnitView { reason: Some("disk full".to_owned()), ..unit(State::Queued) };
        assert_eq!(waiting.verdict(), "queued: disk full");
    }

    #[test]
    fn a_command_ends_as_the_unit_did() {
        assert_eq!(unit(State::Succeeded).exit_status(), Some(0));
        assert_eq!(UnitView { exit: Some(3), ..unit(State::Failed) }.exit_status(), Some(3));
        assert_eq!(UnitView { signal: Some(9), ..unit(State::Failed) }.exit_status(), Some(137));
        for state in [State::Failed, State::Lost, State::Cancelled, State::Running] {
            assert_eq!(unit(state).exit_status(), None, "{state}");
        }
    }
}
