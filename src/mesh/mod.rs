//! The mesh: services and streams.

mod open;
pub mod stream;

pub use open::{OpenError, RefuseCode, RefusedOpen};
pub use stream::{RecvHalf, SendHalf, Stream, StreamError};
