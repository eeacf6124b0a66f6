//! Certificates for brokers that take PEM files: a CA, and one certificate for localhost that all
//! show.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Where the files are.
pub struct Pem {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pem {
    pub fn at(dir: &Path) -> Self {
        Self { ca: dir.join("ca.pem"), certificate: dir.join("cert.pem"), key: dir.join("key.pem") }
    }

    pub fn make(dir: &Path) -> Result<Self> {
        let pem = Self::at(dir);
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let mut leaf =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(&pem.ca, ca_certificate.pem())?;
        std::fs::write(&pem.certificate, leaf.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(&pem.key, key.serialize_pem())?;
        Ok(pem)
    }
}

/// A port that was free a moment ago, for servers that cannot say which one they got.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
