//! The certificates of both sides: an authority of the crate for ours, and for the baseline one of
//! the same kind whose certificates carry a host name, as rustls by itself wants it.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use receptor_quic::Authority;

use crate::Result;

/// The host name in the baseline's certificate.
pub(crate) const HOST: &str = "node";
pub(crate) const ROOT: &str = "raw-root.der";
pub(crate) const CERTIFICATE: &str = "raw.der";
pub(crate) const KEY: &str = "raw-key.der";

/// Writes what the processes load.
pub(crate) fn write(dir: &Path) -> Result<()> {
    Authority::new("bench", 1)?.save(dir)?;
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join(ROOT), root.self_signed(&root_key)?.der())?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([HOST.to_owned()])?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &Issuer::new(root, root_key))?;
    std::fs::write(dir.join(CERTIFICATE), certificate.der())?;
    std::fs::write(dir.join(KEY), key.serialize_der())?;
    Ok(())
}
