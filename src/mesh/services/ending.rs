//! Who ended a stream, a datagram sender or a call, and why.

use std::fmt;

use quinn::ConnectionError;

use crate::mesh::services::opening::refuse::RefusedOpen;
use crate::transport::code::{CloseCode, StreamCode};
use crate::transport::refusal::readable;
use crate::transport::{Refusal, RefusalReason};

/// Who ended a stream, a [datagram sender](crate::DatagramSender) or a call, why, and how far it
/// got.
///
/// The first cause of a connection's end is recorded once. Every handle that used the connection
/// reports that cause, whether it was waiting at that moment or asks later. A stream with its own
/// peer timeout may end before its connection, and then reports that for itself. Obtained from
/// [`StreamError::ending`](crate::StreamError::ending),
/// [`DatagramError::ending`](crate::DatagramError::ending) or
/// [`CallError::ending`](crate::CallError::ending).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ending {
    /// Which side ended it.
    pub by: EndedBy,
    /// Why.
    pub why: EndReason,
    /// Payload bytes that went through this handle before: bytes read by the application, or bytes
    /// accepted for sending, of which the last window may not have arrived. Headers and frames of
    /// this crate are not counted.
    pub bytes: u64,
    in_handshake: bool,
}

/// Which side ended something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EndedBy {
    /// This node.
    This,
    /// The node at the other end.
    Other,
    /// Neither: packets no longer arrive.
    Network,
}

/// Why something ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndReason {
    /// The node shut down in order.
    ShutDown,
    /// The node's last handle was dropped, or its runtime ended, without a shutdown.
    Dropped,
    /// The other node's process was replaced by a new one, which knows nothing of the connection.
    Restarted,
    /// Another connection between the same two nodes took this one's place.
    Replaced,
    /// The connection was not used for the idle limit.
    Idle,
    /// One of the two nodes does not accept the other; [`Ending::by`] is the one that refused.
    NotTrusted(Refusal),
    /// No packet of the other node arrived for longer than the liveness limit: it was killed, cut
    /// off or suspended.
    Unreachable,
    /// The mesh had no route to the other node for too long.
    NoRoute,
    /// This node's policy no longer allows the stream. The other end gets
    /// [`StreamCode::NotAllowed`].
    NotAllowed,
    /// The stream was not accepted.
    Refused(RefusedOpen),
    /// The sender of the stream gave up.
    Reset(StreamCode),
    /// The receiver of the stream wants no more.
    Stopped(StreamCode),
    /// The connection was closed for another reason.
    Closed {
        /// The named code.
        code: CloseCode,
        /// The closing side's words, for people.
        text: String,
    },
    /// QUIC itself failed.
    Transport {
        /// What was seen.
        text: String,
    },
}

impl Ending {
    pub(crate) fn new(Cause { by, why, in_handshake }: Cause, bytes: u64) -> Self {
        Self { by, why, bytes, in_handshake }
    }

    pub(crate) fn cause(self) -> Cause {
        Cause { by: self.by, why: self.why, in_handshake: self.in_handshake }
    }

    /// Whether the other node refused this one in the handshake: it processed nothing that was sent
    /// on the connection.
    #[must_use]
    pub fn in_handshake(&self) -> bool {
        self.in_handshake
    }

    /// Whether the other node could not be reached: it is cut off, killed or restarted, or there
    /// was no route.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self.why, EndReason::Unreachable | EndReason::NoRoute | EndReason::Restarted)
    }

    /// The close code that this end stands for; `None` if the connection was not closed with one.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match &self.why {
            EndReason::ShutDown => Some(CloseCode::Leaving),
            EndReason::Dropped => Some(CloseCode::Dropped),
            EndReason::Replaced => Some(CloseCode::Replaced),
            EndReason::Idle => Some(CloseCode::Idle),
            EndReason::Closed { code, .. } => Some(*code),
            EndReason::NotTrusted(refusal) => Some(refusal.close_code()),
            EndReason::Restarted
            | EndReason::NotAllowed
            | EndReason::Unreachable
            | EndReason::NoRoute
            | EndReason::Refused(_)
            | EndReason::Reset(_)
            | EndReason::Stopped(_)
            | EndReason::Transport { .. } => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cause(f, self.by, &self.why)?;
        match self.bytes {
            0 => f.write_str("; nothing was transferred before"),
            1 => f.write_str("; 1 byte was transferred before"),
            bytes => write!(f, "; {bytes} bytes were transferred before"),
        }
    }
}

