//! The NAT lab: real processes of the binary, behind real NATs of the kernel, in network namespaces
//! of their own.
//!
//! ```text
//!            relay r1     relay r2     (stranger)
//!               │            │             │
//!   ════════════╪════════════╪═════════════╪══════  the internet: a bridge, 51.0.0.0/16
//!               │                          │
//!          gateway: a NAT             gateway: a NAT
//!               │ 192.168.1.0/24           │ 192.168.2.0/24
//!             edge a                     edge b
//! ```
//!
//! The tests make all of that and remove it again; nothing of it touches the machine's own network.
//! It takes Linux, root, `ip` and `nft`, and `miniupnpd` for the mapping of ports. Without them
//! each test says in one line that it was skipped, and why, and passes; with
//! `RECEPTOR_REQUIRE_LAB=1` it fails (`RECEPTOR_REQUIRE_LAB_TOOLS=1` for `miniupnpd`).
//!
//! `RECEPTOR_NAT_RUNS` says how often what depends on luck is repeated, 1 by default.
//! `RECEPTOR_NAT_LOG` is the nodes' `RUST_LOG`; where it is set, the directories with their logs
//! are kept and named.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod bare;
#[cfg(test)]
mod carriers;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod lab;
#[cfg(feature = "mdns")]
#[cfg(test)]
mod lan;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod observer;
#[cfg(feature = "portmap")]
#[cfg(test)]
mod portmap;
#[cfg(test)]
mod process;
#[cfg(test)]
mod roaming;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod transfer;
