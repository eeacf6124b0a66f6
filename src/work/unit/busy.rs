//! Why an executor does not accept a unit at the moment.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an executor does not accept a unit, or a request about one, at the moment.
///
/// The submitter repeats the request until the executor accepts it, or until the unit expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BusyReason {
    /// The executor gave no reason, or one that this version does not know.
    Unspecified,
    /// With this unit, less of the file system would be free than
    /// [`reserve_percent`](super::UnitLimits::reserve_percent) says.
    DiskReserve,
    /// A write failed, usually because the disk is full.
    DiskFull,
    /// The disk has failed. The executor accepts no new units until it is restarted.
    DiskFailed,
    /// The executor keeps [`max_units`](super::UnitLimits::max_units).
    Units,
    /// The executor keeps
    /// [`max_units_per_submitter`](super::UnitLimits::max_units_per_submitter) of this submitter.
    SubmitterUnits,
    /// The payload would exceed [`max_bytes`](super::UnitLimits::max_bytes).
    Bytes,
    /// The payload would exceed
    /// [`max_bytes_per_submitter`](super::UnitLimits::max_bytes_per_submitter).
    SubmitterBytes,
    /// The submitter has used its share of the ids that the executor remembers after units were
    /// released or cancelled. An id is forgotten a day after the unit could last have started.
    ReleasedIds,
    /// The executor is shutting down.
    ShuttingDown,
}

impl BusyReason {
    /// All reasons that are sent, with their numbers in a BUSY frame.
    const NUMBERS: [(Self, u8); 9] = [
        (Self::DiskReserve, 1),
        (Self::DiskFull, 2),
        (Self::DiskFailed, 3),
        (Self::Units, 4),
        (Self::SubmitterUnits, 5),
        (Self::Bytes, 6),
        (Self::SubmitterBytes, 7),
        (Self::ReleasedIds, 8),
        (Self::ShuttingDown, 9),
    ];

    /// The number in a BUSY frame.
    pub(super) fn number(self) -> u8 {
        Self::NUMBERS.iter().find(|(reason, _)| *reason == self).map_or(0, |(_, number)| *number)
    }

    /// The reason with this number. A reason of a later version is unspecified.
    pub(super) fn from_number(number: u8) -> Self {
        let known = Self::NUMBERS.iter().find(|(_, of)| *of == number);
        known.map_or(Self::Unspecified, |(reason, _)| *reason)
    }
}

impl fmt::Display for BusyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "the node is busy",
            Self::DiskReserve => "disk nearly full (reserve-percent)",
            Self::DiskFull => "disk full",
            Self::DiskFailed => "disk failed; restart the node",
            Self::Units => "max-units reached",
            Self::SubmitterUnits => "max-units-per-submitter reached",
            Self::Bytes => "max-bytes reached",
            Self::SubmitterBytes => "max-bytes-per-submitter reached",
            Self::ReleasedIds => "too many released ids remembered",
            Self::ShuttingDown => "the node is shutting down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_unknown_ones_are_unspecified() {
        for (reason, number) in BusyReason::NUMBERS {
            assert_eq!((reason.number(), BusyReason::from_number(number)), (number, reason));
        }
        for number in [0, 10, 255] {
            assert_eq!(BusyReason::from_number(number), BusyReason::Unspecified);
        }
        assert_eq!(BusyReason::Unspecified.number(), 0);
    }
}
