//! Whose certificates and signatures are accepted.

pub(crate) mod distrust;
pub(crate) mod notary;
pub(crate) mod vetting;
