//! The answer to OPEN: accepted, or refused with a code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first byte of the answer.
pub(crate) const ACCEPTED: u8 = 0x00;
const REFUSED: u8 = 0x01;
/// The first number of the codes of applications.
const APPLICATION: u16 = 0x8000;

/// Why the other side did not accept a stream. The numbers go over the wire: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefuseCode {
    /// The node offers no such service. Check the name.
    UnknownService,
    /// The node does not let this caller use the service.
    NotAllowed,
    /// The service has as many streams waiting as it takes. Try again later.
    Overloaded,
    /// As many streams of this caller wait for the service, or live on the node, as may beside
    /// those of others. Try again when some of them have ended.
    CallerLimit,
    /// The deadline passed before the stream was accepted.
    Deadline,
    /// The node is leaving. Try again when it is back.
    Leaving,
    /// The header has a version that the node does not know.
    Version,
    /// The header could not be read.
    BadHeader,
    /// A code of the application, from 0 to [`MAX_APPLICATION`](Self::MAX_APPLICATION); larger ones
    /// are sent as the maximum. Nodes that do not know these codes report `Unknown` with 0x8000
    /// added.
    Application(u16),
    /// A reason that this version does not know.
    #[serde(untagged)]
    Unknown(u16),
}

impl RefuseCode {
    /// The largest code of an application.
    pub const MAX_APPLICATION: u16 = 0x7fff;

    /// Whether the same stream may be accepted later without anybody changing a setting.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Overloaded | Self::CallerLimit | Self::Deadline | Self::Leaving)
    }

    const fn number(self) -> u16 {
        match self {
            Self::UnknownService => 1,
            Self::NotAllowed => 2,
            Self::Overloaded => 3,
            Self::Deadline => 4,
            Self::Leaving => 5,
            Self::Version => 6,
            Self::BadHeader => 7,
            Self::CallerLimit => 0x38,
            Self::Application(code) if code > Self::MAX_APPLICATION => u16::MAX,
            Self::Application(code) => APPLICATION + code,
            Self::Unknown(number) => number,
        }
    }

    const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::UnknownService,
            2 => Self::NotAllowed,
            3 => Self::Overloaded,
            4 => Self::Deadline,
            5 => Self::Leaving,
            6 => Self::Version,
            7 => Self::BadHeader,
            0x38 => Self::CallerLimit,
            APPLICATION.. => Self::Application(number - APPLICATION),
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for RefuseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownService => f.write_str("the node offers no such service"),
            Self::NotAllowed => f.write_str("not allowed"),
            Self::Overloaded => f.write_str("the service is overloaded"),
            Self::CallerLimit => {
                f.write_str("the node holds as many streams of this caller as it may")
            }
            Self::Deadline => f.write_str("the deadline passed"),
            Self::Leaving => f.write_str("the node is leaving"),
            Self::Version => f.write_str("the node does not know this version of the header"),
            Self::BadHeader => f.write_str("the node could not read the header"),
            Self::Application(code) => write!(f, "refused with the application code {code}"),
            Self::Unknown(number) => write!(f, "refused with the unknown code {number}"),
        }
    }
}

/// A refusal, as the opener sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RefusedOpen {
    /// Why.
    pub code: RefuseCode,
    /// The other side's words, for people; at most [`MAX_TEXT`](Self::MAX_TEXT) bytes, without
    /// control characters.
    pub text: String,
}

impl RefusedOpen {
    /// The longest refusal, in bytes.
    pub(crate) const MAX_LEN: usize = 512;

    /// Maximum length of the text in bytes.
    pub const MAX_TEXT: usize = 256;

    /// A refusal without text.
    #[must_use]
    pub fn new(code: RefuseCode) -> Self {
        Self { code, text: String::new() }
    }

    /// Adds text for people at the other end, which is cut off after [`MAX_TEXT`](Self::MAX_TEXT)
    /// bytes.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.text = bounded(text);
        self
    }

    /// The answer as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = rmp_serde::to_vec(&(self.code.number(), &self.text))
            .expect("writing plain data to a vector cannot fail");
        [&[REFUSED][..], &body].concat()
    }

    /// Reads what follows the first byte. A refusal that cannot be read is a refusal all the same.
    pub(crate) fn decode(body: &[u8]) -> Self {
        match rmp_serde::from_slice::<(u16, String)>(body) {
            Ok((code, text)) => Self::new(RefuseCode::from_number(code)).with_text(&text),
            Err(_) => Self::new(RefuseCode::BadHeader),
        }
    }
}

impl From<RefuseCode> for RefusedOpen {
    fn from(code: RefuseCode) -> Self {
        Self::new(code)
    }
}

/// The start of a text, of at most [`RefusedOpen::MAX_TEXT`] bytes, without control characters.
fn bounded(text: &str) -> String {
    let mut bounded = String::new();
    for c in text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
        if bounded.len() + c.len_utf8() > RefusedOpen::MAX_TEXT {
            break;
        }
        bounded.push(c);
    }
    bounded
}

impl fmt::Display for RefusedOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_read_as_it_was_written() {
        let (_, page) = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"))
            .split_once("**REFUSED**")
            .unwrap();
        let (rows, _) = page.split_once("| what |").unwrap();
        for number in 0..=0x40 {
            let code = RefuseCode::from_number(number);
            assert_eq!(code.number(), number);
            let row = [format!("| {number} | {code}"), format!("| `{number:#x}` | {code}")];
            let is_listed = row.iter().any(|row| rows.contains(row));
            assert_eq!(is_listed, code != RefuseCode::Unknown(number), "on the page: {row:?}");
        }
        let refused = RefusedOpen { code: RefuseCode::Overloaded, text: "try later".to_owned() };
        assert_eq!(RefusedOpen::decode(&refused.encode()[1..]), refused);
        assert_eq!(RefusedOpen::decode(b"garbage").code, RefuseCode::BadHeader);
    }

    #[test]
    fn the_text_of_a_refusal_is_bounded_and_printable() {
        let long = RefusedOpen::new(RefuseCode::Application(7)).with_text(&"ä\n".repeat(500));
        assert!(long.text.len() <= RefusedOpen::MAX_TEXT && !long.text.contains('\n'));
        assert!(long.encode().len() < RefusedOpen::MAX_LEN);
        assert_eq!(RefusedOpen::decode(&long.encode()[1..]), long);
        let hostile = rmp_serde::to_vec(&(3_u16, "\u{1b}[31m")).unwrap();
        assert!(!RefusedOpen::decode(&hostile).text.contains('\u{1b}'));
    }

    #[test]
    fn codes_of_the_application_are_read_as_they_were_written() {
        for code in [0, 7, RefuseCode::MAX_APPLICATION] {
            let code = RefuseCode::Application(code);
            assert_eq!(RefuseCode::from_number(code.number()), code);
        }
        assert_eq!(RefuseCode::Application(7).number(), 0x8007);
        assert_eq!(RefuseCode::Application(u16::MAX).number(), u16::MAX);
    }
}
