//! QUIC under the mesh: identities, TLS, the one UDP socket, framing.

pub mod code;
