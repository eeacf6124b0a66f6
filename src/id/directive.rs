//! What a call asks for.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

    /// A directive for a value that is rejected before it is used.
    #[cfg(feature = "node")]
    pub(crate) fn placeholder() -> Self {
        Self("invalid:invalid".into())
    }

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
    #[error("a directive is `namespace:action`; this one has no colon")]
    NoColon,
    /// A part is empty.
    #[error("the {part} of a directive must not be empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// A part is too long.
    #[error("the {part} of a directive has at most {max} bytes; this one has {len}", max = Directive::MAX_PART)]
    TooLong {
        /// Which part.
        part: &'static str,
        /// What it had, in bytes.
        len: usize,
    },
    /// A part has a character that is not allowed.
    #[error(
        "the {part} of a directive is made of ASCII letters, digits and `._-`; {found:?} is none of them"
    )]
    BadCharacter {
        /// Which part.
        part: &'static str,
        /// The character.
        found: char,
    },
}

impl TryFrom<&str> for Directive {
    type Error = InvalidDirective;

    fn try_from(text: &str) -> Result<Self, InvalidDirective> {
        let (namespace, action) = text.split_once(':').ok_or(InvalidDirective::NoColon)?;
        check_part("namespace", namespace)?;
        check_part("action", action)?;
        Ok(Self(text.into()))
    }
}

fn check_part(part: &'static str, text: &str) -> Result<(), InvalidDirective> {
    if text.is_empty() {
        return Err(InvalidDirective::Empty { part });
    }
    if text.len() > Directive::MAX_PART {
        return Err(InvalidDirective::TooLong { part, len: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match text.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(InvalidDirective::BadCharacter { part, found }),
        None => Ok(()),
    }
}

impl TryFrom<String> for Directive {
    type Error = InvalidDirective;

    fn try_from(text: String) -> Result<Self, InvalidDirective> {
        Self::try_from(text.as_str())
    }
}

impl TryFrom<&String> for Directive {
    type Error = InvalidDirective;

    fn try_from(text: &String) -> Result<Self, InvalidDirective> {
        Self::try_from(text.as_str())
    }
}

impl From<&Self> for Directive {
    fn from(directive: &Self) -> Self {
        directive.clone()
    }
}

impl From<Infallible> for InvalidDirective {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl FromStr for Directive {
    type Err = InvalidDirective;

    fn from_str(text: &str) -> Result<Self, InvalidDirective> {
        Self::try_from(text)
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
        assert_eq!(parse("ping"), Err(InvalidDirective::NoColon));
        assert_eq!(parse(":ping"), Err(InvalidDirective::Empty { part: "namespace" }));
        assert_eq!(parse("a:"), Err(InvalidDirective::Empty { part: "action" }));
        assert_eq!(
            parse("a:b:c"),
            Err(InvalidDirective::BadCharacter { part: "action", found: ':' })
        );
        assert_eq!(
            parse("ä:b"),
            Err(InvalidDirective::BadCharacter { part: "namespace", found: 'ä' })
        );
        assert!(parse(&format!("{0}:{0}", "x".repeat(64))).is_ok());
        assert_eq!(
            parse(&format!("x:{}", "x".repeat(65))),
            Err(InvalidDirective::TooLong { part: "action", len: 65 })
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
