//! Nodes among neighbours and strangers that mean harm.

mod attacker;
mod neighbours;
mod routing;
mod spray;
mod streams;
