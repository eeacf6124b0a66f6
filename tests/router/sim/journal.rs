//! The last things that happened, for a report on what failed.

use std::collections::VecDeque;
use std::fmt::Write as _;

use receptor_quic::NodeId;
use receptor_quic::router::{Message, Record, Transmit};

use super::{Action, Sim};

/// Lines that are kept, if `RECEPTOR_JOURNAL` does not say how many.
const LINES: usize = 120;

pub(crate) struct Journal {
    lines: VecDeque<String>,
    most: usize,
}

impl Sim {
    /// Keeps the last things that happen from now on, and prints them if the test fails.
    pub(crate) fn keep_journal(&mut self) {
        let most = std::env::var("RECEPTOR_JOURNAL")
            .ok()
            .and_then(|most| most.parse().ok())
            .unwrap_or(LINES);
        self.journal = Some(Journal { lines: VecDeque::new(), most });
    }

    /// Notes what happens. The text is made only where it is kept.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let time = self.now - self.start;
        if let Some(Journal { lines, most }) = &mut self.journal {
            if lines.len() >= *most {
                lines.pop_front();
            }
            lines.push_back(format!("{:>12.6} {}", time.as_secs_f64(), text()));
        }
    }
}

/// Tells what happened last, however the history ended.
impl Drop for Journal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lines.iter().for_each(|line| println!("{line}"));
        }
    }
}

pub(super) fn describe(action: &Action) -> String {
    match action {
        Action::Up(number, end) => format!("connection {number} is up at end {end}"),
        Action::Down(number, end) => {
            format!("connection {number} is seen to have ended at end {end}")
        }
        Action::Deliver(number, end, frame) => {
            let message = Message::decode(frame).ok().flatten();
            format!(
                "connection {number} brings end {end} {}",
                message.map_or_else(String::new, |m| brief(&m))
            )
        }
        Action::Writable(number, end) => format!("connection {number} can take more at end {end}"),
        Action::Wake(name) => format!("{name} wakes"),
        Action::Break(number, seen) => format!("connection {number} ends, seen {seen:?}"),
        Action::Redial(ends, _) => format!("{} dials {}", ends[0], ends[1]),
        Action::Quit(name) => format!("{name} quits"),
    }
}

pub(super) fn sends(from: &NodeId, transmit: &Transmit) -> String {
    format!("{from} sends {} {}", transmit.to, brief(&transmit.message))
}

fn brief(message: &Message) -> String {
    match message {
        Message::Update(advertisement) => match Record::decode(advertisement) {
            Ok(record) => {
                let mut text = format!("UPDATE {} {}", record.origin, record.version);
                for link in &record.links {
                    let _ = write!(text, " {}:{}", link.peer, link.cost.get());
                }
                text
            }
            Err(error) => format!("UPDATE, bad: {error}"),
        },
        Message::Have(entries) => {
            let ids =
                entries.iter().map(|entry| format!(" {} {}", entry.origin, entry.stamp.version));
            format!("HAVE{}", ids.collect::<String>())
        }
        Message::Summary { entries, .. } => {
            let ids =
                entries.iter().map(|entry| format!(" {} {}", entry.origin, entry.stamp.version));
            format!("SUMMARY{}", ids.collect::<String>())
        }
        other => format!("{other:?}"),
    }
}
