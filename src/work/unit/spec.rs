//! What a unit asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::Directive;

/// What a unit asks for. Immutable: the same key with another spec is a
/// [conflict](super::outcome::UnitRefusal::Conflict).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitSpec {
    /// What to do.
    pub(crate) directive: Directive,
    /// The length of the payload, in bytes.
    pub(crate) payload_len: u64,
    /// The SHA-256 of the payload.
    #[serde(with = "serde_bytes")]
    pub(crate) payload_sha256: [u8; 32],
    /// How long after its submission the unit may be started, in milliseconds: at most
    /// [`MAX_LIFE`](Self::MAX_LIFE).
    pub(crate) start_by_ms: u64,
    /// How long it may run, in milliseconds. `None` if only the executor's limit holds.
    pub(crate) run_for_ms: Option<u64>,
    /// How long its status and output are kept after it has ended, in milliseconds: at most
    /// [`MAX_LIFE`](Self::MAX_LIFE).
    pub(crate) keep_for_ms: u64,
    /// Whether it may be run again when the end of an earlier attempt is unknown.
    pub(crate) idempotent: bool,
    /// For people and queries.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The SHA-256 of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpecHash(pub(crate) [u8; 32]);

/// Why a spec is not valid. The submitter's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// A time is longer than 30 days.
    #[error("{field} is at most 30 days")]
    TooLong {
        /// Which time.
        field: &'static str,
    },
    /// There are more than 16 labels.
    #[error("a unit has at most {max} labels, not {found}", max = UnitSpec::MAX_LABELS)]
    TooManyLabels {
        /// How many there are.
        found: usize,
    },
    /// A label's name is not 1–64 ASCII letters, digits and `._-`, or its value is longer than
    /// 256 bytes.
    #[error("label `{}` has a name that is not 1 to 64 ASCII letters, digits and `._-`, or a value of more than {} bytes",
        name.escape_default(), UnitSpec::MAX_LABEL_VALUE)]
    BadLabel {
        /// The label's name.
        name: String,
    },
}

impl UnitSpec {
    /// The longest that a unit waits for its start, and the longest that it is kept after its end:
    /// 30 days. An executor keeps a tombstone for as long, so that a late offer cannot start a
    /// released unit again.
    pub(crate) const MAX_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

    /// The default of [`start_by_ms`](Self::start_by_ms): a day.
    pub(crate) const DEFAULT_START_BY: Duration = Duration::from_secs(24 * 3600);

    /// The default of [`keep_for_ms`](Self::keep_for_ms): a week.
    pub(crate) const DEFAULT_KEEP_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

    /// The most labels.
    pub(crate) const MAX_LABELS: usize = 16;

    /// The longest value of a label, in bytes.
    pub(crate) const MAX_LABEL_VALUE: usize = 256;

    /// The longest name of a label, in bytes.
    pub(crate) const MAX_LABEL_NAME: usize = 64;

    /// Checks the bounds that hold everywhere.
    ///
    /// # Errors
    /// The first bound that is exceeded.
    pub(crate) fn check(&self) -> Result<(), InvalidSpec> {
        let max = u64::try_from(Self::MAX_LIFE.as_millis()).unwrap_or(u64::MAX);
        let times = [
            ("start-by", self.start_by_ms),
            ("keep-for", self.keep_for_ms),
            ("run-for", self.run_for_ms.unwrap_or(0)),
        ];
        if let Some((field, _)) = times.into_iter().find(|(_, ms)| *ms > max) {
            return Err(InvalidSpec::TooLong { field });
        }
        if self.labels.len() > Self::MAX_LABELS {
            return Err(InvalidSpec::TooManyLabels { found: self.labels.len() });
        }
        let is_name = |name: &str| {
            (1..=Self::MAX_LABEL_NAME).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match self
            .labels
            .iter()
            .find(|(name, value)| !is_name(name) || value.len() > Self::MAX_LABEL_VALUE)
        {
            Some((name, _)) => Err(InvalidSpec::BadLabel { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The hash that an offer carries. Two submissions of one key are the same unit if it is equal.
    ///
    /// # Panics
    /// Never: plain values encode.
    #[must_use]
    pub(crate) fn hash(&self) -> SpecHash {
        SpecHash(Sha256::digest(self.encode()).into())
    }

    /// The spec as it travels: a MessagePack array of the fields.
    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec(self).expect("plain values encode, and a Vec takes them")
    }

    /// Reads a spec. One with fields of a later version is not understood.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        super::super::frame::decode(bytes)
    }
}
