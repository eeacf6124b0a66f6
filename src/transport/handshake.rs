//! HELLO, both ways, on the control stream.
//!
//! ```text
//!   dialler                                   acceptor
//!      │ ── QUIC and TLS 1.3, both certificates ── │
//!      │ opens the control stream, HELLO ────────▶ │ id in the certificate? version in common?
//!      │ ◀──────────────────────────────── HELLO   │
//!      │ id in the certificate? the one expected?  │
//! ```

use quinn::{Connection, ConnectionError};

use super::code::CloseCode;
use super::endpoint::Authenticated;
use super::endpoint::tls::peer_ids;
use super::frame::{Frame, FrameReader, Hello, ReadFrameError, VERSIONS};
use super::identity::presented::Sighting;
use super::identity::verify::certificate_error::WrongName;
use super::{Refusal, RefusalReason};
use crate::id::NodeId;

/// A connection to a neighbour whose HELLO is done.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) connection: Authenticated,
    /// The neighbour's.
    pub(crate) hello: Hello,
    /// Ours, as it was sent.
    pub(crate) own: Hello,
    pub(crate) dialled: bool,
    pub(crate) control: quinn::SendStream,
    pub(crate) frames: FrameReader,
}

/// Says HELLO first.
pub(crate) async fn dial(
    connection: Authenticated,
    own: Hello,
    expected: Option<&NodeId>,
) -> Result<Established, HandshakeError> {
    let unfinished = Unfinished(Some(Connection::clone(&connection)));
    let (mut control, recv) = connection.open_bi().await?;
    // Control has priority over all data on the link.
    let _ = control.set_priority(i32::MAX);
    control.write_all(&Frame::Hello(Box::new(own.clone())).encode()).await?;
    let mut frames = FrameReader::new(recv);
    let hello = read_hello(&connection, &mut frames).await?;
    check(&connection, &hello, &own)?;
    if let Some(expected) = expected.filter(|expected| **expected != hello.id) {
        let wrong = WrongName { expected: Some(expected.clone()), found: vec![hello.id] };
        return Err(refuse(&connection, HandshakeError::WrongName(wrong)));
    }
    unfinished.finish();
    Ok(Established { connection, hello, own, dialled: true, control, frames })
}

/// Answers a HELLO.
pub(crate) async fn accept(
    connection: Authenticated,
    own: Hello,
) -> Result<Established, HandshakeError> {
    let unfinished = Unfinished(Some(Connection::clone(&connection)));
    let (mut control, recv) = connection.accept_bi().await?;
    let _ = control.set_priority(i32::MAX);
    let mut frames = FrameReader::new(recv);
    let hello = read_hello(&connection, &mut frames).await?;
    check(&connection, &hello, &own)?;
    control.write_all(&Frame::Hello(Box::new(own.clone())).encode()).await?;
    unfinished.finish();
    Ok(Established { connection, hello, own, dialled: false, control, frames })
}

/// A connection whose HELLO exchange is not complete. Dropping it closes the connection, which
/// notifies the peer; a connection that was refused before keeps the code of that refusal.
struct Unfinished(Option<Connection>);

impl Unfinished {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            refuse(&connection, HandshakeError::Timeout);
        }
    }
}

async fn read_hello(
    connection: &Connection,
    frames: &mut FrameReader,
) -> Result<Hello, HandshakeError> {
    match frames.next().await {
        Ok(Some(Frame::Hello(hello))) => Ok(*hello),
        Ok(_) => Err(refuse(connection, HandshakeError::NoHello)),
        Err(ReadFrameError::Frame(error)) => {
            let (code, text) = (error.code(), error.to_string());
            Err(refuse(connection, HandshakeError::BadFrame { code, text }))
        }
        Err(ReadFrameError::Stream(quinn::ReadError::ConnectionLost(error))) => Err(error.into()),
        Err(ReadFrameError::Stream(_)) => Err(refuse(connection, HandshakeError::NoHello)),
    }
}

