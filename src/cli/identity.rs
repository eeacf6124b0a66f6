//! The certificates of a node, and whom its configuration accepts.

use std::path::{Path, PathBuf};

use super::exit::Failure;
use crate::id::NodeId;
use crate::transport::{Fingerprint, Identity, RelayRule};

/// What the configuration adds to the trust in the CAs. Empty lists add nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct TrustRules {
    pub(super) relays: Vec<RelayRule>,
    /// Files of revocation lists.
    pub(super) crls: Vec<PathBuf>,
    pub(super) denied: Vec<NodeId>,
    pub(super) allowed: Vec<NodeId>,
    pub(super) pins: Vec<Fingerprint>,
}

/// Reads the certificates and revocation lists. Not on the runtime's threads: a file system may
/// hang.
pub(super) async fn load(
    certs: &Path,
    id: &NodeId,
    rules: &TrustRules,
) -> Result<Identity, Failure> {
    let (certs, id, rules) = (certs.to_owned(), id.clone(), rules.clone());
    let reading = tokio::task::spawn_blocking(move || read(&certs, &id, rules));
    reading.await.expect("reading files does not panic")
}

fn read(certs: &Path, id: &NodeId, rules: TrustRules) -> Result<Identity, Failure> {
    let identity = Identity::load(certs, id).map_err(Failure::usage)?;
    let mut trust = identity.trust().clone();
    for file in &rules.crls {
        trust = trust.with_crl_file(file).map_err(Failure::usage)?;
    }
    if !rules.denied.is_empty() {
        trust = trust.with_denied(rules.denied);
    }
    // An empty first list of these would refuse everyone.
    if !rules.allowed.is_empty() {
        trust = trust.with_allowed(rules.allowed);
    }
    if !rules.pins.is_empty() {
        trust = trust.with_pins(rules.pins);
    }
    if !rules.relays.is_empty() {
        trust = trust.with_relays(rules.relays);
    }
    Ok(identity.with_trust(trust))
}
