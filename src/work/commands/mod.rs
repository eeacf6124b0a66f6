//! External commands as handlers.

pub(super) mod command;
pub(super) mod process;
pub(super) mod supervise;
