//! Values of a configuration file with the lines that they are on.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::cli::process::exit::Failure;
use crate::cli::setup::settings::{EMPTY_RESTRICTION, Source, Sourced};

/// Bytes, or bytes per second, as people write them: `transit-rate = "10M"` or
/// `transit-rate = 10_000_000`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number of bytes, such as 10_000_000 or \"10M\"")]
pub(super) enum RateValue {
    Number(i64),
    Text(String),
}

impl fmt::Display for RateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A duration as people write it: `grace = "30s"`, or `grace = 30` in seconds.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a duration, such as \"30s\", or a number of seconds")]
pub(super) enum DurationValue {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl fmt::Display for DurationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(seconds) => seconds.fmt(f),
            Self::Fraction(seconds) => seconds.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A user: `user = "work"` or `user = 1001`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a user name, a uid, or \"UID:GID\"")]
pub(super) enum UserValue {
    Id(u32),
    Text(String),
}

impl fmt::Display for UserValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A file and its text: turns spans into lines.
pub(super) struct Location<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Location<'_> {
    pub(super) fn source(&self, span: Range<usize>) -> Source {
        Source::File { path: self.path.to_owned(), line: line_of(self.text, span.start) }
    }

    pub(super) fn sourced<T>(&self, spanned: Spanned<T>) -> Sourced<T> {
        self.sourced_as(spanned, |value| value)
    }

    pub(super) fn sourced_as<T, U>(
        &self,
        spanned: Spanned<T>,
        convert: impl FnOnce(T) -> U,
    ) -> Sourced<U> {
        let source = self.source(spanned.span());
        Sourced::new(convert(spanned.into_inner()), source)
    }

    pub(super) fn path(&self, path: Spanned<PathBuf>, base: &Path) -> Sourced<PathBuf> {
        self.sourced_as(path, |path| base.join(path))
    }

    /// A path that is text, since lists of flags and variables are.
    pub(super) fn path_text(&self, path: Spanned<String>, base: &Path) -> Sourced<String> {
        self.sourced_as(path, |path| base.join(path).to_string_lossy().into_owned())
    }

    /// A list that restricts who is accepted. Without one every member is, so an empty one is
    /// refused instead of taken for none.
    pub(super) fn restriction(
        &self,
        list: Option<Spanned<Vec<Spanned<String>>>>,
    ) -> Result<Vec<Sourced<String>>, Failure> {
        let Some(list) = list else { return Ok(Vec::new()) };
        let list = self.sourced(list);
        if list.value.is_empty() {
            return Err(list.bad(EMPTY_RESTRICTION));
        }
        Ok(list.value.into_iter().map(|entry| self.sourced(entry)).collect())
    }

    pub(super) fn cost_to(&self, id: Spanned<String>, cost: i64) -> Sourced<String> {
        self.sourced_as(id, |id| format!("{id}={cost}"))
    }
}

/// Counted from 1, as editors do.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
