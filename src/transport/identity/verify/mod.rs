//! Verification of the peer's certificate: chain, revocation, names and lists, in this order.

pub(in crate::transport) mod ca_limits;
pub(in crate::transport) mod certificate_error;
pub(in crate::transport) mod chain;
pub(crate) mod credential;

#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use quinn::Side;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
#[cfg(test)]
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use self::certificate_error::{Unusable, WrongName, certificate_error};
use super::names::{NamesError, ids_in_certificate};
use super::presented::Sighting;
use super::trust::{Denial, Trust};
use crate::id::NodeId;
use crate::transport::crypto::provider;

/// The side of the handshake that presented the certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerRole {
    /// It accepted our dial: its certificate must be valid for a TLS server.
    Acceptor,
    /// It dialled us: its certificate must be valid for a TLS client.
    Dialler,
}

impl PeerRole {
    /// The role of the other side of a connection.
    pub(crate) fn of_peer(connection: &quinn::Connection) -> Self {
        match connection.side() {
            Side::Client => Self::Acceptor,
            Side::Server => Self::Dialler,
        }
    }
}

/// Verifies the peer's certificate during the handshake.
///
/// rustls' own verifiers compare with a DNS name or an IP address. A node is identified by its id
/// instead, which may be in an otherName or a URI alone.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    trust: Trust,
    expected: Option<NodeId>,
    /// Where a certificate goes that a handshake refuses.
    sighting: Sighting,
    #[cfg(test)]
    counted: CountedChecks,
}

impl PeerVerifier {
    /// With `expected`, a certificate without that id is refused.
    pub(crate) fn new(trust: Trust, expected: Option<NodeId>) -> Self {
        Self {
            trust,
            expected,
            sighting: Sighting::default(),
            #[cfg(test)]
            counted: CountedChecks::default(),
        }
    }

    /// Keeps a certificate that a handshake refuses.
    pub(in crate::transport) fn reporting(self, sighting: &Sighting) -> Self {
        Self { sighting: sighting.clone(), ..self }
    }

    /// Like [`new`](Self::new), and counts the cost of verification.
    #[cfg(test)]
    pub(in crate::transport) fn counting(trust: Trust, counted: &CountedChecks) -> Self {
        Self { counted: counted.clone(), ..Self::new(trust, None) }
    }

    /// Returns the ids in the certificate if it is accepted at this time.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<Vec<NodeId>, CertificateError> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(certificate_error)?;
        self.verify_chain(&certificate, intermediates, role, now)?;
        // Names are parsed only after a trusted CA's signature has been verified.
        let ids = ids_in_certificate(end_entity).map_err(|error| match error {
            NamesError::Unreadable(_) => CertificateError::BadEncoding,
            NamesError::NoNodeId => {
                WrongName { expected: self.expected.clone(), found: Vec::new() }.into()
            }
        })?;
        self.trust.admit(&ids, &certificate.subject_public_key_info()).map_err(|denial| {
            // The peer learns that it is denied, not by which list.
            tracing::debug!(?ids, reason = %denial, "certificate denied");
            match denial {
                Denial::NotPinned => Unusable::NotPinned.into(),
                Denial::OnDenyList(_) | Denial::NotOnAllowList => {
                    CertificateError::ApplicationVerificationFailure
                }
            }
        })?;
        match &self.expected {
            Some(expected) if !ids.contains(&expected.base()) => {
                Err(WrongName { expected: Some(expected.clone()), found: ids }.into())
            }
            _ => Ok(ids),
        }
    }

    /// As [`verify`](Self::verify), for a handshake.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let verified = self.verify(end_entity, intermediates, role, now);
        verified.map(drop).inspect_err(|_| self.sighting.record(end_entity))
    }

    /// Checks that there is a path to a root at this time and that no list revokes it. Names and
    /// lists of ids are not checked.
    ///
    /// The cost is bounded although the sender is not authenticated yet, see [`chain`]: a chain
    /// without a trusted CA costs one path, with at most two signature checks for each root that
    /// has the name in the chain.
    pub(in crate::transport) fn verify_chain(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        chain::check(&certificate.der(), intermediates)?;
        let rounds = self.trust.crl_rounds();
        if rounds.is_empty() {
            return self.verify_path(certificate, intermediates, role, now, None);
        }
        // webpki uses only the first of several lists by one issuer, which may be outdated. So each
        // round has at most one list per issuer.
        for lists in rounds {
            let lists: Vec<_> = lists.iter().map(|list| &**list).collect();
            let revocation = RevocationOptionsBuilder::new(&lists)
                .expect("no round is empty")
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build();
            self.verify_path(certificate, intermediates, role, now, Some(revocation))?;
        }
        Ok(())
    }

    fn verify_path(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<(), CertificateError> {
        // A certificate without extended key usage is valid for both sides.
        let usage = match role {
            PeerRole::Acceptor => KeyUsage::server_auth(),
            PeerRole::Dialler => KeyUsage::client_auth(),
        };
        #[cfg(test)]
        let algorithms = self.counted.begin_path();
        #[cfg(not(test))]
        let algorithms = algorithms().all;
        certificate
            .verify_for_usage(
                algorithms,
                self.trust.anchors(),
                intermediates,
                now,
                usage,
                revocation,
                Some(&|path| self.trust.permit(path)),
            )
            .map(|_| ())
            .map_err(certificate_error)
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// The methods about signatures, which are the same in the verifiers of clients and of servers.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(PeerIncompatible::Tls13RequiredForQuic.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signed, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, PeerRole::Acceptor, now)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ClientCertVerifier for PeerVerifier {
    /// Empty: a node has one certificate and nothing to choose from.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, PeerRole::Dialler, now)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

#[cfg(test)]
thread_local! {
    static PATHS_HERE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many paths were begun on this thread since the test began.
#[cfg(all(test, feature = "testing"))]
pub(crate) fn paths_begun_on_this_thread() -> usize {
    PATHS_HERE.get()
}

/// Counts the paths that were begun and the signatures that were checked.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(in crate::transport) struct CountedChecks(Arc<Counts>);

#[cfg(test)]
#[derive(Debug, Default)]
struct Counts {
    paths: AtomicUsize,
    signatures: Arc<AtomicUsize>,
    algorithms: OnceLock<Vec<&'static dyn SignatureVerificationAlgorithm>>,
}

#[cfg(test)]
impl CountedChecks {
    pub(in crate::transport) fn paths(&self) -> usize {
        self.0.paths.load(Ordering::Relaxed)
    }

    pub(in crate::transport) fn signatures(&self) -> usize {
        self.0.signatures.load(Ordering::Relaxed)
    }

    fn begin_path(&self) -> &[&'static dyn SignatureVerificationAlgorithm] {
        self.0.paths.fetch_add(1, Ordering::Relaxed);
        PATHS_HERE.set(PATHS_HERE.get() + 1);
        self.0.algorithms.get_or_init(|| {
            let counting = |inner: &&'static dyn SignatureVerificationAlgorithm| {
                let counted = Counting { inner: *inner, count: Arc::clone(&self.0.signatures) };
                // The trait wants them static; tests leak a few dozen bytes.
                &*Box::leak(Box::new(counted)) as &'static dyn SignatureVerificationAlgorithm
            };
            algorithms().all.iter().map(counting).collect()
        })
    }
}

#[cfg(test)]
#[derive(Debug)]
struct Counting {
    inner: &'static dyn SignatureVerificationAlgorithm,
    count: Arc<AtomicUsize>,
}

#[cfg(test)]
impl SignatureVerificationAlgorithm for Counting {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }
}
