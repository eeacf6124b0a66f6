//! The certificates of a node, and whom its configuration accepts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::cli::process::exit::Failure;
use crate::id::NodeId;
use crate::transport::{Fingerprint, Identity, RelayRule};

/// What the configuration adds to the trust in the CAs. Empty lists add nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::cli) struct TrustRules {
    pub(in crate::cli) relays: Vec<RelayRule>,
    /// Files of revocation lists.
    pub(in crate::cli) crls: Vec<PathBuf>,
    pub(in crate::cli) denied: Vec<NodeId>,
    pub(in crate::cli) allowed: Vec<NodeId>,
    pub(in crate::cli) pins: Vec<Fingerprint>,
}

/// Reads the certificates and revocation lists. Not on the runtime's threads: a file system may
/// hang.
pub(in crate::cli) async fn load(
    certs: &Path,
    id: &NodeId,
    rules: &TrustRules,
) -> Result<Identity, Failure> {
    let (certs, id, rules) = (certs.to_owned(), id.clone(), rules.clone());
    let reading = tokio::task::spawn_blocking(move || read(&certs, &id, rules));
    reading.await.expect("reading files does not panic")
}

/// A digest of the certificates and revocation lists as they are on disk, to tell whether they have
/// changed. What cannot be read counts as empty: to load it says why.
pub(in crate::cli) async fn digest(certs: &Path, id: &NodeId, rules: &TrustRules) -> [u8; 32] {
    let own = ["ca.crt".to_owned(), format!("{}.crt", id.base())].map(|file| certs.join(file));
    let files: Vec<_> = own.into_iter().chain(rules.crls.iter().cloned()).collect();
    let digest = move || {
        let mut digest = Sha256::new();
        for file in files {
            let content = std::fs::read(file).unwrap_or_default();
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(content);
        }
        digest.finalize().into()
    };
    tokio::task::spawn_blocking(digest).await.expect("reading files does not panic")
}

/// The directories of the certificates and revocation lists.
pub(in crate::cli) fn directories<'a>(
    certs: &'a Path,
    rules: &'a TrustRules,
) -> BTreeSet<&'a Path> {
    let of_lists = rules.crls.iter().filter_map(|file| file.parent()).map(|dir| {
        // The parent of a bare name is empty.
        if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
    });
    of_lists.chain([certs]).collect()
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
