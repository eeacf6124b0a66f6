//! What a router has done since its start.

/// What a router has done since its start. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Own records made.
    pub originations: u64,
    /// Times that a newer record of this node's own id was overtaken.
    pub resyncs: u64,
    /// Updates that brought something newer.
    pub updates_accepted: u64,
    /// Updates of a copy that was held already.
    pub updates_duplicate: u64,
    /// Updates older than what was held; each was answered.
    pub updates_stale: u64,
    /// Updates that were refused: an address collision, no room, an epoch too far ahead.
    pub updates_refused: u64,
    /// Records of others whose proof was verified and held.
    pub records_verified: u64,
    /// Records that somebody forged, or sent without a proof; each cost its sender the session.
    pub records_forged: u64,
    /// Records whose credential is not trusted here; each time that one was refused counts.
    pub records_untrusted: u64,
    /// Records that were dropped because no neighbour that had sent them had the credential.
    pub records_unproven: u64,
    /// Credentials that neighbours were asked for and gave.
    pub credentials_pulled: u64,
    /// Credentials given to neighbours.
    pub credentials_sent: u64,
    /// Proofs of other nodes' stubs that were verified and are valid.
    pub attachments_verified: u64,
    /// Claims to be the neighbour of a stub that were rejected: no proof, or none that counts.
    pub claims_rejected: u64,
    /// Claims that were reported as false.
    pub claims_false: u64,
    /// Updates that came faster than their origin may speak, and were delayed.
    pub updates_delayed: u64,
    /// Updates that the cache of seen ids saved from being decoded, and changes that give a record
    /// seen before.
    pub seen_hits: u64,
    /// Updates given to neighbours as whole records.
    pub updates_sent: u64,
    /// Updates given to neighbours as changes against the version before.
    pub deltas_sent: u64,
    /// Changes that gave a record, which then counts like one that came whole.
    pub deltas_applied: u64,
    /// Changes from a copy that is not held, or that gave another record than they said; the
    /// neighbour was asked for the whole record, if it had not been before.
    pub deltas_failed: u64,
    /// Ids given to neighbours, in HAVE messages.
    pub ids_sent: u64,
    /// Digests given to neighbours.
    pub digests_sent: u64,
    /// Digests in buckets given to neighbours, to compare large databases in parts.
    pub buckets_sent: u64,
    /// Digests under a key of their own given to neighbours, to find corruption.
    pub audits_sent: u64,
    /// Such digests of neighbours that differed again after a repetition: the records were checked,
    /// and compared.
    pub audit_mismatches: u64,
    /// Records that were no longer what they had been when they were stored, and were dropped.
    pub records_corrupted: u64,
    /// Entries given to neighbours in summaries.
    pub summary_entries_sent: u64,
    /// Records that neighbours were asked for.
    pub pulls: u64,
    /// Sessions that synced.
    pub syncs: u64,
    /// Links that were held back after flapping.
    pub holds: u64,
    /// Quiet comparisons that found a difference.
    pub digest_mismatches: u64,
    /// Times that the paths were computed.
    pub path_runs: u64,
    /// Times that the paths of a neighbour were searched, for alternates.
    pub alternate_runs: u64,
    /// Records that were forgotten after their time.
    pub records_expired: u64,
    /// Records that made room for others before their time.
    pub records_evicted: u64,
    /// Records of this node that asked for an echo wave.
    pub waves: u64,
    /// Echoes given to neighbours.
    pub echoes_sent: u64,
    /// Echoes that were not waited for: of waves that are over, mostly.
    pub echoes_ignored: u64,
    /// Requests for convergence that ended at their deadline.
    pub partials: u64,
    /// Announcements and requests of neighbours that went beyond a bound and were not remembered.
    pub requests_dropped: u64,
    /// Events that were not polled.
    pub events_dropped: u64,
}
