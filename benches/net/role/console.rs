//! The lines between the harness and a process.

use std::fmt::Write as _;

use tokio::sync::mpsc;

use crate::Result;

pub(super) struct Console(mpsc::UnboundedReceiver<String>);

impl Console {
    /// Says where the process listens. A thread reads the commands, so that the runtime does what
    /// is measured alone.
    pub(super) fn ready(addr: impl std::fmt::Display) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        println!("ok {addr}");
        Self(lines)
    }

    /// The next command; `None` when the harness is gone.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.0.recv().await
    }

    pub(super) fn answer(&self, answer: Result<Vec<f64>>) {
        let mut line = String::new();
        match answer {
            Ok(numbers) => {
                line.push_str("ok");
                for number in numbers {
                    let _ = write!(line, " {number}");
                }
            }
            Err(error) => {
                let _ = write!(line, "error {error}");
            }
        }
        println!("{line}");
    }
}
