//! The streams of submitters, at the executor, and what is reported on them.

pub(super) mod followers;
pub(super) mod following;
pub(super) mod output;
pub(super) mod serving;
pub(super) mod stream_places;
