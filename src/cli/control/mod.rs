//! The control socket: how commands on this machine use a node that runs already, without joining the mesh.
//!
//! A Unix domain socket that only the node's user, and root, can use: it is made with mode 0600, it is never open to others for a
//! moment, and the node looks at the uid of who connects.
//!
//! # Protocol
//!
//! One request a connection. The client sends one line of JSON, of at most 64 KiB:
//!
//! ```json
//! {"do":"status"}
//! {"do":"converge","timeout_ms":5000}
//! {"do":"ping","node":"edge-1","timeout_ms":5000}
//! {"do":"trace","node":"edge-1"}
//! {"do":"explain","node":"edge-1"}
//! {"do":"send","node":"edge-1","directive":"text:upper"}
//! ```
//!
//! The node answers with one line: `{"ok":…}` with what was asked for, or `{"failed":{"exit":"unreachable","text":"…"}}` with an exit
//! status by name (`failed`, `usage`, `unreachable`, `refused`) and why.
//!
//! For `send`, data goes both ways in chunks, each with its length (big-endian u32, at most 64 KiB) before it, and a length of 0 after the
//! last one. Once the call is on its way the node sends `{"ok":null}`. Then the client sends the payload, the node sends the responses, both
//! at the same time, and after its last chunk the node sends a second line that says how the call ended. It may come before the payload
//! has ended. A client that closes the connection before that cancels the call.
//!
//! # Bounds
//!
//! 64 clients at a time; one more is told so. 5 s for a request to come, 10 s for an answer to be taken. A client that reads responses slowly
//! slows down its own call alone, and costs the node one chunk.

pub(super) mod client;
pub(super) mod listen;
pub(super) mod path;
mod protocol;
pub(super) mod server;
