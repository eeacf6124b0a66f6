//! The certificates of a node, with the rules that its configuration adds.

use std::path::Path;

use crate::id::NodeId;
use crate::transport::{Identity, IdentityError, RelayRule};

/// Reads the certificates. Not on the runtime's threads: a file system may hang.
pub(super) async fn load(
    certs: &Path,
    id: &NodeId,
    relays: &[RelayRule],
) -> Result<Identity, IdentityError> {
    let (certs, id) = (certs.to_owned(), id.clone());
    let reading = tokio::task::spawn_blocking(move || Identity::load(&certs, &id));
    let identity = reading.await.expect("reading files does not panic")?;
    if relays.is_empty() {
        return Ok(identity);
    }
    let trust = identity.trust().clone().with_relays(relays.iter().cloned());
    Ok(identity.with_trust(trust))
}
