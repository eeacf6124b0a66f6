//! What two peers exchange about direct paths: one unidirectional stream each way of a peer
//! connection.
//!
//! A frame is a `u32` length and the MessagePack array that [`Message`] describes. Each end opens
//! its stream with the first message, at the highest priority. A peer that permits no such stream
//! never gets one, and is taken for one that has no direct paths.

use std::convert::Infallible;

use quinn::{ReadExactError, RecvStream};
use tokio::sync::mpsc;
use tracing::debug;

use super::path_input::PathInput;
use crate::id::NodeId;
use crate::mesh::input::Input;
use crate::mesh::services::connection::Connection;
use crate::punch::{DecodeError, Message};
use crate::transport::code::CloseCode;

/// The capacity of a peer connection's queue; when it is full messages are lost, and the round that
/// they belong to fails.
const MAX_WAITING: usize = 16;

/// Tells the driver of a connection, and hands messages to and fro for as long as it is polled.
/// An invalid message costs the peer the connection. Without a receiver direct paths are disabled,
/// and nothing happens.
pub(crate) async fn serve(
    connection: &Connection,
    peer: &NodeId,
    inputs: Option<&mpsc::Sender<Input>>,
) -> Infallible {
    let Some(inputs) = inputs else { return std::future::pending().await };
    let (messages, queue) = mpsc::channel(MAX_WAITING);
    let up = PathInput::Up { peer: peer.clone(), connection: connection.clone(), messages };
    // A driver that has gone takes the connection with it.
    let _ = inputs.send(Input::Path(up)).await;
    let receive = async {
        if let Err(error) = receive(connection, peer, inputs).await {
            debug!(%error, "closing");
            connection.close(error.code(), &error.to_string());
        }
    };
    tokio::join!(receive, send(connection, queue));
    std::future::pending().await
}

/// Tells the driver that a connection has ended.
pub(crate) async fn ended(
    connection: &Connection,
    peer: &NodeId,
    inputs: Option<&mpsc::Sender<Input>>,
) {
    if let Some(inputs) = inputs {
        let down = PathInput::Down { peer: peer.clone(), connection: connection.stable_id() };
        let _ = inputs.send(Input::Path(down)).await;
    }
}

async fn send(connection: &Connection, mut queue: mpsc::Receiver<Message>) {
    let Some(mut message) = queue.recv().await else { return };
    // It waits here for as long as the peer permits no stream.
    let Ok(mut stream) = connection.open_uni().await else { return };
    let _ = stream.set_priority(i32::MAX);
    loop {
        let body = message.encode();
        let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
        if stream.write_all(&frame).await.is_err() {
            return;
        }
        match queue.recv().await {
            Some(next) => message = next,
            None => return,
        }
    }
}

async fn receive(
    connection: &Connection,
    peer: &NodeId,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), ReceiveError> {
    let Ok(mut stream) = connection.accept_uni().await else { return Ok(()) };
    while let Some(body) = read_frame(&mut stream).await? {
        if let Some(message) = Message::decode(&body)? {
            let (peer, connection) = (peer.clone(), connection.stable_id());
            let input = PathInput::Message { peer, connection, message };
            if inputs.send(Input::Path(input)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next frame, without its length; `None` at the end of the stream or of the connection.
async fn read_frame(stream: &mut RecvStream) -> Result<Option<Vec<u8>>, ReceiveError> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return cut_off(&error),
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > Message::MAX_LEN {
        return Err(DecodeError::TooLong { len }.into());
    }
    let mut body = vec![0; len];
    match stream.read_exact(&mut body).await {
        Ok(()) => Ok(Some(body)),
        Err(error) => cut_off(&error),
    }
}

/// A stream that does not go on: with its connection, or by itself.
fn cut_off<T>(error: &ReadExactError) -> Result<Option<T>, ReceiveError> {
    match error {
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(_)) => Ok(None),
        _ => Err(ReceiveError::CutOff),
    }
}

/// Why the stream cannot be read any further. The peer's fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum ReceiveError {
    #[error("a message about direct paths could not be read: {0}")]
    Message(#[from] DecodeError),
    #[error("the stream of messages about direct paths was cut off")]
    CutOff,
}

impl ReceiveError {
    fn code(&self) -> CloseCode {
        match self {
            Self::Message(DecodeError::TooLong { .. }) => CloseCode::FrameTooLong,
            Self::Message(_) | Self::CutOff => CloseCode::BadFrame,
        }
    }
}
