//! What the types that are accepted as text have in common.

/// Maximum length of the text that an error quotes, in characters.
const MAX_EXCERPT: usize = 64;

/// The text that is not valid, for an error: its start if it is long. The error escapes it when it
/// is displayed.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Implements the conversions of types that functions accept as a value, by reference or as text:
/// `impl TryInto<Type, Error: Into<Error>>`. The types implement `FromStr` with this error.
macro_rules! text_argument {
    ($error:ident: $($name:ident),+) => {
        $(
            impl TryFrom<&str> for $name {
                type Error = $error;

                fn try_from(text: &str) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl TryFrom<&String> for $name {
                type Error = $error;

                fn try_from(text: &String) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl TryFrom<String> for $name {
                type Error = $error;

                fn try_from(text: String) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl From<&$name> for $name {
                fn from(value: &$name) -> Self {
                    value.clone()
                }
            }
        )+

        /// A value of the type itself is always valid.
        impl From<std::convert::Infallible> for $error {
            fn from(never: std::convert::Infallible) -> Self {
                match never {}
            }
        }
    };
}

pub(crate) use text_argument;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_quoted_up_to_a_maximum() {
        assert_eq!(excerpt(""), "");
        assert_eq!(excerpt(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(excerpt(&"é".repeat(65)), "é".repeat(64) + "…");
    }
}
