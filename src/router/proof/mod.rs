//! Authentication: signatures of records, credentials, and attachments of stubs.

pub(in crate::router) mod admission;
pub(in crate::router) mod attachment;
pub(in crate::router) mod claims;
pub(in crate::router) mod credentials;
pub(in crate::router) mod distrust;
pub(in crate::router) mod expiry;
pub(in crate::router) mod notary;
pub(in crate::router) mod own_stubs;
pub(in crate::router) mod signature;
pub(in crate::router) mod stubs;
