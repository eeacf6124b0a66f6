//! The spec of a unit that has ended.

use super::spec::UnitSpec;
use crate::id::Directive;
use std::collections::BTreeMap;

/// The spec of a unit that has ended, in little memory.
///
/// A node keeps 100,000 of these by default. A map of labels allocates half a kilobyte for the
/// first label, so the labels stay encoded until they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptSpec {
    directive: Directive,
    payload_len: u64,
    payload_sha256: [u8; 32],
    start_by_ms: u64,
    run_for_ms: Option<u64>,
    keep_for_ms: u64,
    idempotent: bool,
    /// MessagePack. Empty if there are no labels.
    labels: Box<[u8]>,
}

impl From<&UnitSpec> for KeptSpec {
    fn from(spec: &UnitSpec) -> Self {
        let labels = if spec.labels.is_empty() {
            Box::default()
        } else {
            rmp_serde::to_vec(&spec.labels).expect("strings encode, and a Vec takes them").into()
        };
        Self {
            directive: spec.directive.clone(),
            payload_len: spec.payload_len,
            payload_sha256: spec.payload_sha256,
            start_by_ms: spec.start_by_ms,
            run_for_ms: spec.run_for_ms,
            keep_for_ms: spec.keep_for_ms,
            idempotent: spec.idempotent,
            labels,
        }
    }
}

impl From<&KeptSpec> for UnitSpec {
    fn from(kept: &KeptSpec) -> Self {
        Self {
            directive: kept.directive.clone(),
            payload_len: kept.payload_len,
            payload_sha256: kept.payload_sha256,
            start_by_ms: kept.start_by_ms,
            run_for_ms: kept.run_for_ms,
            keep_for_ms: kept.keep_for_ms,
            idempotent: kept.idempotent,
            labels: kept.labels(),
        }
    }
}

impl KeptSpec {
    pub(crate) fn directive(&self) -> &Directive {
        &self.directive
    }

    pub(crate) fn payload_len(&self) -> u64 {
        self.payload_len
    }

    pub(crate) fn start_by_ms(&self) -> u64 {
        self.start_by_ms
    }

    pub(crate) fn keep_for_ms(&self) -> u64 {
        self.keep_for_ms
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        if self.labels.is_empty() {
            return BTreeMap::new();
        }
        rmp_serde::from_slice(&self.labels).expect("it was encoded from labels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_comes_back_as_it_was() {
        let mut spec = UnitSpec {
            directive: "a:b".parse().unwrap(),
            payload_len: 7,
            payload_sha256: [3; 32],
            start_by_ms: 1,
            run_for_ms: Some(2),
            keep_for_ms: 3,
            idempotent: true,
            labels: BTreeMap::new(),
        };
        assert_eq!(UnitSpec::from(&KeptSpec::from(&spec)), spec);
        spec.labels =
            [("job".to_owned(), "17".to_owned()), ("by".to_owned(), "ü".to_owned())].into();
        let kept = KeptSpec::from(&spec);
        assert_eq!(UnitSpec::from(&kept), spec);
        assert_eq!(UnitSpec::from(&kept).hash(), spec.hash());
    }
}
