//! The two ends of a negotiation.

/// The end of a pair that sends offers, or the one that answers them. Both ends must agree, by the
/// direction of their connection or by their ids. ICE (RFC 8445) calls them controlling and
/// controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sends offers.
    Offerer,
    /// Answers offers.
    Answerer,
}
