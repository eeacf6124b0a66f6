//! Punchers in a small world of NATs, firewalls and lossy links, in virtual time.

#[cfg(test)]
mod bytes;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod nat;
#[cfg(test)]
mod rng;
#[cfg(test)]
mod world;
