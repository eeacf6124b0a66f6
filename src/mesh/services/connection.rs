//! A QUIC connection with the first cause of its end beside it.
//!
//! QUIC keeps one reason and replaces it when the connection is closed again, so what a handle
//! reports would depend on when it asks. Here the first cause is recorded once, and every error of
//! the connection is read through that record.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use quinn::ConnectionError;

use super::ending::Cause;
use crate::mesh::services::opening::open::LastHeader;
use crate::mesh::services::windows::window_need::WindowNeed;
use crate::mesh::services::windows::writers::Writers;
use crate::mesh::services::windows::written::Written;
use crate::transport::code::CloseCode;
use crate::transport::congestion::Steering;

/// What a connection shares with its streams: the first cause of its end, a count of what they
/// write, and those that wait to write. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstCause(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cause: OnceLock<Cause>,
    written: Written,
    writers: Arc<Writers>,
}

impl FirstCause {
    /// Records a cause, unless one is recorded already.
    pub(crate) fn record(&self, cause: Cause) {
        let _ = self.0.cause.set(cause);
    }

    /// What an error of the connection means: the first cause, which this error is if none is
    /// recorded.
    pub(crate) fn of(&self, error: &ConnectionError) -> Cause {
        self.0.cause.get_or_init(|| Cause::of(error)).clone()
    }

    /// Counts what streams of the connection write.
    pub(crate) fn written(&self) -> &Written {
        &self.0.written
    }

    /// The streams of the connection that wait for room.
    pub(crate) fn writers(&self) -> &Arc<Writers> {
        &self.0.writers
    }
}

/// A link or a peer connection. Clones share it.
///
/// It shadows [`quinn::Connection::close`]: closing a connection that has ended changes nothing,
/// and says nothing.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    quic: quinn::Connection,
    first: FirstCause,
    need: Arc<WindowNeed>,
    header: Arc<LastHeader>,
}

impl Connection {
    pub(crate) fn new(quic: quinn::Connection) -> Self {
        Self { quic, first: FirstCause::default(), need: Arc::default(), header: Arc::default() }
    }

    /// The handle to the congestion controller.
    pub(crate) fn steering(&self) -> Option<Arc<Steering>> {
        Steering::of(&self.quic)
    }

    /// The record of why it ended, for streams on it.
    pub(crate) fn first_cause(&self) -> &FirstCause {
        &self.first
    }

    /// What streams on it were last opened for.
    pub(crate) fn last_header(&self) -> &LastHeader {
        &self.header
    }

    /// Wakes what grows the receive window.
    pub(crate) fn need(&self) -> &WindowNeed {
        &self.need
    }

    /// Closes the connection, if it has not ended before.
    pub(crate) fn close(&self, code: CloseCode, text: &str) {
        self.close_because(Cause::here(code, text), code, text);
    }

    /// As [`close`](Self::close), where the close only acknowledges an end with another cause.
    pub(crate) fn close_because(&self, cause: Cause, code: CloseCode, text: &str) {
        if self.ended().is_none() {
            self.first.record(cause);
            self.quic.close(code.to_quic(), text.as_bytes());
        }
    }

    /// Records why the connection is about to end, before it does.
    pub(crate) fn will_end(&self, cause: Cause) {
        if self.ended().is_none() {
            self.first.record(cause);
        }
    }

    /// Why it has ended; `None` while it has not.
    pub(crate) fn ended(&self) -> Option<Cause> {
        self.quic.close_reason().map(|error| self.first.of(&error))
    }

    /// Waits for its end.
    pub(crate) async fn closed(&self) -> Cause {
        let error = self.quic.closed().await;
        self.first.of(&error)
    }
}

impl Deref for Connection {
    type Target = quinn::Connection;

    fn deref(&self) -> &quinn::Connection {
        &self.quic
    }
}

#[cfg(test)]
mod tests {
    use super::super::ending::EndReason;
    use super::*;

    #[test]
    fn the_first_cause_stays() {
        let first = FirstCause::default();
        let seen = first.of(&ConnectionError::TimedOut);
        assert_eq!(seen, Cause::network(EndReason::Unreachable));
        first.record(Cause::this(EndReason::Idle));
        assert_eq!(first.of(&ConnectionError::LocallyClosed), seen);

        let first = FirstCause::default();
        first.record(Cause::this(EndReason::Idle));
        assert_eq!(first.of(&ConnectionError::LocallyClosed), Cause::this(EndReason::Idle));
    }
}
