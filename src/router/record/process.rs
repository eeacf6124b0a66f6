//! Processes that originate records under the same id.

/// Which other process of the same id a record overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The instance of the other process.
    pub instance: u64,
    /// Whether the origin's process had seen a record of the other one before it first originated
    /// one: it started later.
    pub late: bool,
    /// The location of the origin, for display; empty if unknown. Maximum
    /// [`Override::MAX_PLACE`] bytes.
    pub place: String,
}

impl Override {
    /// The longest place, in bytes.
    pub const MAX_PLACE: usize = 64;
}

/// A process, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Random per process.
    pub instance: u64,
    /// The address that it reports for itself, for display; empty if it reports none. Untrusted
    /// text: escape it.
    pub place: String,
}

/// Two live processes of one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// This one.
    pub own: Process,
    /// The other one.
    pub other: Process,
    /// Whether this one yields; else the other one does.
    pub yields: bool,
}
