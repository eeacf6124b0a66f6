//! The mesh: neighbours, peers, services and streams.

pub mod stream;

pub use stream::{RecvHalf, SendHalf, Stream, StreamError};