fn check(connection: &Connection, hello: &Hello, own: &Hello) -> Result<(), HandshakeError> {
    if !hello.versions.iter().any(|version| VERSIONS.contains(version)) {
        return Err(refuse(connection, HandshakeError::Version { theirs: hello.versions.clone() }));
    }
    let names = certified_names(connection);
    if hello.id.suffix().is_some() && !hello.stub {
        return Err(refuse(connection, HandshakeError::Suffix { id: hello.id.clone() }));
    }
    if !names.contains(&hello.id.base()) {
        let wrong = WrongName { expected: Some(hello.id.clone()), found: names };
        return Err(refuse(connection, HandshakeError::WrongName(wrong)));
    }
    if hello.id == own.id && hello.instance == own.instance {
        return Err(refuse(connection, HandshakeError::SelfLink));
    }
    if hello.id == own.id {
        return Err(refuse(connection, HandshakeError::DuplicateId { id: own.id.clone() }));
    }
    if hello.id.addr() == own.id.addr() {
        let error = HandshakeError::AddressCollision { id: hello.id.clone() };
        return Err(refuse(connection, error));
    }
    Ok(())
}

/// The ids in the peer's certificate.
pub(crate) fn certified_names(connection: &Connection) -> Vec<NodeId> {
    peer_ids(connection).unwrap_or_default()
}

/// Closes the connection with the code and text of the error.
fn refuse(connection: &Connection, error: HandshakeError) -> HandshakeError {
    if let Some(code) = error.code() {
        connection.close(code.to_quic(), error.to_string().as_bytes());
    }
    error
}

/// Why two nodes did not become neighbours. The connection is closed; what next depends on whose
/// fault it is.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    Lost(ConnectionError),
    #[error("{0}")]
    WrongName(WrongName),
    #[error("this is the node itself")]
    SelfLink,
    #[error("another live node has the id {id}")]
    DuplicateId { id: NodeId },
    #[error("only an ephemeral node may have a suffix in its id, and {id} is none")]
    Suffix { id: NodeId },
    #[error("the id {id} has the same address as this node's")]
    AddressCollision { id: NodeId },
    #[error("no protocol version in common: {theirs:?} offered, {VERSIONS:?} known")]
    Version { theirs: Vec<u16> },
    #[error("{text}")]
    BadFrame { code: CloseCode, text: String },
    #[error("the control stream did not begin with HELLO")]
    NoHello,
    #[error("the handshake was not finished in time")]
    Timeout,
}

impl HandshakeError {
    /// The code to close with; `None` if the other side closed.
    fn code(&self) -> Option<CloseCode> {
        Some(match self {
            Self::Refused(_) | Self::Lost(_) => return None,
            Self::WrongName(_) => CloseCode::WrongName,
            Self::SelfLink => CloseCode::SelfLink,
            Self::DuplicateId { .. } => CloseCode::DuplicateId,
            Self::AddressCollision { .. } => CloseCode::AddressCollision,
            Self::Suffix { .. } => CloseCode::SuffixedId,
            Self::Version { .. } => CloseCode::Version,
            Self::BadFrame { code, .. } => *code,
            Self::NoHello => CloseCode::BadFrame,
            Self::Timeout => CloseCode::HandshakeTimeout,
        })
    }

    /// Adds what the certificate that this node has refused says of itself.
    pub(crate) fn presenting(self, sighting: &Sighting) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.presenting(sighting.presented())),
            error => error,
        }
    }

    /// The refusal behind the error, if authentication or permission is what failed.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::WrongName(WrongName { expected, found }) => {
                let (expected, found) = (expected.clone(), found.clone());
                Some(Refusal::here(RefusalReason::WrongName { expected, found }))
            }
            Self::DuplicateId { .. } => Some(Refusal::here(RefusalReason::DuplicateId)),
            _ => None,
        }
    }
}

impl From<ConnectionError> for HandshakeError {
    fn from(error: ConnectionError) -> Self {
        match Refusal::from_connection_error(&error) {
            Some(refusal) => Self::Refused(refusal),
            None => Self::Lost(error),
        }
    }
}

impl From<quinn::WriteError> for HandshakeError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => error.into(),
            _ => Self::NoHello,
        }
    }
}
