//! Text for people: aligned columns, colours on a terminal only, and nothing that could steer the
//! terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// Replaces control characters, so that a text from the network cannot steer the terminal.
pub(in crate::cli) fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, |_| false)
}

/// A text of several lines, with a mark in front of all but the first, so that none can be mistaken
/// for a separate message.
pub(in crate::cli) fn escape_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| escape_except(line, |c| c == '\t')).collect();
    lines.join("\n  | ")
}

/// JSON in which characters that could steer a terminal are escaped as JSON escapes them.
pub(in crate::cli) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_harmless(c) {
            escaped.push(c);
        } else {
            escape_char_json(c, &mut escaped);
        }
    }
    escaped
}

/// Appends a character as JSON escapes it.
pub(in crate::cli) fn escape_char_json(c: char, to: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(to, "\\u{unit:04x}");
    }
}

fn escape_except(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| keep(c) || is_harmless(c);
    if text.chars().all(shown) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if shown(c) { escaped.push(c) } else { escape_char(c, &mut escaped) }
    }
    Cow::Owned(escaped)
}

/// Appends a character as an escape.
pub(in crate::cli) fn escape_char(c: char, to: &mut String) {
    to.extend(c.escape_default());
}

/// Whether a text is printable ASCII, as almost all names and addresses are. Finding out is cheap.
pub(in crate::cli) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a character neither steers a terminal nor changes the look of others.
pub(in crate::cli) fn is_harmless(c: char) -> bool {
    !(c.is_control() || is_invisible(c))
}

/// Characters that change the order or the look of their neighbours without being seen themselves.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A colour, used sparingly: for what the eye looks for first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cli) enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
    Bold,
}

/// Colours texts, or leaves them alone.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours if standard output is a terminal, and `NO_COLOR` is unset or empty.
    pub(in crate::cli) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: std::io::stdout().is_terminal() && !unwanted }
    }

    #[cfg(test)]
    pub(in crate::cli) fn off() -> Self {
        Self { on: false }
    }

    pub(in crate::cli) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Dim => "2",
            Colour::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Rows of cells, aligned by column. Cells are escaped when they are put in.
#[derive(Debug)]
pub(in crate::cli) struct Table<'a> {
    heads: Vec<Cell<'a>>,
    rows: Vec<Vec<Cell<'a>>>,
}

#[derive(Debug)]
pub(in crate::cli) struct Cell<'a> {
    text: Cow<'a, str>,
    /// Columns of the terminal that the text takes.
    width: usize,
    colour: Option<Colour>,
}

impl<'a> Table<'a> {
    pub(in crate::cli) fn new<const N: usize>(heads: [&'a str; N]) -> Self {
        let heads = heads.into_iter().map(|head| Cell::plain(head).coloured(Colour::Dim)).collect();
        Self { heads, rows: Vec::new() }
    }

    pub(in crate::cli) fn row<const N: usize>(&mut self, cells: [Cell<'a>; N]) {
        debug_assert_eq!(N, self.heads.len(), "a row has a cell for each head");
        self.rows.push(cells.into_iter().collect());
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line indented by two.
    pub(in crate::cli) fn render(&self, paint: Paint) -> String {
        let all = || std::iter::once(&self.heads).chain(&self.rows);
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| all().map(|row| row[column].width).max().unwrap_or_default())
            .collect();
        let mut text = String::new();
        for row in all() {
            text.push_str("  ");
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(last + 1) {
                match cell.colour.filter(|_| paint.on) {
                    Some(colour) => text.push_str(&paint.paint(colour, &cell.text)),
                    None => text.push_str(&cell.text),
                }
                if column < last {
                    text.extend(std::iter::repeat_n(' ', widths[column] - cell.width + 2));
                }
            }
            text.push('\n');
        }
        text
    }
}

impl<'a> Cell<'a> {
    pub(in crate::cli) fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let escaped = match escape(&text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(escaped) => Some(escaped),
        };
        let text = escaped.map_or(text, Cow::Owned);
        let width = if text.is_ascii() { text.len() } else { text.chars().count() };
        Self { text, width, colour: None }
    }

    pub(in crate::cli) fn coloured(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }
}

/// Milliseconds, with as many digits as the eye can use.
pub(in crate::cli) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// A span of time in its two largest units.
pub(in crate::cli) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_from_the_network_do_not_reach_the_terminal() {
        assert_eq!(escape("plain ünïcode"), "plain ünïcode");
        assert_eq!(escape("\x1b[2J\r\n\u{9b}31m"), "\\u{1b}[2J\\r\\n\\u{9b}31m");
        assert_eq!(escape("evil\u{202e}txt"), "evil\\u{202e}txt");
        assert_eq!(escape_lines("two\nlines\x07\r"), "two\n  | lines\\u{7}\\r");
        assert_eq!(escape_json("{\n \"a\": \"\u{9b}\u{202e}\"}"), "{\n \"a\": \"\\u009b\\u202e\"}");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(["NODE", "RTT"]);
        table.row([Cell::plain("a"), Cell::plain("1 ms")]);
        table.row([Cell::plain("longer"), Cell::plain("")]);
        assert_eq!(table.render(Paint::off()), "  NODE    RTT\n  a       1 ms\n  longer\n");
    }

    #[test]
    fn colours_do_not_change_the_alignment() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::plain("up").coloured(Colour::Green), Cell::plain("x")]);
        let coloured = table.render(Paint { on: true });
        assert_eq!(coloured, "  \x1b[2mA\x1b[0m   \x1b[2mB\x1b[0m\n  \x1b[32mup\x1b[0m  x\n");
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        assert_eq!(
            [0.1234, 12.34, 123.4, 12_345.0].map(millis),
            ["0.12 ms", "12.3 ms", "123 ms", "12.3 s"].map(str::to_owned)
        );
        assert_eq!(
            [1_500, 61_000, 3_700_000, 90_000_000].map(span),
            ["1 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"].map(str::to_owned)
        );
    }
}
