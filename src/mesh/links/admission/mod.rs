//! Who is let in: connections from outside, their handshakes, and the places that sources share.

pub(crate) mod acceptor;
pub(crate) mod budget;
pub(crate) mod half_open;
pub(crate) mod tcp;
