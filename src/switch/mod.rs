//! What to do with one packet. Pure.
