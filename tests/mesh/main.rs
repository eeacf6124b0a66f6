//! Whole nodes on a virtual network, in virtual time.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admission;
mod arguments;
mod black_holes;
mod carriers;
mod configured_peers;
mod converge;
mod costs;
mod crowd;
mod datagrams;
mod direct;
mod endings;
mod ephemerals;
mod failover;
mod first_connections;
mod lifecycle;
mod links;
mod liveness;
mod nat;
mod policy;
mod punching;
mod random_holes;
mod records;
mod reports;
mod restarts;
#[path = "../punch/rng.rs"]
#[expect(dead_code, reason = "these tests need a part of it")]
mod rng;
mod roaming;
mod routes;
mod rpc;
mod saturation;
mod silent_relay;
mod streams;
mod support;
mod transit;
mod twins;
mod units;
mod unreachable;
mod work;
mod young;
