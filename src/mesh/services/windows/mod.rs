//! How many bytes connections may hold for their peers, shared among them.

pub(crate) mod receive_window;
pub(crate) mod send_window;
pub(crate) mod window_budget;
pub(crate) mod window_need;
pub(crate) mod writers;
pub(crate) mod written;
