//! Signals of the process.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::exit::Failure;

/// Signals this shortly after the first belong to it.
const ECHO: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT (Ctrl-C): stop.
#[derive(Debug)]
pub(in crate::cli) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(in crate::cli) fn watch() -> Result<Self, Failure> {
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them that is not the first one's echo: `timeout`, terminals and supervisors
    /// that signal a process and its group send two at once. Cancel safe.
    pub(in crate::cli) async fn wait_again(&mut self) {
        let first = Instant::now();
        loop {
            self.wait().await;
            if first.elapsed() >= ECHO {
                return;
            }
        }
    }

    /// Waits for the next of them. Cancel safe.
    pub(in crate::cli) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP: reload.
pub(in crate::cli) fn reload() -> Result<Signal, Failure> {
    watch(SignalKind::hangup())
}

fn watch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
}
