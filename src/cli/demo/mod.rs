//! `receptor demo`: a mesh at work, on this machine, in ten seconds.
//!
//! Five nodes on loopback with a throw-away CA: the controller and edge-2 in this process, the two
//! relays and edge-1 as processes of their own, so that a relay can be killed as the kernel would
//! kill it. Each step is checked: the demo succeeds only if all of it happened. Whatever happens,
//! nothing of it is left.

mod screen;
mod script;
mod stage;
mod transfer;

use std::io::Write;

use crate::cli::output::text::{Paint, escape_lines};
use crate::cli::process::exit::Failure;
use crate::cli::process::signals::Stop;
use screen::Screen;
use stage::Stage;

/// Plays the demo, and cleans up: also when a step failed, and on Ctrl-C.
pub(super) async fn run() -> Result<(), Failure> {
    let mut stop = Stop::watch()?;
    let screen = Screen::new(Paint::for_stdout());
    let mut stage = Stage::new()?;
    let played = tokio::select! {
        played = script::play(&mut stage, &screen) => played,
        () = stop.wait() => Err(Failure::failed("interrupted")),
    };
    let logs = if played.is_err() { stage.last_words() } else { String::new() };
    let cleaned = stage.close().await;
    if let Err(failure) = &played
        && !failure.is_quiet()
    {
        let _ = write!(std::io::stderr(), "{}", escape_lines(&logs));
    }
    played?;
    cleaned?;
    screen.step("cleaned up", "no process and no file is left")
}
