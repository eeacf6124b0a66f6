//! The binary as its users run it: real processes, real sockets on loopback.
#![cfg(feature = "cli")]

mod cert;
mod control;
mod demo;
mod endings;
#[cfg(test)]
mod harness;
mod mesh;
mod node;
mod policy;
mod settings;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(test)]
mod terminal;
