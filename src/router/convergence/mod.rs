//! Waves of echoes, and the requests that wait for them.

pub(in crate::router) mod answer;
pub(in crate::router) mod converge;
pub(in crate::router) mod echo;
pub(in crate::router) mod request;
