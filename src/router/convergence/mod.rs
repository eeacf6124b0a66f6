//! Convergence: echo waves, and the requests that they answer.

pub(in crate::router) mod answer;
pub(in crate::router) mod converge;
pub(in crate::router) mod echo;
pub(in crate::router) mod request;
