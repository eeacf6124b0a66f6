//! What commands print.

pub(super) mod flow;
pub(super) mod json;
pub(super) mod progress;
pub(super) mod terminal;
pub(super) mod text;
