//! Systems that do not report changes of files: `receptor reload` and SIGHUP remain.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::Path;

/// Directories whose changes are reported: no directory on this system.
#[derive(Debug)]
pub(in crate::cli) struct Watch(Infallible);

impl Watch {
    /// # Errors
    /// Always.
    pub(in crate::cli) fn of(_: &BTreeSet<&Path>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::cli) async fn changed(&self) -> io::Result<()> {
        match self.0 {}
    }
}
