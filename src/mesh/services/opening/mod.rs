//! The first bytes of a stream to a service, and the answer to them.

pub(crate) mod accept;
pub(crate) mod open;
pub(crate) mod refuse;
pub(crate) mod request;
