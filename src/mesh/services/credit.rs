//! How many streams the other end of a connection may open.
//!
//! quinn reserves memory for each permitted stream, so a connection begins with [`FIRST_STREAMS`].
//! QUIC's STREAMS_BLOCKED would say when that is too little, but quinn does not send it. Two counts
//! stand in for it:
//!
//! ```text
//!   streams that live here       ─┐
//!                                 ├─ either reaches CREDIT_WANTED_AT ─▶ STREAM_CREDIT
//!   streams that the opener holds ┘  (it says so in OPEN)
//! ```
//!
//! A stream uses credit until both ends are done with it, so what neither count covers is only
//! passing, and the two together reach [`FIRST_STREAMS`] no earlier than one of them reaches
//! [`CREDIT_WANTED_AT`]. Neither depends on the order in which packets arrive: a stream counts when
//! QUIC accepts it, with or without its header.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::connection::Connection;
use super::usage::Usage;
use crate::transport::settings::{CREDIT_WANTED_AT, FIRST_STREAMS, STREAM_CREDIT};

/// The permission to open streams that this node has given to the other end of a connection.
#[derive(Debug)]
pub(crate) struct StreamCredit {
    connection: Connection,
    usage: Arc<Usage>,
    gate: CreditGate,
}

/// Decides when the other end may open [`STREAM_CREDIT`] streams.
#[derive(Debug, Default)]
pub(crate) struct CreditGate {
    raised: AtomicBool,
}

impl CreditGate {
    /// Whether the permission is to be raised now that so many streams of the other end live here.
    pub(crate) fn accepted(&self, incoming: usize) -> bool {
        incoming >= CREDIT_WANTED_AT && self.wanted()
    }

    /// Whether the permission is to be raised now that the other end wants it: the first time.
    pub(crate) fn wanted(&self) -> bool {
        !self.raised.load(Ordering::Relaxed) && !self.raised.swap(true, Ordering::Relaxed)
    }
}

impl StreamCredit {
    /// Permits [`FIRST_STREAMS`]: to be called once the other end is authenticated.
    pub(crate) fn new(connection: Connection, usage: Arc<Usage>) -> Self {
        connection.set_max_concurrent_bi_streams(FIRST_STREAMS.into());
        Self { connection, usage, gate: CreditGate::default() }
    }

    /// Who uses the connection.
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// To be called after each stream that was accepted.
    pub(crate) fn accepted(&self) {
        let incoming = self.usage.incoming_streams();
        if self.gate.accepted(incoming) {
            self.permit_all();
        }
        self.connection.need().note(incoming);
    }

    /// Permits [`STREAM_CREDIT`], if that has not happened before.
    pub(crate) fn raise(&self) {
        if self.gate.wanted() {
            self.permit_all();
        }
    }

    fn permit_all(&self) {
        self.connection.set_max_concurrent_bi_streams(STREAM_CREDIT.into());
    }
}

const _: () = {
    // Credit is announced once more than an eighth of the window is free, so an eighth may be
    // withheld. With the most that the two counts can hide, and that, the opener must still be able
    // to go on.
    assert!(2 * (CREDIT_WANTED_AT - 1) + FIRST_STREAMS as usize / 8 < FIRST_STREAMS as usize);
    assert!(
        crate::transport::settings::MAX_STREAMS + STREAM_CREDIT as usize / 8
            < STREAM_CREDIT as usize
    );
};
