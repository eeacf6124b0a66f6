//! The router under a deterministic simulator, against a naive reference.
//!
//! Everything here is a test, and its helpers.

#[cfg(test)]
mod alternates;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod cold_start;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod converge;
#[cfg(test)]
mod decoder;
#[cfg(test)]
mod deltas;
#[cfg(test)]
mod flaps;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod menu;
#[cfg(test)]
mod mixed_views;
#[cfg(test)]
mod notary;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod rng;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod small_graphs;
#[cfg(test)]
mod stubs;
#[cfg(test)]
mod topologies;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod twins;
