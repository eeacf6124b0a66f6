//! Typed calls: a request and a response of serde, as MessagePack maps.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::CallError;
use super::handler::{HandlerError, Request};
use super::responder::Responder;
use crate::mesh::OpenError;

/// Maximum length of a request and of a response of a typed call, encoded, in bytes: 1 MiB. Larger
/// ones are for [`Node::call`](crate::Node::call), which streams.
pub const MAX_RPC: usize = 1 << 20;
/// How long a typed call may take by default: 30 s.
pub const RPC_DEADLINE: Duration = Duration::from_secs(30);

/// Why a typed call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The request cannot be encoded: the caller's fault. Nothing was sent.
    #[error("cannot encode the request: {0}")]
    Encode(String),
    /// The request is longer than [`MAX_RPC`]: the caller's fault. Nothing was sent.
    #[error("the request has {len} bytes; the maximum is {max}", max = MAX_RPC)]
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// The call could not be sent. Nothing was started.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The call failed; [`CallError::may_have_started`] says whether the handler may have run.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The response is not of the expected type: the two nodes disagree about it. The handler has
    /// run.
    #[error("cannot decode the response: {0}")]
    Decode(String),
}

impl RpcError {
    /// Whether the handler may have run, so that the call may have had effects.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        match self {
            Self::Encode(_) | Self::TooLong { .. } | Self::Open(_) => false,
            Self::Call(error) => error.may_have_started(),
            Self::Decode(_) => true,
        }
    }

    /// Whether another attempt may succeed without a change of a setting or of the program. It is
    /// safe to repeat only what may be done twice, or what has certainly
    /// [not started](Self::may_have_started).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Encode(_) | Self::TooLong { .. } | Self::Decode(_) => false,
            Self::Open(error) => error.is_transient(),
            Self::Call(error) => error.is_transient(),
        }
    }
}

/// Encodes a request. Maps carry the names of fields, so that fields can be added later.
pub(crate) fn encode_request(request: &(impl Serialize + ?Sized)) -> Result<Bytes, RpcError> {
    let bytes =
        rmp_serde::to_vec_named(request).map_err(|error| RpcError::Encode(error.to_string()))?;
    if bytes.len() > MAX_RPC {
        return Err(RpcError::TooLong { len: bytes.len() });
    }
    Ok(bytes.into())
}

/// Decodes a response.
pub(crate) fn decode_response<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RpcError> {
    rmp_serde::from_slice(bytes).map_err(|error| RpcError::Decode(error.to_string()))
}

/// Reads the request of a typed call at its handler.
pub(crate) async fn read_request<T: DeserializeOwned>(
    request: &mut Request,
) -> Result<T, HandlerError> {
    let bytes = request.payload.collect(MAX_RPC).await?;
    rmp_serde::from_slice(&bytes)
        .map_err(|error| HandlerError::new(format!("cannot decode the request: {error}")))
}

/// Sends the response of a typed call.
pub(crate) async fn respond(
    responder: &Responder,
    response: &impl Serialize,
) -> Result<(), HandlerError> {
    let bytes = rmp_serde::to_vec_named(response)
        .map_err(|error| HandlerError::new(format!("cannot encode the response: {error}")))?;
    if bytes.len() > MAX_RPC {
        let text = format!("the response has {} bytes; the maximum is {MAX_RPC}", bytes.len());
        return Err(HandlerError::new(text));
    }
    Ok(responder.reply(bytes).await?)
}
