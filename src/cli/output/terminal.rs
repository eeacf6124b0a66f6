//! Makes bytes from the network safe for a terminal.
//!
//! An escape sequence in a response could rename the window, hide text, or type into the shell.
//! Line ends and tabs are passed; every other control character is shown as an escape.

use super::text::{escape_char, is_harmless};

/// Turns a stream of bytes into text for a terminal. A character may be split between two pieces.
#[derive(Debug, Default)]
pub(in crate::cli) struct TerminalText {
    /// An incomplete character, maximum 3 bytes.
    begun: Vec<u8>,
    /// The last piece ended in a carriage return, which is only shown if no line feed follows.
    carriage_return: bool,
}

impl TerminalText {
    /// The text of the next piece.
    pub(in crate::cli) fn push(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| self.push_char(c, &mut text));
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_begin_of_character(invalid) {
                self.begun = invalid.to_vec();
            } else {
                self.push_bytes(invalid, &mut text);
            }
        }
        text
    }

    /// Renders the remaining bytes at the end.
    pub(in crate::cli) fn finish(&mut self) -> String {
        let mut text = String::new();
        let begun = std::mem::take(&mut self.begun);
        self.push_bytes(&begun, &mut text);
        self.end_carriage_return(&mut text);
        text
    }

    fn push_char(&mut self, c: char, text: &mut String) {
        match c {
            '\r' => {
                self.end_carriage_return(text);
                self.carriage_return = true;
            }
            '\n' => {
                self.carriage_return = false;
                text.push('\n');
            }
            c => {
                self.end_carriage_return(text);
                if c == '\t' || is_harmless(c) { text.push(c) } else { escape_char(c, text) }
            }
        }
    }

    /// A carriage return alone would let a line be overwritten.
    fn end_carriage_return(&mut self, text: &mut String) {
        if std::mem::take(&mut self.carriage_return) {
            text.push_str("\\r");
        }
    }

    fn push_bytes(&mut self, bytes: &[u8], text: &mut String) {
        use std::fmt::Write as _;
        for byte in bytes {
            self.end_carriage_return(text);
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// Whether more bytes could make a character of these.
fn is_begin_of_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut terminal = TerminalText::default();
        let text: String = pieces.iter().map(|piece| terminal.push(piece)).collect();
        text + &terminal.finish()
    }

    #[test]
    fn text_is_shown_as_it_is() {
        assert_eq!(shown(&["plain\tünïcode 漢\n".as_bytes()]), "plain\tünïcode 漢\n");
        assert_eq!(shown(&[b"dos\r\nlines\r", b"\n"]), "dos\nlines\n");
    }

    #[test]
    fn what_controls_a_terminal_is_shown_as_an_escape() {
        assert_eq!(shown(&[b"\x1b]0;title\x07"]), "\\u{1b}]0;title\\u{7}");
        assert_eq!(shown(&["\u{9b}31m\u{202e}".as_bytes()]), "\\u{9b}31m\\u{202e}");
        assert_eq!(shown(&[b"hidden\rshown\r"]), "hidden\\rshown\\r");
        assert_eq!(shown(&[b"\xff\xc3("]), "\\xff\\xc3(");
    }

    #[test]
    fn a_character_may_be_split_between_pieces() {
        let bytes = "漢\u{1b}".as_bytes();
        for at in 0..bytes.len() {
            assert_eq!(shown(&[&bytes[..at], &bytes[at..]]), "漢\\u{1b}");
        }
        assert_eq!(shown(&[b"cut \xe6", b"\xbc"]), "cut \\xe6\\xbc");
    }
}
