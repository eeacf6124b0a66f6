//! ROUTE2, the link-state router. Pure: no I/O, no clock, no randomness of its own.
