//! Signals of the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;

/// SIGTERM and SIGINT (Ctrl-C): stop.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(super) fn watch() -> Result<Self, Failure> {
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    /// Waits for the next of them. Cancel safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP: reload.
pub(super) fn reload() -> Result<Signal, Failure> {
    watch(SignalKind::hangup())
}

fn watch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
}
