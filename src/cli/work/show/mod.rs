//! Units and their states, as people read them.

pub(super) mod output;
pub(super) mod state_line;
pub(super) mod table;