/// Who ended a connection, and why: an [`Ending`] without a handle's count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cause {
    pub(crate) by: EndedBy,
    pub(crate) why: EndReason,
    /// Whether the other node refused the handshake.
    in_handshake: bool,
}

impl Cause {
    /// This node closes a connection.
    pub(crate) fn here(code: CloseCode, text: &str) -> Self {
        match EndReason::of_close(code, text) {
            EndReason::Unreachable => Self::network(EndReason::Unreachable),
            why => Self::this(why),
        }
    }

    pub(crate) fn this(why: EndReason) -> Self {
        Self { by: EndedBy::This, why, in_handshake: false }
    }

    pub(crate) fn other(why: EndReason) -> Self {
        Self { by: EndedBy::Other, why, in_handshake: false }
    }

    /// Whether the other node announced the end: it has shut down, or was dropped.
    pub(crate) fn is_announced(&self) -> bool {
        self.by == EndedBy::Other && matches!(self.why, EndReason::ShutDown | EndReason::Dropped)
    }

    /// Whether the other node has shut down in order.
    pub(crate) fn is_leave(&self) -> bool {
        self.by == EndedBy::Other && self.why == EndReason::ShutDown
    }

    pub(crate) fn network(why: EndReason) -> Self {
        Self { by: EndedBy::Network, why, in_handshake: false }
    }

