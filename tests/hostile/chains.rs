//! Certificate chains that are expensive to refuse.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use crate::tls::Credentials;

/// A chain of a stranger's, with this many intermediates that all have the same name and none of
/// which issued another.
pub(crate) fn namesakes(count: usize) -> Credentials {
    let params = |ca| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "namesake");
        params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
        params
    };
    let issuer = Issuer::new(params(true), KeyPair::generate().unwrap());
    let own = KeyPair::generate().unwrap();
    let mut chain = vec![params(false).signed_by(&own, &issuer).unwrap().der().clone()];
    chain.extend((0..count).map(|_| {
        let certificate = params(true).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        certificate.der().clone()
    }));
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    Credentials { chain, key }
}
