//! Attacks on real nodes by a member of the mesh, and by outsiders, in virtual time.
//!
//! The attacker does not use the crate's own links: [`member::Member`] speaks TLS, frames and
//! switched packets by itself, with a genuine certificate, so it can say what no honest node would.
//! Each test states what the attack may cost its victim, as counts: honest calls that succeed, log
//! lines, connections, entries.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod carrier;
mod chains;
mod claims;
mod floods;
mod fuzzed;
mod handshakes;
mod initials;
mod log;
mod member;
mod probes;
mod puppet;
mod scene;
mod tls;
mod transit;
