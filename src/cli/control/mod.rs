//! The control socket: how commands on this machine use a node that runs already, without joining
//! the mesh.
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
//! {"do":"status","max_stubs":16}
//! {"do":"converge","timeout_ms":5000}
//! {"do":"ping","node":"edge-1","timeout_ms":5000}
//! {"do":"trace","node":"edge-1"}
//! {"do":"explain","node":"edge-1"}
//! {"do":"send","node":"edge-1","directive":"text:upper"}
//! {"do":"send","node":"edge-1","directive":"text:upper","timeout_ms":60000,"peer_timeout_ms":60000}
//! {"do":"unit","unit":"submit","node":"edge-1","directive":"text:upper","key":"0193…","start_by_ms":3600000,"labels":{"a":"b"}}
//! {"do":"unit","unit":"list","filter":{"states":["running"],"here":true}}
//! {"do":"unit","unit":"quarantined"}
//! {"do":"unit","unit":"status","id":"0193"}
//! {"do":"unit","unit":"watch","id":"0193"}
//! {"do":"unit","unit":"results","id":"0193","from":4096,"stderr":true,"follow":true}
//! {"do":"unit","unit":"cancel","id":"0193","grace_ms":10000}
//! {"do":"unit","unit":"release","id":"0193","force":false}
//! {"do":"unit","unit":"release-all","filter":{"older_ms":60000},"force":false}
//! ```
//!
//! The node answers with one line: `{"ok":…}` with what was asked for, or
//! `{"failed":{"exit":"unreachable","text":"…"}}` with an exit status by name (`failed`, `usage`,
//! `unreachable`, `refused`, `yielded`, `busy`) and the reason.
//!
//! The status lists every stub unless `max_stubs` is given.
//!
//! For `send`, data goes both ways in chunks, each with its length (big-endian u32, up to 64 KiB)
//! before it, and a length of 0 after the last one. A call that has to wait for others is answered
//! with `{"queued":{}}` first. Once the call is on its way the node sends `{"ok":null}`. Then the
//! client sends the payload and the node sends the responses, both at the same time, and after its
//! last chunk the node sends another line that says how the call ended. It may come before the
//! payload has ended. A client that closes the connection before that cancels the call.
//!
//! Units: for `submit` the node sends `{"ok":null}`, the client sends the payload in chunks, and
//! the node answers with the unit's status once it is on disk. `watch` is answered with a line for
//! each status, up to the final one. For `results` the node sends `{"ok":null}`, the output in
//! chunks, and a last line with the status or the failure.
//!
//! # Bounds
//!
//! `reception` has room for each kind of request apart: calls never take the room of a status. 512
//! calls run at a time, 512 more wait; one more fails as busy. 512 submissions, watches and results
//! of units are served at a time. 5 s for a request to come, 10 s for an answer to be accepted. A
//! client that reads responses slowly slows down its own call alone, and costs the node one chunk.

pub(super) mod client;
pub(super) mod listen;
mod owner;
pub(super) mod path;
mod protocol;
#[cfg(feature = "testing")]
pub(super) use protocol::fuzz;
mod reception;
pub(super) mod server;
