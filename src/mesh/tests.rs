//! Nodes among neighbours and strangers that mean harm.

mod attacker;
mod churn;
mod dialling;
mod driver;
mod handshakes;
mod hub;
mod neighbours;
mod paths;
mod records;
mod routing;
mod spray;
mod streams;
mod stubs;
mod trust;
