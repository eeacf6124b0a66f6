//! The control socket: how commands on this machine use a node that runs already, without joining the mesh.
//!
//! A Unix domain socket that only the node's user, and root, can use: it is made with mode 0600, it
//! is never open to others for a moment, and the node looks at the uid of who connects. A client
//! trusts only its own user, root, and the user whom root gave a directory in `/run`; it checks the
//! directory, the socket and the uid of the process behind it before it sends anything.
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
//! {"do":"send","node":"edge-1","directive":"text:upper","timeout_ms":60000}
//! ```
//!
//! The node answers with one line: `{"ok":…}` with what was asked for, or `{"failed":{"exit":"unreachable","text":"…"}}` with
//! an exit status by name (`failed`, `usage`, `unreachable`, `refused`, `yielded`, `busy`) and the reason.
//!
//! For `send`, data goes both ways in chunks, each with its length (big-endian u32, at most 64 KiB) before it, and a length of 0
//! after the last one. A call that has to wait for others is answered with `{"queued":{}}` first. Once the call is on its way
//! the node sends `{"ok":null}`. Then the client sends the payload and the node sends the responses, both at the same time, and
//! after its last chunk the node sends another line that says how the call ended. It may come before the payload has ended. A
//! client that closes the connection before that cancels the call.
//!
//! # Bounds
//!
//! `reception` has room for each kind of request apart: calls never take the room of a status. 512 calls run at a time, 512
//! more wait; one more fails as busy. 5 s for a request to come, 10 s for an answer to be accepted. A client that reads
//! responses slowly slows down its own call alone, and costs the node one chunk.

pub(super) mod client;
pub(super) mod listen;
mod owner;
pub(super) mod path;
mod protocol;
#[cfg(feature = "testing")]
pub(super) use protocol::fuzz;
mod reception;
pub(super) mod server;
