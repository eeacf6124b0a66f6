//! The TLS provider.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The provider of all cryptography. It is passed explicitly and never installed as the process
/// default, because the application may have installed another.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}
