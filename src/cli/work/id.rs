//! Ids of units as people type and read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The digits of a whole id.
const DIGITS: usize = 32;

/// The fewest digits that are shown of an id.
const MIN_SHOWN: usize = 8;

/// The beginning of a unit's id, or all of it: 1 to 32 hexadecimal digits, with or without dashes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::cli) struct IdPrefix(String);

impl From<Uuid> for IdPrefix {
    fn from(id: Uuid) -> Self {
        Self(digits(&id))
    }
}

impl FromStr for IdPrefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String =
            text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        let valid =
            (1..=DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if valid {
            Ok(Self(digits))
        } else {
            Err("the id of a unit, or the first hexadecimal digits of it")
        }
    }
}

impl TryFrom<String> for IdPrefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IdPrefix> for String {
    fn from(prefix: IdPrefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dashed(&self.0))
    }
}

/// The digits of an id, without dashes.
fn digits(id: &Uuid) -> String {
    id.simple().to_string()
}

/// Digits with dashes where a UUID has them.
fn dashed(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + 4);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Ids, shortened as far as all of them stay distinguishable.
#[derive(Debug)]
pub(super) struct ShortIds {
    shown: usize,
}

impl ShortIds {
    /// How ids are shown beside these.
    pub(super) fn of<'a>(ids: impl IntoIterator<Item = &'a Uuid>) -> Self {
        let mut all: Vec<u128> = ids.into_iter().map(Uuid::as_u128).collect();
        all.sort_unstable();
        // A digit is four bits.
        let shared = |pair: &[u128]| (pair[0] ^ pair[1]).leading_zeros() as usize / 4;
        let longest = all.windows(2).map(shared).max().unwrap_or(0);
        Self { shown: (longest + 1).clamp(MIN_SHOWN, DIGITS) }
    }

    /// Ids are shown whole.
    pub(super) fn whole() -> Self {
        Self { shown: DIGITS }
    }

    /// The id as it is shown.
    pub(super) fn show(&self, id: &Uuid) -> String {
        let mut buffer = Uuid::encode_buffer();
        let dashes = [8, 12, 16, 20].iter().filter(|digits| self.shown > **digits).count();
        id.hyphenated().encode_lower(&mut buffer)[..self.shown + dashes].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(0x0193_a5b2_7c4d_7000_8000_0000_0000_0001);
    const B: Uuid = Uuid::from_u128(0x0193_a5b2_7c4e_7000_8000_0000_0000_0002);

    #[test]
    fn an_id_may_be_shortened_and_typed_without_dashes() {
        for text in
            ["0193", "0193A5B2-7c4d", "0193a5b27c4d7", "0193a5b2-7c4d-7000-8000-000000000001"]
        {
            let prefix: IdPrefix = text.parse().unwrap();
            assert!(A.to_string().starts_with(&prefix.to_string()), "{text}");
        }
        let prefix: IdPrefix = "0193A5b27c4d7".parse().unwrap();
        assert_eq!(prefix.to_string(), "0193a5b2-7c4d-7");
        assert_eq!(IdPrefix::from(A).to_string(), A.to_string());
        for bad in ["", "-", "xyz", "0193a5b2-7c4d-7000-8000-0000000000011", "é"] {
            assert!(bad.parse::<IdPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_shown_as_short_as_they_can_be_told_apart() {
        assert_eq!(ShortIds::of([&A]).show(&A), "0193a5b2");
        let both = ShortIds::of([&A, &B]);
        assert_eq!([both.show(&A), both.show(&B)], ["0193a5b2-7c4d", "0193a5b2-7c4e"]);
        assert_eq!(ShortIds::of([&A, &A]).show(&A), A.to_string());
        assert_eq!(ShortIds::whole().show(&A), A.to_string());
    }
}