    /// What QUIC reports, where nothing was recorded before.
    pub(crate) fn of(error: &ConnectionError) -> Self {
        if let Some(refusal) = Refusal::from_connection_error(error) {
            let by = if Refusal::by_peer(error) { EndedBy::Other } else { EndedBy::This };
            // QUIC itself closes for an alert of TLS. One about certificates comes in the handshake
            // only.
            let in_handshake = matches!(error, ConnectionError::ConnectionClosed(_))
                && !matches!(refusal.reason, RefusalReason::Other { .. });
            return Self { by, why: EndReason::NotTrusted(refusal), in_handshake };
        }
        match error {
            ConnectionError::ApplicationClosed(close) => {
                match EndReason::of_close(close.error_code.into(), &readable(&close.reason)) {
                    // Each end has heard nothing from the other one for a while.
                    EndReason::Unreachable => Self::network(EndReason::Unreachable),
                    why => Self::other(why),
                }
            }
            // Every other local close is recorded before: this is the endpoint's, which ends all
            // connections.
            ConnectionError::LocallyClosed => Self::this(EndReason::ShutDown),
            ConnectionError::TimedOut => Self::network(EndReason::Unreachable),
            // The process that holds the other end's key does not know the connection.
            ConnectionError::Reset => Self::other(EndReason::Restarted),
            ConnectionError::ConnectionClosed(close) => {
                Self::other(EndReason::Transport { text: readable(close.to_string().as_bytes()) })
            }
            ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted => {
                Self::this(EndReason::Transport { text: readable(error.to_string().as_bytes()) })
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cause(f, self.by, &self.why)
    }
}

impl EndReason {
    fn of_close(code: CloseCode, text: &str) -> Self {
        match code {
            CloseCode::Leaving => Self::ShutDown,
            CloseCode::Dropped => Self::Dropped,
            CloseCode::Replaced | CloseCode::DuplicateLink => Self::Replaced,
            CloseCode::Idle => Self::Idle,
            CloseCode::Unreachable => Self::Unreachable,
            CloseCode::NoRoute => Self::NoRoute,
            _ => match RefusalReason::from_close_code(code, text.as_bytes()) {
                Some(reason) => Self::NotTrusted(Refusal::here(reason)),
                None => Self::Closed { code, text: text.to_owned() },
            },
        }
    }
}

fn write_cause(f: &mut fmt::Formatter<'_>, by: EndedBy, why: &EndReason) -> fmt::Result {
    let side = match by {
        EndedBy::This => "this node",
        EndedBy::Other => "the other node",
        EndedBy::Network => "the network",
    };
    match why {
        EndReason::ShutDown => write!(f, "{side} has shut down"),
        EndReason::Dropped => write!(f, "{side} was dropped without a shutdown"),
        EndReason::Restarted => {
            f.write_str("the other node became unreachable: its process was replaced by a new one")
        }
        EndReason::Replaced => write!(f, "{side} replaced the connection with another one"),
        EndReason::Idle => write!(f, "{side} closed the connection because it was not used"),
        EndReason::NotTrusted(refusal) => write!(f, "{side} refused the connection: {refusal}"),
        EndReason::Unreachable => {
            f.write_str("the other node is unreachable: nothing arrived from it in time")
        }
        EndReason::NoRoute => f.write_str("the other node is unreachable: there is no route to it"),
        EndReason::NotAllowed => write!(f, "{side} no longer allows the stream"),
        EndReason::Refused(why) => write!(f, "{side} refused the stream: {why}"),
        EndReason::Reset(code) => write!(f, "{side} reset the stream: {code}"),
        EndReason::Stopped(code) => write!(f, "{side} stopped reading: {code}"),
        EndReason::Closed { code, text } if text.is_empty() => {
            write!(f, "{side} closed the connection: {code}")
        }
        EndReason::Closed { code, text } => {
            write!(f, "{side} closed the connection: {code} ({text})")
        }
        EndReason::Transport { text } => {
            write!(f, "{side} closed the connection after an error of QUIC: {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, VarInt};

    use super::*;

    fn closed_by_peer(code: CloseCode, reason: &'static [u8]) -> Cause {
        let close = ApplicationClose { error_code: code.to_quic(), reason: reason.into() };
        Cause::of(&ConnectionError::ApplicationClosed(close))
    }

    #[test]
    fn a_close_by_the_other_node_is_blamed_on_it() {
        assert_eq!(closed_by_peer(CloseCode::Leaving, b""), Cause::other(EndReason::ShutDown));
        assert_eq!(closed_by_peer(CloseCode::Dropped, b""), Cause::other(EndReason::Dropped));
        assert_eq!(
            closed_by_peer(CloseCode::DuplicateLink, b""),
            Cause::other(EndReason::Replaced)
        );
        for (cause, by) in [
            (closed_by_peer(CloseCode::Denied, b""), EndedBy::Other),
            (Cause::here(CloseCode::Denied, ""), EndedBy::This),
        ] {
            assert_eq!(cause.by, by);
            assert!(
                matches!(&cause.why, EndReason::NotTrusted(refusal) if refusal.reason == RefusalReason::Denied),
                "{cause}"
            );
        }
        let overloaded =
            EndReason::Closed { code: CloseCode::Overloaded, text: "too many".to_owned() };
        assert_eq!(closed_by_peer(CloseCode::Overloaded, b"too many"), Cause::other(overloaded));
    }

    #[test]
    fn silence_and_resets_are_not_blamed_on_this_node() {
        assert_eq!(Cause::of(&ConnectionError::TimedOut), Cause::network(EndReason::Unreachable));
        assert_eq!(Cause::of(&ConnectionError::Reset), Cause::other(EndReason::Restarted));
        for text in [Cause::of(&ConnectionError::TimedOut), Cause::of(&ConnectionError::Reset)] {
            assert!(text.to_string().contains("unreachable"), "{text}");
        }
    }

    #[test]
    fn the_words_of_the_other_node_are_bounded_and_printable() {
        let close = ApplicationClose {
            error_code: VarInt::from_u32(0xffff),
            reason: format!("\u{1b}[31m\n{}", "x".repeat(5_000)).into_bytes().into(),
        };
        let text = Cause::of(&ConnectionError::ApplicationClosed(close)).to_string();
        assert!(text.chars().count() < Refusal::MAX_REASON + 100, "{} characters", text.len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
