//! Patterns in which `*` stands for any number of bytes and `?` for one.

use std::fmt;
use std::sync::Arc;

/// A pattern of names. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Glob(Arc<str>);

impl Glob {
    /// A pattern, if all its bytes are allowed and it has 1 to `max` of them.
    pub(crate) fn parse(text: &str, max: usize, allows: impl Fn(u8) -> bool) -> Option<Self> {
        let wild = |byte: u8| byte == b'*' || byte == b'?';
        let fits =
            (1..=max).contains(&text.len()) && text.bytes().all(|byte| wild(byte) || allows(byte));
        fits.then(|| Self(text.into()))
    }

    /// The pattern that matches everything.
    pub(crate) fn any() -> Self {
        Self("*".into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn text(&self) -> Arc<str> {
        self.0.clone()
    }

    /// Whether it matches everything.
    pub(crate) fn is_any(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether it matches one name alone.
    pub(crate) fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// What every name that it matches begins with.
    pub(crate) fn prefix(&self) -> &str {
        self.0.split(['*', '?']).next().unwrap_or_default()
    }

    /// What every name that it matches ends with.
    pub(crate) fn suffix(&self) -> &str {
        self.0.rsplit(['*', '?']).next().unwrap_or_default()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text matches a pattern. Linear in both for each star: on a mismatch, only the match of
/// the last star is extended.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last star, and where in the text its match ends.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                // Mismatch: let the last star match one more byte, and retry behind it.
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    // At the end of the text, the rest of the pattern may only be stars.
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the definition says, without regard to time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                naive(rest, text) || !text.is_empty() && naive(pattern, &text[1..])
            }
            (Some((b'?', rest)), Some((_, text))) => naive(rest, text),
            (Some((a, rest)), Some((b, text))) => a == b && naive(rest, text),
            _ => false,
        }
    }

    #[test]
    fn a_pattern_matches_as_its_definition_says() {
        let texts = |letters: &[u8], max: usize| {
            let mut all: Vec<Vec<u8>> = vec![Vec::new()];
            let mut last = all.clone();
            for _ in 0..max {
                last = last
                    .iter()
                    .flat_map(|text| letters.iter().map(|byte| [&text[..], &[*byte]].concat()))
                    .collect();
                all.extend(last.iter().cloned());
            }
            all
        };
        for pattern in texts(b"ab*?", 4) {
            for text in texts(b"ab", 5) {
                assert_eq!(
                    matches(&pattern, &text),
                    naive(&pattern, &text),
                    "{pattern:?} {text:?}"
                );
            }
        }
    }

    #[test]
    fn a_pattern_begins_and_ends_as_its_names_do() {
        let glob = Glob::parse("eu-*-relay", 64, |byte| byte.is_ascii()).unwrap();
        assert_eq!((glob.prefix(), glob.suffix()), ("eu-", "-relay"));
        assert!(!glob.is_exact() && !glob.is_any() && Glob::any().is_any());
        assert!(Glob::parse("", 64, |_| true).is_none());
        assert!(Glob::parse("aaa", 2, |_| true).is_none());
        assert!(Glob::parse("a b", 64, |byte| byte != b' ').is_none());
    }
}
