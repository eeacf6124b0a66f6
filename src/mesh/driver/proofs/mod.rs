//! Certificates and signatures: verified ahead, renewed, and watched for their end.

pub(crate) mod expiry;
pub(crate) mod renewal;
pub(crate) mod verification;
