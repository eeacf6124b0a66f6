//! Work: directives, calls and commands over mesh streams.
//!
//! A **call** asks another node for a [`Directive`]. It is one bidirectional stream to that node's
//! service `work`:
//!
//! ```text
//!   caller                                    executor
//!     │ CALL [version, id, directive, deadline]  │  Registry: known? room? open?
//!     ├─────────────────────────────────────────▶│──▶ handler (a task) or command (a process group)
//!     │ payload, raw, as it comes ┈┈┈ end        │        │ Payload: read as wanted
//!     ├─────────────────────────────────────────▶│───────▶│
//!     │      response [serial, last, code, …]    │        │ Responder: at most 4 wait
//!     │◀─────────────────────────────────────────│◀───────│
//!     │ … last response: code 0, or code and why │  what the handler returned, or that it panicked
//!     │◀─────────────────────────────────────────│ end
//! ```
//!
//! Both directions stream, with QUIC's backpressure: neither side holds more than a few pieces of
//! 64 KiB. Nothing is a success but a last response with code 0. The end of the payload means that
//! all of it was there; a payload that was cut off is an error.
//!
//! **Who ends a call, and how the others learn it**
//!
//! | what happens | caller sees | handler sees |
//! |---|---|---|
//! | handler returns `Ok` | last response, then `None` | |
//! | handler returns an error | [`CallError::Failed`] | |
//! | handler panics | [`CallError::Panicked`] | |
//! | caller drops its [`Responses`], or goes away | | dropped at its next await; [`Responder::cancelled`] resolves |
//! | deadline | [`CallError::Deadline`] | the same |
//! | [`Registry::shutdown`] | [`CallError::Leaving`], which says whether the call may have started | the same, after the grace |
//! | caller drops its [`PayloadWriter`] unfinished | what the handler makes of it | an error from [`Payload`] |
//! | handler drops its [`Payload`] early | writes fail; the responses go on | |
//!
//! A [`Command`] is a handler: a call that is cut off ends the process group.

mod builtin;
mod call;
mod capabilities;
mod code;
mod commands;
pub(crate) mod frame;
mod handler;
#[cfg(test)]
mod loopback;
mod payload;
mod registry;
mod responder;
mod rpc;
pub(crate) mod running;
mod serve;
pub mod unit;

pub use crate::id::{Directive, InvalidDirective};
pub use crate::work::commands::command::{Command, CommandStderr, InheritEnv};
pub use crate::work::commands::supervise::supervise;
pub use crate::work::running::backlog::RESPONSE_MEMORY;
pub use call::{Call, CallError, CallOptions, PayloadWriter, Response, Responses};
pub use code::Code;
pub use frame::{MAX_ERROR_TEXT, MAX_RESPONSE};
pub use handler::{HandlerError, Request};
pub use payload::{CollectError, Payload};
pub use registry::{
    CallCounts, DEFAULT_MAX_RUNNING, MAX_HANDLERS, RegisterError, Registry, RunningCall,
    StoredResponses,
};
pub use responder::{Responder, ResponseWriter, SendError};
pub use rpc::{MAX_RPC, RPC_DEADLINE, RpcError};
pub(crate) use rpc::{decode_response, encode_request, read_request, respond};

pub use builtin::{ActiveWork, PingError, Pong, TraceHop};
pub(crate) use builtin::{SpawnError, call_node, ping, remove_builtins, spawn, trace};
pub(crate) use capabilities::{capabilities, directives};
