//! What a call asks for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::text_argument::{excerpt, text_argument};

/// What a call asks for: `namespace:action`, each part 1–64 bytes of ASCII letters, digits and
/// `._-`.
///
/// Parsed once, valid ever after. Compared byte by byte, without case folding. Cloning is cheap (a
/// reference count).
///
/// ```
/// let directive: receptor_quic::work::Directive = "files:list".parse()?;
/// assert_eq!((directive.namespace(), directive.action()), ("files", "list"));
/// # Ok::<(), receptor_quic::work::InvalidDirective>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Directive(Arc<str>);

impl Directive {
    /// The longest part, in bytes.
    pub const MAX_PART: usize = 64;

    /// The directive as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The part after the colon.
    #[must_use]
    pub fn action(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').expect("a directive has a colon")
    }
}

/// Why a text is not a [`Directive`]. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDirective {
    /// There is no colon.
    #[error("{text:?} is not a directive: it has no colon; a directive is `namespace:action`")]
    NoColon {
        /// The text, or its start if it is long.
        text: String,
    },
    /// A part is empty.
    #[error("{text:?} is not a directive: the {part} must not be empty")]
    Empty {
        /// Which part: `namespace` or `action`.
        part: &'static str,
        /// The text, or its start if it is long.
        text: String,
    },
    /// A part is too long.
    #[error(
        "{text:?} is not a directive: the {part} has {len} bytes, which exceed the maximum of {max}",
        max = Directive::MAX_PART
    )]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Start of the text.
        text: String,
        /// Length of the part in bytes.
        len: usize,
    },
    /// A part has a character that is not allowed.
    #[error(
        "{text:?} is not a directive: {found:?} in the {part} is not allowed; use ASCII letters, digits and `._-`"
    )]
    BadCharacter {
        /// Which part.
        part: &'static str,
        /// The text, or its start if it is long.
        text: String,
        /// The character.
        found: char,
    },
}

impl FromStr for Directive {
    type Err = InvalidDirective;

    fn from_str(text: &str) -> Result<Self, InvalidDirective> {
        let no_colon = || InvalidDirective::NoColon { text: excerpt(text) };
        let (namespace, action) = text.split_once(':').ok_or_else(no_colon)?;
        check_part(text, "namespace", namespace)?;
        check_part(text, "action", action)?;
        Ok(Self(text.into()))
    }
}

text_argument!(InvalidDirective: Directive);

/// Checks a part of `text`.
fn check_part(text: &str, part: &'static str, value: &str) -> Result<(), InvalidDirective> {
    if value.is_empty() {
        return Err(InvalidDirective::Empty { part, text: excerpt(text) });
    }
    if value.len() > Directive::MAX_PART {
        return Err(InvalidDirective::TooLong { part, text: excerpt(text), len: value.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match value.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(InvalidDirective::BadCharacter { part, text: excerpt(text), found }),
        None => Ok(()),
    }
}

impl From<Directive> for String {
    fn from(directive: Directive) -> Self {
        directive.0.as_ref().to_owned()
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_takes_what_is_allowed_and_names_what_is_not() {
        let parse = |text: &str| Directive::try_from(text);
        let good = parse("a.b_c-1:Run").unwrap();
        assert_eq!(
            (good.namespace(), good.action(), good.to_string().as_str()),
            ("a.b_c-1", "Run", "a.b_c-1:Run")
        );
        assert!(parse(&format!("{0}:{0}", "x".repeat(64))).is_ok());
        let error = |text: &str| parse(text).unwrap_err().to_string();
        for (text, what) in [
            ("ping", "it has no colon; a directive is `namespace:action`"),
            (":ping", "the namespace must not be empty"),
            ("a:", "the action must not be empty"),
            ("a:b:c", "':' in the action is not allowed; use ASCII letters, digits and `._-`"),
            ("ä:b", "'ä' in the namespace is not allowed; use ASCII letters, digits and `._-`"),
        ] {
            assert_eq!(error(text), format!("{text:?} is not a directive: {what}"));
        }
        let quoted = format!("x:{}…", "x".repeat(62));
        assert_eq!(
            error(&format!("x:{}", "x".repeat(65))),
            format!(
                "{quoted:?} is not a directive: the action has 65 bytes, which exceed the maximum of 64"
            )
        );
    }

    #[test]
    fn bad_directives_are_refused_when_decoded() {
        let bytes = rmp_serde::to_vec("no colon").unwrap();
        assert!(rmp_serde::from_slice::<Directive>(&bytes).is_err());
        let good: Directive = "a:b".parse().unwrap();
        let bytes = rmp_serde::to_vec(&good).unwrap();
        assert_eq!(rmp_serde::from_slice::<Directive>(&bytes).unwrap(), good);
    }
}
