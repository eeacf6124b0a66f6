//! JSON documents that travel through the control socket as text.
//!
//! The status of a hub with thousands of stubs is megabytes of JSON. It is written once, by the
//! node, and read once, into what the client needs of it.

use std::cell::Cell;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::text::{escape_char_json, is_harmless, is_plain};

/// A JSON document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Document(Box<RawValue>);

impl Document {
    pub(in crate::cli) fn of(value: &impl Serialize) -> Self {
        Self(to_raw_value(value).expect("plain data is JSON"))
    }

    /// An array, written item by item.
    pub(in crate::cli) fn of_all<T: Serialize>(items: impl Iterator<Item = T>) -> Self {
        Self::of(&Items(Cell::new(Some(items))))
    }

    /// # Errors
    /// The document does not have the form of a `T`.
    pub(in crate::cli) fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.0.get())
    }

    /// Lines for a terminal: indented by two, and characters that could steer the terminal are
    /// escaped as JSON escapes them.
    pub(in crate::cli) fn pretty(&self) -> String {
        pretty(self.0.get())
    }
}

/// What is serialised once.
struct Items<I>(Cell<Option<I>>);

impl<I: Iterator<Item: Serialize>> Serialize for Items<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten())
    }
}

/// Indents a valid document. Outside of strings it may contain any white space.
fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut rest = json;
    while let Some(first) = rest.bytes().next() {
        // Outside of strings JSON is ASCII.
        let (token, behind) = rest.split_at(if first == b'"' { string_len(rest) } else { 1 });
        rest = behind;
        match first {
            b'"' => escape_into(token, &mut text),
            b'{' | b'[' => {
                text.push_str(token);
                rest = rest.trim_ascii_start();
                // An empty collection stays on its line.
                if rest.starts_with(['}', ']']) {
                    let (close, behind) = rest.split_at(1);
                    text.push_str(close);
                    rest = behind;
                } else {
                    depth += 1;
                    new_line(depth, &mut text);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                new_line(depth, &mut text);
                text.push_str(token);
            }
            b',' => {
                text.push_str(token);
                new_line(depth, &mut text);
            }
            b':' => text.push_str(": "),
            _ if first.is_ascii_whitespace() => {}
            _ => text.push_str(token),
        }
    }
    text
}

fn new_line(depth: usize, text: &mut String) {
    text.push('\n');
    (0..depth).for_each(|_| text.push_str("  "));
}

/// The length of the string that `json` begins with, both quotes included.
fn string_len(json: &str) -> usize {
    let mut bytes = json.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return at + 1,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    json.len()
}

fn escape_into(string: &str, text: &mut String) {
    // Most strings are names and addresses.
    if is_plain(string) {
        return text.push_str(string);
    }
    for c in string.chars() {
        if is_harmless(c) { text.push(c) } else { escape_char_json(c, text) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_document_is_indented_as_serde_json_does_it() {
        let value = json!({ "a": [1, -2.5, true, null], "b": {}, "c": [], "d": { "e": "x, [y]: {z} \" \\" }, "f": "ü" });
        assert_eq!(Document::of(&value).pretty(), format!("{value:#}"));
        let spaced = format!("{value:#}");
        assert_eq!(pretty(&spaced), spaced);
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped_and_reads_the_same() {
        let value = json!({ "\u{9b}31m": "\u{202e}\u{1b}[2J\n" });
        let text = Document::of(&value).pretty();
        assert!(text.chars().all(|c| c == '\n' || is_harmless(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
